"""Hand-offs in real runs on the tiny model: by metric, plateau, annealed, per problem; reverse, adaptive."""

import json
from types import SimpleNamespace

import mlflow
import pytest
import torch
from conftest import fit, letter_rows, write_rows
from resumed import UNLOGGED, Keep, equal, what_counts

from callbacks.curriculum import Curriculum
from srl.curriculum.phases import Follow, Phase, Until

LEARN = "{name: copy, mix: {sft_step: 1.0}, lr: 0.03, batch_groups: 12, until: {updates: 12}}"
ARGUMENTS = [
    "--data.limits", "{step_tokens: 4, solution_tokens: 6, step_stop: [\"\\n\"], max_prompt_tokens: 64}",
    "--trainer.val_check_interval", "4", "--data.validation.problems", "6",
    "--model.validation.attempts", "4", "--dynamic_sampling.max_draws", "2",
    "--dynamic_sampling.on_silence", "count",
]  # fmt: skip


def run(model_folder, folder, phases, *more, command="fit"):
    data = write_rows(folder.parent / "letters.jsonl", letter_rows(30))
    return fit(model_folder, data, folder, "--curriculum.phases", phases, *ARGUMENTS, *more, command=command)


def logged(folder):
    """The newest MLflow run: its tags, and each metric's (step, value) pairs."""
    client = mlflow.MlflowClient(f"sqlite:///{folder.parent}/mlflow.db")
    found = client.search_runs([client.get_experiment_by_name("srl").experiment_id])[0]
    history = {
        name: [(m.step, m.value) for m in client.get_metric_history(found.info.run_id, name)]
        for name in found.data.metrics
    }
    return found.data.tags, history


def test_a_metric_hands_off_and_the_run_says_why(model_folder, tmp_path):
    phases = """[
     {name: copy, mix: {sft_step: 1.0}, lr: 0.03, batch_groups: 12,
      until: {metric: val/steps/exact, above: 0.4, updates: 40}},
     {name: srl, mix: {srl: 1.0}}]"""
    assert run(model_folder, tmp_path / "run", phases, "--trainer.max_steps", "24") == 0
    tags, history = logged(tmp_path / "run")
    exact = dict(history["val/steps/exact"])
    passed = min(step for step, value in exact.items() if value > 0.4)
    assert 0 < passed < 24, "the test needs a run that learns, in time"
    reason = f"copy -> srl at update {passed}: val/steps/exact {exact[passed]:.4g} is above 0.4"
    assert tags["hand_off/srl"] == reason
    assert history["hand_off/srl/val/steps/exact"] == [(passed, exact[passed])]
    assert history["hand_off/srl/updates"] == [(passed, float(passed))]
    assert history["curriculum/hand_off"] == [(passed, 1.0)]
    phase = dict(history["phase"])
    assert (phase[passed], phase[passed + 1]) == (0.0, 1.0)


def test_what_holds_before_the_first_update_hands_off_at_once(model_folder, tmp_path):
    phases = """[{name: copy, mix: {sft_step: 1.0}, until: {metric: val/steps/exact, below: 2.0}},
                 {name: srl, mix: {srl: 1.0}}]"""
    assert run(model_folder, tmp_path / "run", phases) == 0
    tags, history = logged(tmp_path / "run")
    assert tags["hand_off/srl"].startswith("copy -> srl at update 0: val/steps/exact ")
    assert {value for _, value in history["phase"]} == {1.0}


def test_a_phase_that_now_ends_where_its_checkpoint_is_has_no_update_more(model_folder, tmp_path):
    """Gone on with by a config in which two updates of it are enough."""
    more = ["--trainer.val_check_interval", "9", "--model.validation.attempts", "0", *UNLOGGED]
    copy = "{name: copy, mix: {sft_step: 1.0}"
    assert run(model_folder, tmp_path / "run", f"[{copy}}}]", *more) == 0
    phases = f"[{copy}, until: {{updates: 2}}}}, {{name: srl, mix: {{srl: 1.0}}}}]"
    more += ["--trainer.max_steps", "3", "--ckpt_path", "last"]
    assert run(model_folder, tmp_path / "run", phases, *more) == 0
    state = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    (curriculum,) = [one for name, one in state["callbacks"].items() if "Curriculum" in name]
    assert (state["global_step"], curriculum["phase"], curriculum["updates"]) == (3, "srl", 1)


