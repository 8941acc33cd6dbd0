"""tokens_per_micro_batch: auto. An update that ran out of memory is redone whole, in smaller parts."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import fit
from make import GROUPS

from srl.errors import ConfigError, TrainingStopped
from srl.out_of_memory import CPU_TOKENS, TokenBudget
from srl.packing.micro_batches import micro_batches
from srl.update.loss import LossSettings, build_rows
from srl.update.update import Update, UpdateSettings

AUTO = ("--model.update.tokens_per_micro_batch", "auto")
CPU = torch.device("cpu")


@pytest.fixture
def memory(monkeypatch):
    """Raise torch.OutOfMemoryError in training passes of more padded tokens than a limit; count them."""
    from modules.policy import PolicyModule

    configure = PolicyModule.configure_model
    raised = []

    def limit(tokens, where="forward", updates=10**9):
        def failing(module, size):
            if torch.is_grad_enabled() and size > tokens and module.global_step < updates:
                raised.append(size)
                raise torch.OutOfMemoryError(f"out of memory with {size} tokens")

        def configured(module):
            configure(module)
            decoder = module.engine.decoder.backbone
            if where == "forward":
                decoder.register_forward_pre_hook(
                    lambda _, args, kwargs: failing(module, kwargs["input_ids"].numel()), with_kwargs=True
                )
                return

            def watch(_, args, output):
                """The gradient reaches the first layer when the second has added its own already."""
                hidden = output if isinstance(output, torch.Tensor) else output[0]
                if not hidden.requires_grad:
                    return

                def reached(grad):
                    last = [p for p in decoder.layers[1].parameters() if p.requires_grad]
                    assert any(p.grad is not None for p in last)
                    with torch.enable_grad():
                        failing(module, grad.shape[0] * grad.shape[1])

                hidden.register_hook(reached)

            decoder.layers[0].register_forward_hook(watch)

        monkeypatch.setattr(PolicyModule, "configure_model", configured)
        return raised

    return limit


def run(model_folder, expert_file, folder, *more):
    """One update on 3 groups of 4 rollouts, as the checkpoint that it left."""
    quiet = ["--trainer.logger", "false", "--trainer.val_check_interval", "100"]
    assert fit(model_folder, expert_file, folder, "--trainer.max_steps", "1", *quiet, *more) == 0
    return torch.load(folder / "last.ckpt", weights_only=True)


def same(a, b):
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert any(value.abs().max() > 0 for name, value in a.items() if "lora_B" in name), "nothing was learnt"


@pytest.mark.parametrize("where", ["forward", "backward"])
@pytest.mark.parametrize("lora", ["{r: 4, alpha: 8}", "null"])
def test_an_update_out_of_memory_equals_one_with_the_budget_it_found(
    model_folder, expert_file, tmp_path, memory, where, lora, monkeypatch
):
    more = ["--model.lora", lora]
    with monkeypatch.context() as patch:
        raised = memory(60, where)
        found = run(model_folder, expert_file, tmp_path / "auto", *AUTO, *more)
        patch.undo()
    budget = found["srl"]["token_budget"]
    assert raised
    assert budget["failed"] == min(raised)
    assert budget["tokens"] == min(raised) // 2
    fixed = ("--model.update.tokens_per_micro_batch", str(budget["tokens"]))
    monkeypatch.undo()
    plain = run(model_folder, expert_file, tmp_path / "fixed", *fixed, *more)
    assert plain["srl"]["token_budget"] == {"tokens": None, "failed": None}
    if lora == "null":  # the whole model: its names hold no lora_B
        assert all(
            torch.equal(value, plain["state_dict"][name]) for name, value in found["state_dict"].items()
        )
    else:
        same(found["state_dict"], plain["state_dict"])


def test_a_later_micro_batch_that_fails_takes_the_gradients_of_the_earlier_ones_along(
    model_folder, expert_file, tmp_path, memory, monkeypatch
):
    """The third pass raises, whatever its size: two micro-batches have added their gradients by then."""
    loss, calls = Update.loss, []

    def failing(update, micro):
        calls.append(micro.tokens)
        if len(calls) == 3:
            assert any(p.grad is not None for p in update.decoder.model.parameters())
            raise torch.OutOfMemoryError("out of memory")
        return loss(update, micro)

    monkeypatch.setattr("srl.out_of_memory.CPU_TOKENS", 80)
    monkeypatch.setattr(Update, "loss", failing)
    found = run(model_folder, expert_file, tmp_path / "auto", *AUTO)
    monkeypatch.undo()
    budget = found["srl"]["token_budget"]
    assert budget == {"tokens": calls[2] // 2, "failed": calls[2]}
    fixed = ("--model.update.tokens_per_micro_batch", str(budget["tokens"]))
    same(found["state_dict"], run(model_folder, expert_file, tmp_path / "fixed", *fixed)["state_dict"])


def test_without_a_failure_auto_is_its_first_value(model_folder, expert_file, tmp_path):
    found = run(model_folder, expert_file, tmp_path / "auto", *AUTO)
    assert found["srl"]["token_budget"] == {"tokens": CPU_TOKENS, "failed": None}


def test_a_resumed_run_keeps_the_budget_it_found(model_folder, expert_file, tmp_path, memory, monkeypatch):
    memory(60, updates=1)  # later updates would fit whole: only the memory of the first keeps them split
    kept = [*AUTO, "--checkpoint.every_n_updates", "1"]
    whole = run(model_folder, expert_file, tmp_path / "whole", *kept, "--trainer.max_steps", "3")
    first = run(model_folder, expert_file, tmp_path / "first", *kept)
    last = str(tmp_path / "first" / "last.ckpt")
    more = ["--trainer.max_steps", "3", "--ckpt_path", last]
    again = run(model_folder, expert_file, tmp_path / "again", *kept, *more)
    assert first["srl"]["token_budget"] == {"tokens": 75, "failed": 150}
    assert first["srl"]["token_budget"] == again["srl"]["token_budget"] == whole["srl"]["token_budget"]
    same(whole["state_dict"], again["state_dict"])


def test_checkpoints_of_earlier_versions_still_load(model_folder, expert_file, tmp_path):
    old = run(model_folder, expert_file, tmp_path / "old", *AUTO)
    del old["srl"]["token_budget"]
    torch.save(old, tmp_path / "old.ckpt")
    more = ["--trainer.max_steps", "2", "--ckpt_path", str(tmp_path / "old.ckpt")]
    found = run(model_folder, expert_file, tmp_path / "new", *AUTO, *more)
    assert found["srl"]["token_budget"] == {"tokens": CPU_TOKENS, "failed": None}


def test_a_budget_of_the_users_is_never_replaced(refused, memory):
    raised = memory(60)
    message = refused("--model.update.tokens_per_micro_batch", "4000", "--trainer.max_steps", "1", status=1)
    assert len(raised) == 1, "it was tried again"
    assert "model.update.tokens_per_micro_batch is 4000" in message
    assert f"a micro-batch of {raised[0]} padded tokens does not fit" in message
    assert f"Set it to auto or to {raised[0] // 2}, or set model.gradient_checkpointing: true" in message


@pytest.mark.parametrize("budget", ["auto", "4000"])
def test_one_response_that_does_not_fit_ends_the_run_in_words(refused, memory, budget):
    memory(3)
    tokens = ("--model.update.tokens_per_micro_batch", budget, "--model.update.share_prompt", "false")
    if budget == "4000":
        tokens = (tokens[0], "1", *tokens[2:])
    message = refused(*tokens, "--trainer.max_steps", "1", status=1)
    assert "one prompt with its response" in message
    assert "data.limits.max_prompt_tokens" in message
    assert "model.gradient_checkpointing: true" in message


def test_other_errors_are_not_taken_for_memory(model_folder, expert_file, tmp_path, monkeypatch):
    def broken(update, micro):
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.setattr(Update, "loss", broken)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        run(model_folder, expert_file, tmp_path / "broken", *AUTO)


@pytest.mark.parametrize("value", ["0", "-5", "all"])
def test_a_value_that_is_no_budget_is_refused(refused, value):
    assert "tokens_per_micro_batch" in refused("--model.update.tokens_per_micro_batch", value)


def test_settings_take_auto_and_positive_numbers():
    assert UpdateSettings("auto").tokens_per_micro_batch == "auto"
    with pytest.raises(ConfigError, match="must be above 0"):
        UpdateSettings(0)


# -- the numbers alone -------------------------------------------------------------------------------


def budget_of(tokens, failed=None):
    budget = TokenBudget("auto")
    budget.load_state_dict({"tokens": tokens, "failed": failed})
    return budget


def test_a_failure_halves_what_failed():
    budget = budget_of(1000)
    assert budget.lower(900, alone=False, longest=100) == 450  # half of what failed, not of the budget
    assert budget.lower(300, alone=False, longest=100) == 150
    assert budget.state_dict() == {"tokens": 150, "failed": 300}
    assert budget.lower(800, alone=False, longest=100) == 75  # a row longer than the budget had its own batch
    assert budget.failed == 300
    with pytest.raises(TrainingStopped, match="one prompt with its response, 100 tokens"):
        budget.lower(100, alone=True, longest=100)


@pytest.mark.parametrize(
    ("tokens", "failed", "count", "used", "room", "expected"),
    [
        (1000, None, 4, 100, 10_000, 2000),  # a hundredth of the room: twice as many, at most
        (1000, None, 4, 5_000, 10_000, 1600),  # 1000 tokens take half; 0.8 of the room is 1.6 times that
        (1000, None, 4, 7_000, 10_000, 1000),  # 1142 would fit: not worth another split
        (1000, None, 4, 20_000, 10_000, 1000),  # over the share: it fitted, so it stays
        (1000, None, 1, 100, 10_000, 1000),  # the whole update was one micro-batch
        (1000, 2000, 4, 100, 10_000, 1500),  # half of the way to what failed
        (1500, 2000, 4, 100, 10_000, 1500),  # 1750 is not worth it: growth ends below what failed
    ],
)
def test_growth(tokens, failed, count, used, room, expected):
    budget = budget_of(tokens, failed)
    budget.grow(count, 1000, used, room)
    assert budget.tokens == expected


def test_on_the_cpu_nothing_grows_and_the_users_number_stays():
    budget = budget_of(10)
    budget.finish(CPU, 50, 10)
    assert budget.tokens == 10
    users = TokenBudget(64)
    users.load_state_dict({"tokens": 10, "failed": 20})
    assert users.begin(CPU) == 64
    with pytest.raises(ValueError, match="tokens and failed"):
        users.load_state_dict({"tokens": 10})


def test_a_micro_batch_knows_whether_it_can_be_split():
    rows = build_rows(GROUPS, LossSettings(kl=1.0))
    assert all(micro.alone for micro in micro_batches(rows, 1))
    for budget, share in [(10_000, True), (10_000, False), (30, True)]:
        batches = micro_batches(rows, budget, share)
        completions = [len(set(zip(m.advantages.tolist(), m.weights.tolist(), strict=True))) for m in batches]
        assert any(count > 1 for count in completions)
        assert all(not m.alone for m, count in zip(batches, completions, strict=True) if count > 1)
    (alone,) = micro_batches(rows[:1], 100)
    assert alone.alone
    assert alone.tokens == len(rows[0].prompt_ids) + len(rows[0].action_ids)


# -- memory that is really short ---------------------------------------------------------------------

LIMITED = """
import json, re, resource, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from conftest import tiny_model
from make import group
from srl.engine.decoder import Decoder
from srl.out_of_memory import TokenBudget
from srl.update.bad_numbers import BadUpdates
from srl.update.loss import LossSettings, build_rows
from srl.update.update import Update, UpdateSettings

