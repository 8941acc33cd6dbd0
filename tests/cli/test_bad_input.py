"""What goes wrong ends in one clear line that names the place, what was found and what to write instead."""

import json
import shutil

import pytest
import torch
from conftest import expert_rows, write_rows

# -- the config ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (
            "dynamic_sampling:\n  max_draws: 3\n  epsilom: 1\n",
            3,
            "no key dynamic_sampling.epsilom. Did you mean dynamic_sampling.epsilon",
        ),
        ("model:\n  lorra: null\n", 2, "there is no key model.lorra. Did you mean model.lora"),
        ("samplin:\n  epsilon: 1\n", 2, "no key samplin.epsilon. Did you mean dynamic_sampling.epsilon"),
        ("trainer: {max_step: 3}\n", 1, "no key trainer.max_step. Did you mean trainer.max_steps"),
        ("trainer:\n  max_epochs: many\n", 2, "trainer.max_epochs is many; write int"),
        (
            "model:\n  loss:\n    weighting: tokens\n",
            3,
            "model.loss.weighting is tokens; write ['sequence', ",
        ),
        (
            "reward:\n  parts:\n    - {kind: judge, judge: {vote: 2}}\n",
            3,
            "reward.parts.judge has no key vote. Did you mean votes?",
        ),
        ("model:\n  optimizer:\n    class_path: torch.optim.AdamW\n    init_args: {lrr: 1}\n", 4, "lrr"),
        ("trainer: [\n  max_steps: 3\n", 3, "not YAML"),
    ],
)
def test_a_config_names_file_line_and_key(refused, tmp_path, text, line, message):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    error = refused("--config", str(path))
    assert error.startswith(f"srl: error: {path}:{line}: ")
    assert message in error


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--foo 1", "there is no key foo; see python -m srl fit --help"),
        ("--dynamic_sampling.epsilom 1", "dynamic_sampling.epsilom. Did you mean dynamic_sampling.epsilon"),
        ("--rollout.num_generations many", "rollout.num_generations is many; write int"),
        ("--model.quantization int8", "model.quantization is int8; write ['nf4', 'none', 'auto']"),
        ("--curriculum.phases srl", "curriculum.phases is srl; write list"),
        ("--config nowhere.yaml", "/nowhere.yaml: no such file; check the path"),
        ("--ckpt_path nowhere.ckpt", "--ckpt_path nowhere.ckpt: there is no file"),
        ("--rollout.num_generations 1", "rollout.num_generations is 1: a group of fewer than 2"),
        ("--rollout.temperature 0", "rollout.temperature is 0.0: training needs a positive temperature"),
        ("--rollout.top_p 0", "top_p is 0.0: it must lie in (0, 1]"),
        ("--dynamic_sampling.epsilon -1", "epsilon -1.0 must be at least 0"),
        ("--model.update.mini_batches 0", "model.update.mini_batches is 0: it must be above 0"),
        ('--reward.parts [{"kind":"judge","judge":{"votes":0}}]', "judge.votes is 0: it must be at least 1"),
        ('--reward.parts [{"kind":"judge","judgee":{"votes":1}}]', "no key judgee. Did you mean judge?"),
        ("--model.rows_in_flight 0", "model.rows_in_flight is 0: it must be at least 1"),
        ("--model.validation.temperature 0", "model.validation.temperature is 0.0: it must be above 0"),
        ("--model.optimizer.lr -1", "model.optimizer: Invalid learning rate: -1.0"),
        ("--model.loss.kl 0.1 --model.lora null", "model.loss.kl needs the adapter"),
        ("--model.quantization nf4 --model.lora null", "a 4-bit base cannot be trained"),
        ("--trainer.precision bf16-true", "trainer.precision is bf16-true"),
        ("--trainer.accelerator nothing", "invalid accelerator name"),
        ("--trainer.gradient_clip_val 1", "trainer: Automatic gradient clipping is not supported"),
        ("--seed_everything -1", "seed_everything is -1; write a whole number from 0 to 4294967295"),
        ("--ckpt_path=", "--ckpt_path is empty; write last, best or a file, or leave it out"),
        ("--model.base /nowhere/model", "model '/nowhere/model': no such folder or file"),
        ("--data.path /nowhere/rows.jsonl", "/nowhere/rows.jsonl: no such file"),
    ],
)  # fmt: skip
def test_an_argument_is_refused(refused, flags, message):
    assert message in refused(*flags.split())


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ("[{name: a, mix: {slr: 1.0}}]", "(a): no objective called slr; there are sft, sft_outline, "),
        ("[{name: a, mix: {srl: 1.0}}, {name: b, mix: {srl: 1.0}}]", "(a): it never ends, yet"),
        ("[{name: a, mix: {srl: 1.0}, until: {updates: 2}}]", "(a): the last phase has no `until`"),
        ("[{name: a, mix: {srl: 0.0}}]", "give shares of at least 0, not all 0"),
        ("[]", "curriculum.phases is empty"),
        ("[{name: a, mix: {srl: 1.0}, learning_rate: 1.0}]", "has no key learning_rate; there are name, mix"),
        ("[{name: a, mix: {srl: 1.0}, until: {step: 2}}]", "has no key step"),
        ("[{name: a, mix: {srl: 1.0}, until: {metric: reward, above: 1}}]", "until.metric is reward; the"),
        ("[{name: a, mix: {srl: .nan}}]", "give shares of at least 0, not all 0"),
        ("[{name: a, per_problem: {outcome: holistic}}]", "per_problem.outcome is holistic; use rlvr"),
        ("[{name: a, per_problem: {steps: rlvr, outcome: srl}}]", "per_problem.steps is rlvr; use sft_step"),
    ],
)  # fmt: skip
def test_a_curriculum_is_refused(refused, phases, message):
    assert message in refused("--curriculum.phases", phases)