def test_a_plateau_hands_off(model_folder, tmp_path):
    """With a rate of almost nothing the reward stands still: the best at 0, then 4 and 8 without a gain."""
    phases = """[{name: srl, mix: {srl: 1.0}, lr: 1.0e-12, until: {metric: val/steps/reward, plateau: 2}},
                 {name: rlvr, mix: {rlvr: 1.0}, lr: 1.0e-12}]"""
    assert run(model_folder, tmp_path / "run", phases, "--trainer.max_steps", "10") == 0
    tags, _ = logged(tmp_path / "run")
    assert tags["hand_off/rlvr"].startswith("srl -> rlvr at update 8: val/steps/reward ")
    assert "2 measurements in a row without a gain of more than 0 over" in tags["hand_off/rlvr"]


def test_a_metric_of_the_updates_hands_off(model_folder, tmp_path):
    phases = """[{name: copy, mix: {sft_step: 1.0}, lr: 0.03, until: {metric: train/nll, below: 4.0}},
                 {name: srl, mix: {srl: 1.0}}]"""
    assert run(model_folder, tmp_path / "run", phases, "--trainer.max_steps", "12") == 0
    tags, history = logged(tmp_path / "run")
    passed = min(step for step, value in history["train/nll"] if value < 4.0)
    assert f"at update {passed}: train/nll" in tags["hand_off/srl"]


def test_a_run_that_max_epochs_ends_validates_and_saves_its_last_update(model_folder, tmp_path):
    """3 epochs of 2 draws, each an update; 6 is no multiple of the interval 4."""
    phases = "[{name: copy, mix: {sft_step: 1.0}, lr: 0.03}]"
    more = ["--trainer.max_steps", "99", "--trainer.max_epochs", "3", "--data.draws_per_epoch", "2"]
    assert run(model_folder, tmp_path / "run", phases, *more) == 0
    _, history = logged(tmp_path / "run")
    assert [step for step, _ in history["val/steps/reward"]] == [0, 4, 6]
    assert torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["global_step"] == 6


def test_annealing_shifts_the_draws(model_folder, tmp_path):
    phases = """[{name: srl, mix: {srl: 1.0}, until: {updates: 1}},
                 {name: blend, mix: {sft_step: 1.0}, anneal: 4, batch_groups: 4}]"""
    assert run(model_folder, tmp_path / "run", phases, "--trainer.max_steps", "7") == 0
    shares = dict(logged(tmp_path / "run")[1]["curriculum/share_srl"])
    assert shares == {2: 1.0, 3: 0.75, 4: 0.5, 5: 0.25}  # then 0: no longer logged


def test_a_mix_follows_a_figure(model_folder, tmp_path):
    phases = """[{name: srl, mix: {srl: 1.0}, until: {updates: 1}},
                 {name: blend, mix: {sft_step: 1.0}, batch_groups: 4,
                  anneal: {metric: train/format, low: -1, high: 3}}]"""
    assert run(model_folder, tmp_path / "run", phases, "--trainer.max_steps", "5") == 0
    metrics = logged(tmp_path / "run")[1]
    shares, figures = (dict(metrics[name]) for name in ("curriculum/share_srl", "train/format"))
    assert shares[2] == 1.0, "until the figure is measured in this phase"
    for step in (3, 4, 5):  # srl keeps what is left of the way from -1 to 3
        assert shares[step] == pytest.approx((3 - figures[step - 1]) / 4)