model = tiny_model()
decoder, settings = Decoder(model), UpdateSettings(share_prompt=False)
groups = [group([5] * 20, [40] * 64, [float(i % 2) for i in range(64)], seed=s) for s in range(4)]
rows = build_rows(groups, LossSettings())  # 4 * (20 + 64 * 40) = 10,320 tokens


def gradient(budget):
    model.zero_grad()
    totals = Update(decoder, LossSettings(), settings, budget, BadUpdates(1)).gradient(rows, model.zero_grad)
    return torch.cat([p.grad.flatten() for p in model.parameters()]), totals["loss"]


gradient(TokenBudget(500))  # whatever torch and the allocator take once
budget = TokenBudget("auto")
budget.load_state_dict({"tokens": 40_000, "failed": None})
size = int(re.search(r"VmSize:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (size + int(sys.argv[1]), resource.RLIM_INFINITY))
found, loss = gradient(budget)
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
expected, same = gradient(TokenBudget(budget.tokens))
print(json.dumps({**budget.state_dict(), "equal": torch.equal(found, expected), "loss": loss == same,
                  "gradient": float(expected.abs().max())}))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="limits address space as Linux does")
def test_memory_that_is_really_short_on_the_cpu():
    """10,320 tokens of this model take more than 125 MB; the process may have 50 MB more than it holds."""
    root = Path(__file__).resolve().parents[2]
    code = f"import sys; sys.path[:0] = [{str(root)!r}, {str(root / 'tests')!r}]\n" + LIMITED
    command = [sys.executable, "-c", code, str(50 << 20)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    assert found["failed"] is not None
    assert found["tokens"] < found["failed"] <= 40_000
    assert found["equal"]
    assert found["loss"]
    assert found["gradient"] > 1e-4
