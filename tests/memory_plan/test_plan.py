"""The plan of a run's memory against exact measurements: of passes, of 4-bit weights, of a run."""

from __future__ import annotations

import copy
import json
import resource
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from srl.cli.lightning import instantiated
from srl.cli.main import main
from srl.curriculum.phases import Phase
from srl.curriculum.schedule import Schedule
from srl.errors import ConfigError
from srl.examples.builder import ResponseLimits
from srl.memory_plan import job as job_module
from srl.memory_plan import plan as plan_module
from srl.memory_plan.check import PlanSettings, check_memory
from srl.memory_plan.dry_run import micro_batch, update_pass
from srl.memory_plan.fake_model import Build, nf4_bytes, weigh
from srl.memory_plan.job import job_of
from srl.memory_plan.live_bytes import LiveBytes
from srl.memory_plan.memory import Memory, card
from srl.memory_plan.model_shapes import KNOWN, shape_of
from srl.memory_plan.optimizer import OptimizerBytes, optimizer_bytes
from srl.memory_plan.plan import GIB, make_plan
from srl.memory_plan.rollouts import Call, own_columns, rollout_parts
from srl.model.adapters import (
    LoraSettings,
    attach_lora,
    enable_gradient_checkpointing,
    inner_decoder,
    output_head,
)
from srl.model.loading import load_base
from srl.model.merged_lora import merge_lora_forward
from srl.model.sources import resolve
from srl.packing.attention import NAME, chosen
from srl.packing.micro_batches import micro_batches
from srl.types import Sampling
from srl.update.loss import logprobs_of