def test_a_torn_checkpoint_is_refused(refused, tmp_path):
    torn = tmp_path / "torn.ckpt"
    torn.write_bytes(b"PK\x03\x04 and no more")
    assert f"{torn} is not a checkpoint, or a torn one" in refused("--ckpt_path", str(torn))


@pytest.mark.parametrize("held", [{"weight": torch.zeros(2)}, torch.zeros(2), [1]])
def test_a_file_of_tensors_is_no_checkpoint(refused, tmp_path, held):
    torch.save(held, tmp_path / "tensors.ckpt")
    line = refused("--ckpt_path", str(tmp_path / "tensors.ckpt"))
    assert f"{tmp_path}/tensors.ckpt: whole, but not a checkpoint of this program; give another file" in line


# -- the model ----------------------------------------------------------------------------------------------


def test_a_hub_model_without_network_is_one_line_with_its_name(refused, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(
        huggingface_hub.constants, "HF_HUB_OFFLINE", True
    )  # read from HF_HUB_OFFLINE at import
    line = refused("--model.base", "nobody/nothing")
    assert "model 'nobody/nothing': not in the local cache, and the hub is out of reach" in line


def test_a_tokenizer_without_a_pad_token_pads_with_its_end_token(model_folder, trained, tmp_path):
    folder = shutil.copytree(model_folder, tmp_path / "unpadded")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    del config["pad_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    status, err, _ = trained("--model.base", str(folder), "--trainer.max_steps", "1")
    assert status == 0
    assert "no pad token, padding with '<eos>'" in err


# -- the data -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty; write one JSON object a line"),
        ('{"problem": "1+1?", "steps": ["a", "b"], "answer": "2"}\n{"problem"\n', ":2: not JSON ("),
        ('{"problem": "1+1?", "answer": "2"}\n', ':1: no field "solution" (the row has: problem, answer)'),
        ('{"steps": ["a", "b"], "answer": "2"}\n', ':1: no field "problem" (the row has: steps, answer)'),
        ("[1]\n", ":1: the list [1] is not an object"),
        (
            '{"problem": "1+1?", "steps": ["a"], "answer": "2"}\n',
            ": none of the 1 rows gave 2 steps or more; the first: ",
        ),
    ],
)
def test_a_data_file_names_its_line(refused, tmp_path, text, message):
    path = tmp_path / "rows.jsonl"
    path.write_text(text)
    line = refused("--data.path", str(path))
    assert line.startswith(f"srl: error: {path}:")
    assert message in line


def test_an_objective_without_data_is_refused(refused, tmp_path):
    rows = [{**row, "answer": None} for row in expert_rows(24)]
    phases = "[{name: a, mix: {rlvr: 1.0}}]"
    line = refused(
        "--data.path", str(write_rows(tmp_path / "rows.jsonl", rows)), "--curriculum.phases", phases
    )
    assert "objective rlvr has no examples" in line
    assert "20 x no answer" in line  # 24 - 4 held out