def test_a_phase_that_follows_an_earlier_validation_begins_with_it_in_a_resumed_run_too():
    blend = Phase("blend", {"sft_step": 1.0}, anneal=Follow("val/steps/format", low=-1, high=3))
    phases = [Phase("srl", {"srl": 1.0}, Until(3)), blend]
    mixes = []
    stream = SimpleNamespace(set_mix=lambda shares, size, level: mixes.append(shares))
    trainer = SimpleNamespace(
        callback_metrics={"val/steps/format": 1.0, "val/steps/reward": 0.5}, sanity_checking=False,
        state=SimpleNamespace(fn="fit"), datamodule=SimpleNamespace(stream=stream), loggers=[], global_step=3,
    )  # fmt: skip
    whole, again = Curriculum(phases), Curriculum(phases)
    whole.on_validation_end(trainer, SimpleNamespace(unmeasured=set()))
    again.load_state_dict(whole.state_dict())  # of a checkpoint before the hand-off
    for one in (whole, again):
        one.schedule.advance(3)
        one.on_train_start(trainer, None)
    assert mixes == [{"srl": 0.5, "sft_step": 0.5}] * 2


OUTLINES = LEARN.replace("sft_step", "sft_outline")  # so that some whole solutions come out right
PER_PROBLEM = f"[{OUTLINES}, {{name: each, per_problem: {{probe: 0.5}}, batch_groups: 6}}]"


def test_each_problem_hands_off_by_itself_and_resumes_exactly(model_folder, tmp_path, monkeypatch):
    more = [
        "--trainer.max_steps",
        "20",
        "--trainer.val_check_interval",
        "20",
        "--checkpoint.every_n_updates",
        "1",
        "--curriculum.draw_prompts",
        "8",
    ]
    with monkeypatch.context() as patch:
        keep = Keep(patch, tmp_path)
        assert run(model_folder, tmp_path / "whole", PER_PROBLEM, *more) == 0
    _, history = logged(tmp_path / "whole")
    sizes = [[v for _, v in history[f"curriculum/pool_{name}"]] for name in ("steps", "outcome")]
    assert {sum(pair) for pair in zip(*sizes, strict=True)} == {24.0}, "every training problem is in one pool"
    assert max(sizes[1]) > min(sizes[1]), "problems moved"
    expected = what_counts(tmp_path / "whole" / "last.ckpt")
    at = {step: copy for copy, step in keep.at.items()}
    for step in (13, 17):
        folder = tmp_path / f"again{step}"
        assert run(model_folder, folder, PER_PROBLEM, *more, "--ckpt_path", str(at[step]), *UNLOGGED) == 0
        equal(expected, what_counts(folder / "last.ckpt"))


def test_a_hand_off_decided_by_a_validation_that_was_cut_off_comes_where_it_would_have(
    model_folder, tmp_path, monkeypatch
):
    """`last` is written before the validation of update 4: a run killed during it validates first."""
    phases = """[{name: srl, mix: {srl: 1.0}, until: {metric: val/steps/reward, below: 2.0, at_least: 1}},
                 {name: rlvr, mix: {rlvr: 1.0}}]"""
    more = ["--trainer.max_steps", "6", *UNLOGGED]
    with monkeypatch.context() as patch:
        keep = Keep(patch, tmp_path)
        assert run(model_folder, tmp_path / "whole", phases, *more) == 0
    states = {copy: torch.load(copy, weights_only=True) for copy in keep.copies if keep.at[copy] == 4}
    curriculum = {
        c: next(v for k, v in s["callbacks"].items() if "Curriculum" in k) for c, s in states.items()
    }
    (before,) = [c for c, s in states.items() if s["global_step"] == 4 and curriculum[c]["phase"] == "srl"]
    assert run(model_folder, tmp_path / "again", phases, *more, "--ckpt_path", str(before)) == 0
    equal(what_counts(tmp_path / "whole" / "last.ckpt"), what_counts(tmp_path / "again" / "last.ckpt"))