ROOT = Path(__file__).resolve().parents[2]
PLANNED = {"srl": ["srl", "sft"], "rlsd": ["srl", "rlsd"], "sdpo": ["rlsd_step", "sdpo", "rlvr"]}
PHASES = "[{name: srl, mix: {srl: 1.0}, batch_groups: 16}]"
BASE = ROOT / "data" / "quickstart" / "base"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A Qwen2 model of four layers with grouped heads and a tied head, as the configs for GPUs have."""
    from transformers import AutoModelForCausalLM, Qwen2Config

    config = Qwen2Config(
        vocab_size=2000, hidden_size=128, intermediate_size=320, num_hidden_layers=4, num_attention_heads=8,
        num_key_value_heads=2, tie_word_embeddings=True,
    )  # fmt: skip
    place = tmp_path_factory.mktemp("qwen")
    AutoModelForCausalLM.from_config(config).save_pretrained(place)
    return place


def build_of(folder, nf4=False, lora=True, checkpointing=False, autocast=False, slow=False):
    settings = LoraSettings(8, 16) if lora else None
    return Build(shape_of(str(folder)), "cpu", nf4, settings, checkpointing, autocast, slow=slow)


def real(folder, build):
    """The policy as `fit` builds it."""
    device = torch.device("cpu")
    kind: dict = {"quantization": "nf4" if build.nf4 else "none", "dtype": build.dtype}
    model = load_base(resolve(str(folder)), device=device, **kind)
    if build.lora is None:
        model.requires_grad_(True)
    else:
        model = attach_lora(model, build.lora, seed=0)
        merge_lora_forward(model)
    if build.checkpointing:
        enable_gradient_checkpointing(model)
    inner_decoder(model).set_attn_implementation(NAME)
    return model


def storages(model):
    """The bytes of all weights and buffers, of quantised ones with everything bitsandbytes keeps for them."""
    tensors = [*model.parameters(), *model.buffers()]
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        if state is not None:
            inner = state.state2
            tensors += [state.absmax, state.code, state.offset, inner.absmax, inner.code]
    with LiveBytes() as live:
        live.note(tensors)
        return live.live


def test_live_bytes_are_those_of_the_storages_alive():
    with LiveBytes() as live:
        a = torch.zeros(1000)  # 4000 bytes
        b = a[:10]  # a view: none of its own
        c = a * 2  # 4000 more
        assert (live.live, live.peak) == (8000, 8000)
        del a, c  # b keeps the first storage
        assert (live.live, live.peak) == (4000, 8000)
        live.restart()
        assert live.peak == 4000
        del b
        assert live.live == 0


@pytest.mark.parametrize("shape", [(128, 128), (320, 128), (16, 4), (1000, 37)])
def test_nf4_takes_exactly_what_bitsandbytes_lays_out(shape):
    import bitsandbytes.functional as functional

    packed, state = functional.quantize_4bit(torch.randn(shape), compress_statistics=True, quant_type="nf4")
    inner = state.state2
    parts = [packed, state.absmax, state.code, state.offset, inner.absmax, inner.code]
    assert nf4_bytes(shape[0] * shape[1]) == sum(part.numel() * part.element_size() for part in parts)


@pytest.mark.parametrize("kind", [{"nf4": True}, {}, {"lora": False}], ids=["nf4", "float32", "full"])
def test_weights_are_exact(folder, kind):
    build = build_of(folder, **kind)
    found = weigh(build)
    model = real(folder, build)
    assert found.quantised + found.plain + found.adapter == storages(model)
    trained = [p for p in model.parameters() if p.requires_grad]
    assert sorted(found.trained) == sorted(tuple(p.shape) for p in trained)


@pytest.mark.parametrize(
    "kind",
    [
        {},
        {"autocast": True},
        {"checkpointing": True},
        {"nf4": True},
        {"nf4": True, "checkpointing": True, "autocast": True},
        {"lora": False, "checkpointing": True},
    ],
    ids=lambda kind: "-".join(kind) or "merged",
)
def test_an_update_keeps_and_takes_what_the_plan_says(folder, kind):
    """600 tokens: 100 of prompt and 12 completions of 40 and one of 20."""
    build = build_of(folder, **kind)
    micro = micro_batch(100, 40, 600, True)
    assert micro.input_ids.shape == (1, 600)
    model = real(folder, build).train()
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    decoder, head = inner_decoder(model), output_head(model)
    with LiveBytes() as live, torch.autocast("cpu", torch.bfloat16, enabled=build.autocast):
        with torch.no_grad():  # makes the merged weights; what the update itself brings is left
            decoder(input_ids=torch.zeros(1, 2, dtype=torch.int64), use_cache=False)
        live.note([*model.parameters(), *(p.grad for p in model.parameters() if p.grad is not None)])
        torch.clear_autocast_cache()
        before = live.live
        live.restart()
        found = logprobs_of(decoder, head, micro, 2000)
        kept = live.live - before
        found.sum().backward()
        peak = live.peak - before
    planned = update_pass(build, 100, 40, 600)
    assert planned.kept == pytest.approx(kept, rel=0.03)
    assert planned.peak == pytest.approx(peak, rel=0.03)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("lengths", [(2048, 512, 6144), (1024, 64, 2048)])
def test_auto_on_cuda_never_takes_more_than_the_mask_that_is_planned(folder, lengths, checkpointing):
    """On a wide model with as many heads as the 1.5B of Qwen2.5: it is the attention that counts. Its three
    layers are one dry run.
    """
    shape = copy.deepcopy(shape_of(str(folder)))
    shape.hidden_size, shape.num_attention_heads, shape.num_key_value_heads = 1536, 12, 2
    shape.num_hidden_layers = 3
    build = Build(shape, "cuda", True, LoraSettings(8, 16), checkpointing, True, "auto")
    decoder = SimpleNamespace(config=shape, is_gradient_checkpointing=checkpointing)
    how = chosen(decoder, micro_batch(*lengths, True).trees)
    assert how == ("siblings" if checkpointing or lengths[1] == 512 else "mask")
    planned, found = update_pass(build, *lengths), update_pass(replace(build, attention=how), *lengths)
    assert planned == update_pass(replace(build, attention="mask"), *lengths)
    assert found.peak <= 1.02 * planned.peak
    assert found.kept <= 1.02 * planned.kept


def test_the_head_of_a_plan_for_cuda_is_one_product_of_the_tokens_that_cuda_takes(folder):
    """2 ** 26 logits of a vocabulary of 2 ** 17 are 512 tokens, 2 ** 24 on the CPU 128. At its peak a chunk
    holds logits in float32, and in bfloat16 what is behind them.
    """
    shape = copy.deepcopy(shape_of(str(folder)))
    shape.vocab_size, shape.num_hidden_layers = 2**17, 1
    build = Build(shape, "cuda", False, LoraSettings(8, 16), True, True, "mask")
    few, many = (update_pass(build, 8, 2, tokens).peak for tokens in (8 + 128, 8 + 512))
    assert many - few == pytest.approx((512 - 128) * 2**17 * (4 + 2), rel=0.05)
    two_chunks = update_pass(build, 8, 2, 8 + 1024).peak  # of which one is gone when the other is made
    assert two_chunks - many < 2**17 * 512 / 4


def test_an_update_with_a_teacher_takes_what_the_plan_says(folder):
    """As above, each response read by the mean of the weights behind a prompt of as many other tokens."""
    from srl.engine.decoder import Decoder
    from srl.update.loss import LossSettings
    from srl.update.teacher import Teacher, TeacherSettings

    build, settings = build_of(folder, checkpointing=True), TeacherSettings(weights="ema")
    rows = [
        replace(row, teaching="target", taught_ids=tuple(range(500, 600)))
        for row in micro_batch(100, 40, 600, True).rows
    ]
    (micro,) = micro_batches(rows, 600)
    model = real(folder, build)
    decoder = Decoder(model)
    model.train()
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    teacher = Teacher(decoder, settings)
    with LiveBytes() as live:
        with torch.no_grad():  # makes the merged weights
            decoder.backbone(input_ids=torch.zeros(1, 2, dtype=torch.int64), use_cache=False)
        live.note([*model.parameters(), *(p.grad for p in model.parameters() if p.grad is not None)])
        live.note(list(teacher.averaged._means.values()))
        before = live.live
        live.restart()
        loss, _ = teacher.loss(micro, LossSettings(), None)
        kept = live.live - before
        loss.backward()
        peak = live.peak - before
    planned = update_pass(build, 100, 40, 600, True, "target", settings)
    assert planned.kept == pytest.approx(kept, rel=0.05)
    assert planned.peak == pytest.approx(peak, rel=0.05)


def test_rollouts_take_what_the_plan_says(folder):
    """Of 16 rows two end just before the limit: the other 14 get no room for more than the limit.

    64 columns would double to 128 for a limit of 80.
    """
    from srl.engine.engine import RolloutEngine
    from srl.types import Example, Sampling

    build = build_of(folder)
    model = real(folder, build).eval()
    from conftest import tiny_tokenizer

    engine = RolloutEngine(model, tiny_tokenizer(), (-1,), rows_in_flight=16)
    examples = [
        Example(str(i), "srl", 1, (i, *range(99)), "", max_new_tokens=78 if i == 0 else 80) for i in range(8)
    ]
    generator = torch.Generator().manual_seed(0)
    engine.generate(examples[:1], 2, Sampling(), generator)  # makes the merged weights
    with LiveBytes() as live:
        live.note([*model.parameters(), *model.buffers()])
        live.note([m.forward.merged for m in model.modules() if hasattr(m.__dict__.get("forward"), "merged")])
        before = live.live
        live.restart()
        engine.generate(examples, 2, Sampling(), generator)
        measured = live.peak - before
    planned = sum(rollout_parts(build, Call(8, 2, 100, 80), 16).values())
    assert planned == pytest.approx(measured, rel=0.1)


def test_two_waves_of_rollouts_hold_as_much_as_four(folder):
    """Of the longest draw modules/longest.py samples two: 8 rows of 2 prompts are in flight at once."""
    from conftest import tiny_tokenizer

    from srl.engine.engine import RolloutEngine
    from srl.types import Example, Sampling

    model = real(folder, build_of(folder)).eval()
    engine = RolloutEngine(model, tiny_tokenizer(), (-1,), rows_in_flight=8)
    examples = [Example(str(i), "srl", 1, (i, *range(199)), "", max_new_tokens=6) for i in range(8)]
    generator, held = torch.Generator().manual_seed(0), {}
    engine.generate(examples[:2], 4, Sampling(), generator)  # makes the merged weights
    for prompts in (2, 4, 8):
        with LiveBytes() as live:
            engine.generate(examples[:prompts], 4, Sampling(), generator)
            held[prompts] = live.peak
    assert held[4] > 1.1 * held[2]
    assert held[8] == pytest.approx(held[4], rel=0.02)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_an_update_takes_what_its_padded_tokens_do(folder, checkpointing):
    """So the longest rows tell what shorter ones take: 4 responses of 200 behind 100 tokens, or 9 of 90."""
    build = build_of(folder, nf4=True, checkpointing=checkpointing, autocast=True)
    long, short = (update_pass(build, prompt, size, 900).peak for prompt, size in ((100, 200), (90, 90)))
    assert short == pytest.approx(long, rel=0.05)


def test_own_columns_by_hand():
    # 8 rows of 100 tokens: 64 columns would double to 128, but no row writes more than 100
    assert own_columns(8, 100, waiting=False) == 8 * 100
    assert own_columns(8, 100, waiting=True) == 8 * 198  # others enter when 99 columns are in use
    assert own_columns(8, 64, waiting=False) == 8 * 64
    assert own_columns(8, 1, waiting=True) == 8 * 64


def test_optimizers_keep_their_own_state():
    import bitsandbytes as bnb

    shapes = ((64, 128), (128, 64))  # 16384 numbers
    adam = optimizer_bytes(torch.optim.AdamW, shapes, "cuda")
    assert adam.state == 2 * 4 * 16384 + 2 * 4  # two moments, and a step each
    assert adam.scratch == 4 * 16384  # the root of the second moment of all weights at once
    # 4 of each, which two of each tell
    assert optimizer_bytes(torch.optim.AdamW, shapes * 4, "cuda").state == 4 * adam.state
    assert optimizer_bytes(torch.optim.AdamW, shapes * 4, "cuda").scratch == 4 * adam.scratch
    plain = optimizer_bytes(lambda weights: torch.optim.SGD(weights, lr=1.0), shapes, "cpu")
    assert (plain.state, plain.scratch) == (0, 0)
    eight = optimizer_bytes(bnb.optim.AdamW8bit, shapes, "cuda")
    # two bytes each, for 256 of them one float32 each, and two tables of 256
    assert eight.state == 2 * 16384 + 2 * 4 * 16384 // 256 + 2 * 4 * 256
    assert optimizer_bytes(bnb.optim.PagedAdamW8bit, shapes, "cuda").state == 0

    class Stranger:
        param_groups = ()

        def __init__(self, weights):
            pass

        def step(self):
            raise TypeError("no such thing")

    guessed = optimizer_bytes(Stranger, shapes, "cuda")
    assert (guessed.state, guessed.guessed) == (2 * 4 * 16384, True)


@pytest.mark.parametrize(
    ("name", "billions"), [("0.5B", 0.494), ("1.5B", 1.544), ("3B", 3.086), ("7B", 7.616)]
)
def test_known_shapes_have_the_published_number_of_parameters(name, billions):
    """The model cards: 0.49, 1.54, 3.09 and 7.61 billion."""
    build = Build(shape_of(f"Qwen/Qwen2.5-{name}-Instruct"), "cuda", False, None, False, False)
    count = sum(torch.Size(shape).numel() for shape in weigh(build).trained)
    assert count / 1e9 == pytest.approx(billions, abs=5e-4)
    assert f"Qwen/Qwen2.5-{name}" in KNOWN


def arguments(tmp_path, *more):
    return [
        "--config", str(ROOT / "configs" / "quickstart.yaml"), "--model.base", str(BASE), "--data.path",
        str(ROOT / "data" / "quickstart" / "train.jsonl"), "--data.val_path",
        str(ROOT / "data" / "quickstart" / "heldout.jsonl"), "--trainer.logger", "false",
        "--trainer.enable_progress_bar", "false", "--checkpoint.dirpath", str(tmp_path / "run"), *more,
    ]  # fmt: skip


def test_the_plan_of_a_run_is_within_ten_percent_of_its_measured_peak(tmp_path):
    """One update through `fit`. Prompts have up to 42 tokens, steps up to 21, four groups of 8 make 840."""
    from srl.cli.plan import job_from

    given = arguments(
        tmp_path, "--trainer.limit_val_batches", "0", "--trainer.max_steps", "1",
        "--data.limits.max_prompt_tokens", "42", "--model.update.tokens_per_micro_batch", "840",
        "--model.rows_in_flight", "64", "--curriculum.phases", PHASES,
    )  # fmt: skip
    plan = make_plan(job_from(given, "cpu"))
    assert plan.highest.name == "srl: update"
    with LiveBytes() as live:
        assert main(["fit", *given]) == 0
    assert plan.peak == pytest.approx(live.peak, rel=0.1)


def test_the_command_says_what_to_change_and_what_fits(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    base = ["plan", "--config", "configs/quickstart.yaml", "--curriculum.phases", PHASES, "--json"]
    base += ["--trainer.limit_val_batches", "0"]
    assert main([*base, "--gpu_gib", "24"]) == 0
    fits = json.loads(capsys.readouterr().out)
    assert fits["fits"]
    assert fits["changes"] == []
    # 16 prompts x 8 rollouts; 16 prompts of 128 with 8 x 32 tokens each, in whole thousands
    assert fits["largest"] == {"model.rows_in_flight": 128, "model.update.tokens_per_micro_batch": 6 * 1024}
    assert fits["room"] == pytest.approx((24 - 1.05) * GIB / 1.05, abs=2)
    assert fits["peak"] == max(moment["peak"] for moment in fits["moments"])
    assert main([*base, "--gpu_gib", "1.08"]) == 0  # room for 29 MiB
    tight = json.loads(capsys.readouterr().out)
    assert not tight["fits"]
    assert tight["peak"] == fits["peak"]  # the plan does not know the card
    assert tight["changes"]
    assert tight["changes"][-1]["peak"] <= tight["room"]


def test_changes_make_it_fit_in_the_order_of_what_they_cost(folder):
    from srl.memory_plan.advice import changes
    from srl.memory_plan.job import Job, Stage

    shape = shape_of(str(folder))
    shape.num_hidden_layers = 3  # one dry run
    build = Build(shape, "cuda", True, LoraSettings(16, 32), False, True)
    stage = Stage("rlvr", (Call(64, 8, 128, 128),), 128, 128, groups=64, rollouts=8)
    held_out = Stage("validation", (Call(64, 1, 128, 128),), 128, 128)
    job = Job(build, (stage, held_out), 64, 8192, False, True, False, torch.optim.AdamW)
    plan = make_plan(job)
    memory = Memory("cuda", plan.peak // 2, 0, 0.0)
    found = changes(plan, memory)
    assert found[0].key == "model.gradient_checkpointing"
    assert found[-1].peak <= memory.room
    assert [one.peak for one in found] == sorted((one.peak for one in found), reverse=True)
    assert len({one.key for one in found}) == len(found)


def test_a_number_is_halved_as_often_as_it_helps_and_told_once(folder):
    """Nothing is enough for a byte. 8 held-out prompts at once, 4, 2, 1; at the end a smaller base."""
    from srl.memory_plan.advice import changes
    from srl.memory_plan.job import Job, Stage

    shape = shape_of(str(folder))
    shape.num_hidden_layers = 3  # one dry run
    build = Build(shape, "cpu", False, LoraSettings(16, 32), False, False)
    held_out = Stage("validation", (Call(8, 1, 128, 128),), 128, 128)
    job = Job(build, (held_out,), 64, 8192, False, True, False, torch.optim.AdamW)
    plan = make_plan(job)
    found = {one.key: one for one in changes(plan, Memory("cpu", 1, 0, 0.0))}
    assert found["data.validation.batch_size"].value == "1"
    assert "model.rows_in_flight" not in found  # one row is left
    assert list(found)[-1] == "model.base"
    assert found["model.base"].value.startswith("a smaller model, or ")
    assert found["model.base"].peak < plan.peak


@pytest.mark.parametrize(("room", "asked"), [(9, [8]), (8, [8]), (5, [8, 4, 6, 5])])
def test_where_there_is_plenty_the_most_is_all_that_is_asked(room, asked):
    """Each question is a dry run."""
    from srl.memory_plan.advice import _largest

    seen = []
    assert _largest(lambda n: not seen.append(n) and n <= room, 8) == min(room, 8)
    assert seen == asked


def test_fit_warns_of_what_does_not_fit_and_refuses_it_when_asked(tmp_path, monkeypatch, capsys):
    """With 30 MiB of memory, of which the quick start wants more."""
    from srl.memory_plan import memory

    small = Memory("cpu", 30 * 2**20, 0, 0.05)
    monkeypatch.setattr(memory, "here", lambda device: small)
    given = arguments(tmp_path, "--trainer.limit_val_batches", "0", "--curriculum.phases", PHASES)
    assert main(["fit", *given, "--plan.check", "refuse"]) == 2
    assert "by its plan this run does not fit. Set model." in capsys.readouterr().err
    config = instantiated(given)
    check_memory(config, PlanSettings(), "cpu")  # a calculation forbids nothing
    said = capsys.readouterr().err
    assert "by its plan this run does not fit. It begins all the same; to make it fit set model." in said
    check_memory(config, PlanSettings("off"), "cpu")
    assert not capsys.readouterr().err

    def unplanned(job):
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(plan_module, "make_plan", unplanned)
    check_memory(config, PlanSettings("refuse"), "cpu")  # a model that cannot be planned is not refused
    assert "no plan could be made (RuntimeError: no such kernel)" in capsys.readouterr().err


def test_the_plan_of_what_nobody_holds_takes_no_memory_itself(tmp_path, monkeypatch, capsys):
    """A response of 10^9 tokens, a micro-batch of 10^9, a base of 10^6 layers: one line, at once."""
    monkeypatch.chdir(ROOT)
    plan_it = ["plan", "--config", "configs/quickstart.yaml", "--gpu_gib", "24"]
    long = ["--data.limits.step_tokens", "1000000000"]
    wide = ["--model.update.tokens_per_micro_batch", "1000000000", "--curriculum.batch_groups", "1000000"]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for more, size in ((long, 1_000_000_128), (wide, 384_000_000)):  # 10^6 groups of 128 + 8 x 32 tokens
        assert main([*plan_it, *more, "--curriculum.phases", "[{name: srl, mix: {srl: 1.0}}]"]) == 2
        (said,) = capsys.readouterr().err.splitlines()
        assert f"srl: micro-batches of {size} tokens" in said
        assert "too large to be planned (262144 tokens" in said
    config = instantiated(arguments(tmp_path, *long))
    capsys.readouterr()
    check_memory(config, PlanSettings(), "cpu")
    assert "memory: srl: micro-batches of 1000000128 tokens" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="too large to be planned"):
        check_memory(config, PlanSettings("refuse"), "cpu")
    job = job_of(config, "cpu")
    deep = copy.deepcopy(job.build.config)
    deep.num_hidden_layers = 10**6
    with pytest.raises(ConfigError, match=r"model\.base has 1000000 layers: a plan can be made of 1024"):
        make_plan(replace(job, build=replace(job.build, config=deep)))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**19  # KiB: half a GiB


def test_fit_says_nothing_where_there_is_plenty(tmp_path, capsys, monkeypatch):
    """On the CPU not even the plan is made."""
    config = instantiated(arguments(tmp_path))
    capsys.readouterr()
    monkeypatch.setattr(plan_module, "make_plan", None)
    check_memory(config, PlanSettings(), "cpu")
    assert not capsys.readouterr().err


def test_every_config_for_a_gpu_begins_with_its_plan_and_fits():
    """As `python docs/make_gpu.py` writes it, into the table of docs/gpu.md, too."""
    sys.path.insert(0, str(ROOT / "docs"))
    import make_gpu

    plans = make_gpu.plans()
    assert len(plans) == 6
    for path, plan in plans.items():
        assert path.read_text().splitlines()[2] == make_gpu.line(path, plan)
        assert card(make_gpu.card_of(path)).fits(plan)
    assert make_gpu.table(plans) in (ROOT / "docs" / "gpu.md").read_text()
    goal = plans[ROOT / "configs" / "gpu" / "24gb_qwen2.5_7b.yaml"]
    assert goal.peak - goal.always["keys and values of recorded steps"] < 16 * GIB


def test_a_card_keeps_its_context_and_slack_for_itself():
    # 24 GiB less 0.7 of context and 0.35 that torch does not see, over 1.05
    assert card(24).room == pytest.approx(22.95 / 1.05 * GIB, rel=1e-9)


def test_a_4bit_base_without_an_adapter_is_refused(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    command = ["plan", "--config", "configs/quickstart.yaml", "--gpu_gib", "24", "--model.lora", "null"]
    assert main(command) == 2
    assert "model.quantization: none" in capsys.readouterr().err
    assert main(["plan", "--config", "configs/quickstart.yaml", "--gpu_gib", "0.5"]) == 2
    assert "--gpu_gib 0.5" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"no such folder"):
        shape_of("/nowhere/at/all")
    assert replace(card(24), slack=0.0).room > card(24).room


def test_a_phase_is_planned_with_the_teacher_of_any_of_its_objectives_and_with_its_mean(folder):
    phases = [Phase(name, dict.fromkeys(mix, 1.0)) for name, mix in PLANNED.items()]
    config = SimpleNamespace(
        data=SimpleNamespace(limits=ResponseLimits()), reward=SimpleNamespace(parts=[]),
        rollout=SimpleNamespace(num_generations=4, engine="auto", sampling=Sampling(), own_thinking=0.0),
        curriculum=SimpleNamespace(schedule=Schedule(phases), draw_size=lambda _: 4, batch_groups=4),
        trainer=SimpleNamespace(max_steps=3),
    )  # fmt: skip
    assert [stage.teaching for stage in job_module._phases(config, 4096)] == ["none", "size", "target"]
    weights = weigh(build_of(folder))
    always = plan_module._always(build_of(folder), weights, OptimizerBytes(0, 0), averaged=True)
    assert always["running mean of the adapter"] == weights.adapter > 0