@pytest.mark.parametrize(
    ("mix", "more", "metric"),
    [
        (
            "reverse",
            ["--curriculum.reverse", "{window: 2, pass_rate: 0.25}"],
            "curriculum/reverse_steps_left",
        ),
        (
            "prefix",
            ["--curriculum.prefix", "{rate: 1.0, half_without: true}"],
            "curriculum/prefix_given",
        ),
        ("reverse", ["--curriculum.reverse", "{mode: mixed}"], "train/reward"),
        ("srl", ["--curriculum.adaptive", "{explore: 0.5}"], "curriculum/srl_seen"),
        ("holistic", [], "train/reward"),
        ("rlsd", [], "train/reward"),
        ("sdpo", ["--model.teacher", "{weights: ema, divergence: jsd, top_k: 5}"], "train/taught"),
    ],
)
def test_other_objectives_and_draws_run_and_resume(model_folder, tmp_path, monkeypatch, mix, more, metric):
    learn = LEARN if mix == "srl" else LEARN.replace("sft_step", "sft_outline")
    phases = f"[{learn}, {{name: then, mix: {{{mix}: 1.0}}, batch_groups: 4}}]"
    more = [*more, "--trainer.max_steps", "18", "--checkpoint.every_n_updates", "2"]
    more += ["--trainer.val_check_interval", "18"]
    with monkeypatch.context() as patch:
        keep = Keep(patch, tmp_path)
        assert run(model_folder, tmp_path / "whole", phases, *more) == 0
    values = [value for _, value in logged(tmp_path / "whole")[1][metric]]
    assert len(values) == 6
    if mix == "rlsd":
        metrics = logged(tmp_path / "whole")[1]
        assert len(metrics[f"gap/{mix}/knowing"]) == len(metrics[f"gap/{mix}/without"]) == 1
        assert metrics["train/teacher_gap"]
    if mix == "sdpo":
        metrics = logged(tmp_path / "whole")[1]
        assert any(value > 0 for value in values), "some responses have a right one beside them"
        assert not any(name.startswith("gap/") for name in metrics), "nobody knows more before a rollout"
        assert any(value > 0 for _, value in metrics["train/divergence"])
    if metric == "curriculum/reverse_steps_left":
        assert (values[-1], values) == (2.0, sorted(values)), "the start slid back"
    after_14 = next(c for c in keep.copies if keep.at[c] == 14)
    more += ["--ckpt_path", str(after_14), *UNLOGGED]
    assert run(model_folder, tmp_path / "again", phases, *more) == 0
    equal(what_counts(tmp_path / "whole" / "last.ckpt"), what_counts(tmp_path / "again" / "last.ckpt"))


def test_whole_solutions_are_imitated_with_and_without_reasoning(model_folder, tmp_path):
    rows = letter_rows(30)
    for row in rows[:20]:
        row["reasoning"] = "hm"
    data = write_rows(tmp_path / "reasoned.jsonl", rows)
    phases = "[{name: sft, mix: {sft: 0.5, sft_outline: 0.5}}]"
    more = [*ARGUMENTS, "--data.think", "true", "--data.limits.solution_tokens", "32"]
    assert fit(model_folder, data, tmp_path / "run", "--curriculum.phases", phases, *more) == 0
    metrics = logged(tmp_path / "run")[1]
    with_reasoning = metrics["data/examples/sft"][0][1]
    held_out_of_them = 20 - with_reasoning
    assert 0 <= held_out_of_them <= 6, "20 have reasoning; 6 of the 30 are held out"
    assert metrics["data/examples/sft_outline"] == [(0, 24.0)]


# -- bad input --------------------------------------------------------------------------------------------


def refuses(capsys, *arguments):
    assert run(*arguments) == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_a_validation_metric_that_does_not_exist_is_refused_before_training(model_folder, tmp_path, capsys):
    phases = """[{name: srl, mix: {srl: 1.0}, until: {metric: val/step/reward, above: 0.5}},
                 {name: rlvr, mix: {rlvr: 1.0}}]"""
    said = refuses(capsys, model_folder, tmp_path / "run", phases)
    assert "phase srl waits for val/step/reward, which the validation does not measure; there are " in said
    assert "val/outcome/informative" in said
    assert "val/steps/reward" in said


def test_a_metric_that_most_validations_leave_out_is_refused(model_folder, tmp_path, capsys):
    phases = """[{name: srl, mix: {srl: 1.0}, until: {metric: val/outcome/informative, above: 0.3}},
                 {name: rlvr, mix: {rlvr: 1.0}}]"""
    said = refuses(capsys, model_folder, tmp_path / "run", phases, "--model.validation.full_every", "2")
    assert "phase srl waits for val/outcome/informative, which model.validation.full_every 2 leaves" in said


def test_an_objective_without_data_is_refused_before_anything_runs(model_folder, tmp_path, capsys):
    data = write_rows(tmp_path / "bare.jsonl", [{**row, "answer": None} for row in letter_rows(12)])
    phases = "[{name: srl, mix: {srl: 1.0}, until: {updates: 1}}, {name: rlvr, mix: {rlvr: 1.0}}]"
    arguments = ["--curriculum.phases", phases, *ARGUMENTS]
    assert fit(model_folder, data, tmp_path / "run", *arguments) == 2
    output = capsys.readouterr()
    assert "objective rlvr has no examples" in output.err
    assert "(6 problems: 6 x no answer)" in output.err
    assert "Data:" not in output.out, "step 0 was not even measured"
    arguments[1] = "[{name: sft, mix: {sft: 1.0}}]"
    assert fit(model_folder, data, tmp_path / "run", *arguments, "--data.think", "true") == 2
    assert "6 x no reasoning to imitate in the data" in capsys.readouterr().err


# -- the head of inspect ----------------------------------------------------------------------------------


def test_the_plan_of_the_quick_start(capsys):
    from srl.cli.main import main

    assert main(["inspect", "--config", "configs/quickstart.yaml", "--no_prompts", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out.strip().splitlines()[-1])["curriculum"]
    srl, rlvr = plan["phases"]
    assert (srl["name"], srl["mix"], srl["ends"]) == ("srl", {"srl": 1.0}, "20 updates")
    assert (srl["groups_an_update"], srl["rollouts_a_draw"]) == (16, 128)  # 16 prompts of 8
    assert srl["updates_a_pass"] == 18.8  # 100 problems of 3 steps, 16 at a time
    assert (rlvr["ends"], rlvr["rollouts_a_draw"]) == ("update 32 (trainer.max_steps)", 64)
    assert plan["examples"] == {"val_steps": 288, "val_problems": 96, "srl": 300, "rlvr": 100}
    assert plan["notes"] == []
    more = ["--curriculum.draw_prompts", "8", "--model.update.mini_batches", "2", "--trainer.max_steps", "-1"]
    phases = "[{name: both, mix: {srl: 1.0, sft_step: 3.0}, batch_groups: 16}]"
    shown = ["--config", "configs/quickstart.yaml", "--no_prompts", "--json", "--curriculum.phases", phases]
    assert main(["inspect", *shown, *more]) == 0
    (both,) = json.loads(capsys.readouterr().out.strip().splitlines()[-1])["curriculum"]["phases"]
    assert (both["ends"], both["rollouts_a_draw"]) == ("never by itself", 8 * 8 // 4)
    assert both["updates_a_pass"] == 2 * 600 / 16  # two draws fill a batch, which makes two updates


def test_the_plan_loads_no_weights_and_warns_of_a_phase_that_never_comes(model_folder, tmp_path, capsys):
    phases = """[{name: srl, mix: {srl: 1.0}, until: {metric: val/steps/reward, above: 0.5}},
                 {name: rlvr, mix: {rlvr: 1.0}, until: {updates: 9}}, {name: each, per_problem: {}}]"""
    weights, hidden = model_folder / "model.safetensors", model_folder / "hidden"
    weights.rename(hidden)
    try:
        for more in ([], ["--json"]):
            more = ["--trainer.max_steps", "8", "--no_prompts", *more]
            assert run(model_folder, tmp_path / "run", phases, *more, command="inspect") == 0
    finally:
        hidden.rename(weights)
    shown, _, plan = capsys.readouterr().out.strip().rpartition("\n")
    plan = json.loads(plan)["curriculum"]
    assert plan["phases"][2]["mix"] == "per problem: srl or rlvr"
    before, measured, endless = plan["notes"]
    assert before.startswith("trainer.max_steps 8 ends the run before each, unless a metric ends an earlier")
    assert measured == "srl: val/steps/reward is measured every 4 updates"
    assert endless == "srl: has no `updates`; should its metric never get there, no other phase runs"
    assert "Problems: 24 to train on, 6 held out" in shown
    assert not (tmp_path / "run").exists()
