"""`python -m srl test` and `predict` on a tiny trained model, with MLflow on sqlite."""

import json
from itertools import combinations
from types import SimpleNamespace

import pytest
import torch
import yaml
from conftest import fit, letter_rows, write_rows

BENCH = [
    {"id": "even", "question": "90:", "answer": "a\na", "answer_check": "exact"},
    {"id": "odd", "question": "91:", "answer": "b\nb", "answer_check": "exact"},
    {"id": "trained", "question": "1:", "answer": "b\nb", "answer_check": "exact"},
    {"id": "math", "question": "4:", "answer": "7"},
    {"id": "none", "question": "5:"},
]
TEST = [
    "--model.test.attempts", "4", "--model.test.pass_k", "[1, 2]", "--model.test.batch_size", "3",
    "--model.test.temperature", "0.5", "--model.test.resamples", "200", "--data.benchmarks",
]  # fmt: skip
ACCURACIES = ("accuracy", "avg_at_4", "pass_at_1", "pass_at_2", "maj_at_4")


@pytest.fixture(scope="module")
def run(logging_ready, model_folder, tmp_path_factory):
    """A model that has learnt letters, and the command line on it."""
    from mlflow import MlflowClient

    folder = tmp_path_factory.mktemp("test-command")
    data = write_rows(folder / "letters.jsonl", letter_rows(40))
    bench = write_rows(folder / "bench.jsonl", BENCH)
    limits = ["--data.limits", '{step_tokens: 3, solution_tokens: 4, step_stop: ["\\n"]}']
    phases = ["--curriculum.phases", "[{name: copy, mix: {sft_step: 1.0}, lr: 0.03, batch_groups: 12}]"]
    more = ["--model.validation", "{attempts: 0, by_steps: false}", "--trainer.max_steps", "20"]

    def command(name, *arguments, to=folder / "run"):
        return fit(model_folder, data, to, *limits, *arguments, command=name)

    assert command("fit", *phases, *more) == 0
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")

    def runs():
        return client.search_runs([client.get_experiment_by_name("srl").experiment_id])

    return SimpleNamespace(command=command, client=client, runs=runs, folder=folder, bench=bench)


@pytest.fixture(scope="module")
def tested(run):
    """The run before and after a test of its last checkpoint on two benchmarks; the records of one."""
    (before,) = run.runs()
    losses = run.client.get_metric_history(before.info.run_id, "train/loss")
    status = run.command("test", "--ckpt_path", "last", *TEST, f"[heldout, {run.bench}]")
    (after,) = run.runs()
    path = run.folder / "run" / "test" / "bench.jsonl"
    return SimpleNamespace(
        status=status, before=before, after=after, losses=losses, path=path, text=path.read_text(),
        records=[json.loads(line) for line in path.read_text().splitlines()],
    )  # fmt: skip


def artifact(run, run_id, name, folder):
    return open(run.client.download_artifacts(run_id, name, str(folder))).read()


# -- the run ----------------------------------------------------------------------------------------------


def test_the_figures_go_into_the_run_that_wrote_the_checkpoint(run, tested):
    assert tested.status == 0
    assert tested.after.info.run_id == tested.before.info.run_id
    names = {name for name in tested.after.data.metrics if name.startswith("test")}
    bounds = {f"{name}{bound}" for name in ACCURACIES for bound in ("", "_low", "_high")}
    rest = {"format", "truncated", "words", "tokens"}
    counts = {"problems", "skipped", "contaminated"}
    mean = {f"mean_of_figures{bound}" for bound in ("", "_low", "_high")}
    expected = {f"test/{b}/{name}" for b in ("heldout", "bench") for name in bounds | rest | counts}
    assert names == expected | {f"test/mean/{name}" for name in bounds | rest | mean}
    for name in names:
        (metric,) = run.client.get_metric_history(tested.after.info.run_id, name)
        assert metric.step == 20, name  # the updates that the checkpoint had seen


def test_a_test_disturbs_nothing_of_the_run(run, tested):
    before, after = tested.before, tested.after
    assert after.data.params == before.data.params
    assert (after.info.status, after.info.end_time) == ("FINISHED", before.info.end_time)
    tables = "mlflow.loggedArtifacts"  # MLflow's own list of tables, in which those of the test come later
    assert after.data.tags.pop(tables).startswith(before.data.tags.pop(tables)[:-1])
    assert after.data.tags == before.data.tags
    kept = {name: value for name, value in after.data.metrics.items() if not name.startswith("test/")}
    assert kept == before.data.metrics
    assert run.client.get_metric_history(after.info.run_id, "train/loss") == tested.losses


def test_files_and_config_are_artifacts_of_the_run(run, tested, tmp_path):
    run_id = tested.after.info.run_id
    assert artifact(run, run_id, "test/000020/bench.jsonl", tmp_path) == tested.text
    summary = json.loads(artifact(run, run_id, "test/000020/bench.json", tmp_path))
    assert summary["values"]["accuracy"] == tested.after.data.metrics["test/bench/accuracy"]
    assert sum(summary["lengths"]["tokens"]["responses"]) == 4
    assert summary["left_out"] == [[f"{run.bench}:5", "none", "no answer"]]
    config = yaml.safe_load(artifact(run, run_id, "test_config.yaml", tmp_path))
    assert config["model"]["test"]["attempts"] == 4
    assert yaml.safe_load(artifact(run, run_id, "config.yaml", tmp_path))["model"]["test"]["attempts"] == 32


def test_the_figures_are_those_of_the_records(tested):
    """Each by its definition, over all pairs and all ways to break a tie."""
    records = tested.records
    metrics = {k.removeprefix("test/bench/"): v for k, v in tested.after.data.metrics.items()}
    assert [record["id"] for record in records] == ["even", "odd", "trained", "math"]
    right = [[sample["correct"] for sample in record["samples"]] for record in records]
    assert {len(row) for row in right} == {4}
    assert metrics["accuracy"] == sum(record["correct"] for record in records) / 4
    assert metrics["avg_at_4"] == pytest.approx(sum(map(sum, right)) / 16)
    pairs = [[any(pair) for pair in combinations(row, 2)] for row in right]
    assert metrics["pass_at_2"] == pytest.approx(sum(map(sum, pairs)) / 24)
    majority = 0.0
    for record in records:
        votes = [sample["answer"] for sample in record["samples"] if sample["answer"] is not None]
        best = [answer for answer in set(votes) if votes.count(answer) == max(map(votes.count, votes))]
        majority += sum(answer == record["gold"] for answer in best) / len(best) if best else 0
    assert metrics["maj_at_4"] == pytest.approx(majority / 4)
    assert metrics["tokens"] == sum(record["tokens"] for record in records) / 4
    assert (metrics["problems"], metrics["skipped"], metrics["contaminated"]) == (4, 1, 2)  # 1: and 4:
    assert 0 < metrics["avg_at_4"] < 1  # else much of this says nothing


@pytest.mark.parametrize("again", [False, True])
def test_every_problem_is_a_row_of_a_table(run, tested, tmp_path, again):
    """MLflow shows it beside the run; a test that is made again replaces it."""
    if again:
        assert run.command("test", "--ckpt_path", "last", *TEST, f"[heldout, {run.bench}]") == 0
    run_id = tested.after.info.run_id
    table = json.loads(artifact(run, run_id, "test/000020/bench_problems.json", tmp_path))
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert [row["uid"] for row in rows] == ["even", "odd", "trained", "math"]
    for row, record in zip(rows, tested.records, strict=True):
        samples = record["samples"]
        for name in ("benchmark", "problem", "correct", "tokens", "response", "in_format"):
            assert row[name] == record[name]
        assert (row["answer"], row["greedy_answer"]) == (record["gold"], record["answer"])
        assert row["truncated"] == (not record["finished"])
        assert row["right_of_4"] == sum(sample["correct"] for sample in samples) == row["avg_at_4"] * 4
        assert row["truncated_of_4"] == sum(not sample["finished"] for sample in samples)
        assert row["tokens_samples"] == sum(sample["tokens"] for sample in samples) / 4
    figures = tested.after.data.metrics
    for name in ("avg_at_4", "maj_at_4"):
        assert sum(row[name] for row in rows) / 4 == pytest.approx(figures[f"test/bench/{name}"])
    assert "test/000020/bench_problems.json" in run.runs()[0].data.tags["mlflow.loggedArtifacts"]


def test_the_weights_of_the_checkpoint_are_tested(tested):
    """The letters are learnt at a glance: a random model never says one twice."""
    assert tested.after.data.metrics["test/heldout/accuracy"] > 0
    assert {"a\na", "b\nb"} & {record["answer"] for record in tested.records}


def test_the_same_seed_gives_the_same_records_whatever_else_is_tested(run, tested, tmp_path):
    more = ["--trainer.logger", "false", "--model.test.folder", str(tmp_path)]
    assert run.command("test", "--ckpt_path", "last", *more, *TEST, f"[{run.bench}]") == 0
    assert (tmp_path / "bench.jsonl").read_text() == tested.text
    assert (
        run.command("test", "--ckpt_path", "last", *more, "--model.test.seed", "5", *TEST, f"[{run.bench}]")
        == 0
    )
    other = [json.loads(line) for line in (tmp_path / "bench.jsonl").read_text().splitlines()]
    assert [r["response"] for r in other] == [r["response"] for r in tested.records]  # greedy
    assert [r["samples"] for r in other] != [r["samples"] for r in tested.records]


def test_step_by_step_stands_beside_it_in_the_run(run, tested, capsys):
    more = ["--model.test.mode", "steps", "--model.test.max_turns", "2"]
    assert run.command("test", "--ckpt_path", "best", *more, *TEST, f"[{run.bench}]") == 0
    (after,) = run.runs()
    records = [
        json.loads(line)
        for line in (run.folder / "run" / "test_steps" / "bench.jsonl").read_text().splitlines()
    ]
    assert all(len(record["steps"]) <= 2 for record in records)
    assert all(record["response"] == "\n".join(record["steps"]) for record in records)
    accuracy = after.data.metrics["test_steps/bench/accuracy"]
    assert accuracy == sum(record["correct"] for record in records) / 4
    assert accuracy > 0
    assert after.data.metrics["test/bench/accuracy"] == tested.after.data.metrics["test/bench/accuracy"]
    out = capsys.readouterr().out
    assert "Benchmark bench: 4 problems, 1 skipped" in out
    assert f"skipped {run.bench}:5 (none): no answer" in out
    assert "bench (4)" in out


# -- other runs -------------------------------------------------------------------------------------------


def others(run, experiment):
    return run.client.search_runs([run.client.get_experiment_by_name(experiment).experiment_id])


def test_without_a_checkpoint_the_base_is_tested_in_a_run_of_its_own(run, tested):
    more = ["--trainer.logger.init_args.experiment_name", "base", "--data.benchmarks", "[heldout]"]
    assert run.command("test", *more, "--model.test.attempts", "0") == 0
    (found,) = others(run, "base")
    assert found.data.tags["tested"] == "the base model"
    assert found.data.metrics["test/heldout/accuracy"] == 0
    assert "test/heldout/avg_at_32" not in found.data.metrics  # greedy only
    assert not [name for name in found.data.metrics if name.startswith("test/mean")]  # of one benchmark
    assert found.data.params["model.test.attempts"] == "0"  # it is described, as nobody else does
    assert (run.folder / "run" / "test_base" / "heldout.jsonl").is_file()


def test_a_run_that_is_gone_is_replaced_by_a_tagged_one(run, tested, tmp_path, capsys):
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path}/other.db"
    path = run.folder / "run" / "last.ckpt"
    more = ["--trainer.logger.init_args.tracking_uri", uri, "--model.test.attempts", "0"]
    assert run.command("test", "--ckpt_path", str(path), *more, "--data.benchmarks", f"[{run.bench}]") == 0
    client = MlflowClient(uri)
    (found,) = client.search_runs([client.get_experiment_by_name("srl").experiment_id])
    assert found.data.tags["tested"] == str(path)
    assert found.data.metrics["test/bench/problems"] == 4
    assert (
        f"run {tested.after.info.run_id} is not at {uri}; testing into a new MLflow run"
        in capsys.readouterr().err
    )


def test_the_checkpoint_names_its_run_in_built_in_types(run, tested):
    state = torch.load(run.folder / "run" / "last.ckpt", weights_only=True)
    saved = state["callbacks"]["RunInfo"]
    assert saved["run_id"] == tested.after.info.run_id
    assert saved.keys() == {"run_id", "config"}
    assert all(type(value) is str for value in saved["config"].values())


def test_a_checkpoint_without_mlflow_names_no_run(tmp_path):
    from callbacks.run_info import run_of_checkpoint

    for callbacks in ({}, {"RunInfo": {"run_id": None}}):
        torch.save({"callbacks": callbacks, "state_dict": {}, "global_step": 0}, tmp_path / "x.ckpt")
        assert run_of_checkpoint(str(tmp_path / "x.ckpt")) is None


@pytest.mark.parametrize("status", ["RUNNING", "KILLED"])
def test_a_run_keeps_its_status_though_lightning_ends_it(run, status):
    """RUNNING: another process is still training."""
    from lightning.pytorch.loggers import MLFlowLogger

    from callbacks.run_info import status_kept

    experiment = run.client.get_experiment_by_name("status")
    number = experiment.experiment_id if experiment else run.client.create_experiment("status")
    run_id = run.client.create_run(number).info.run_id
    if status != "RUNNING":
        run.client.set_terminated(run_id, status, end_time=1234)
    logger = MLFlowLogger("status", tracking_uri=f"sqlite:///{run.folder}/mlflow.db", run_id=run_id)

    def fail():
        logger.finalize("failed")
        assert run.client.get_run(run_id).info.status == "FAILED"
        raise KeyError

    with pytest.raises(KeyError), status_kept(SimpleNamespace(loggers=[logger])):
        fail()
    info = run.client.get_run(run_id).info
    assert info.status == status
    assert status == "RUNNING" or info.end_time == 1234


def test_a_killed_test_leaves_its_finished_batches(run, tested, tmp_path, monkeypatch, capsys):
    import modules.policy as policy

    solve, done = policy.benchmark_records, []

    def die(*given):
        if done:
            raise KeyboardInterrupt
        done.append(given)
        return solve(*given)

    monkeypatch.setattr(policy, "benchmark_records", die)
    more = ["--trainer.logger", "false", "--model.test.folder", str(tmp_path)]
    assert run.command("test", "--ckpt_path", "last", *more, *TEST, f"[{run.bench}]") == 130
    assert [path.name for path in tmp_path.iterdir()] == ["bench.partial.jsonl"]
    assert (tmp_path / "bench.partial.jsonl").read_text().splitlines() == tested.text.splitlines()[:3]


# -- predict ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["whole", "steps"])
def test_predict_writes_solutions_of_problems_without_answers(run, tested, mode, capsys):
    runs = len(run.runs())
    more = ["--model.test.mode", mode, "--model.test.max_turns", "2", "--data.benchmarks", f"[{run.bench}]"]
    assert run.command("predict", "--ckpt_path", "last", *more) == 0
    path = run.folder / "run" / {"whole": "predict", "steps": "predict_steps"}[mode] / "bench.jsonl"
    assert f"Written: {path}" in capsys.readouterr().out
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert [record["id"] for record in records] == ["even", "odd", "trained", "math", "none"]
    keys = {"id", "benchmark", "problem", "response", "answer", "finished", "in_format", "words", "tokens"}
    assert all(record.keys() == keys | ({"steps"} if mode == "steps" else set()) for record in records)
    if mode == "whole":
        assert [r["response"] for r in records[:4]] == [r["response"] for r in tested.records]
    assert len(run.runs()) == runs


# -- what is refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model.test.pass_k", "[64]"], "model.test.pass_k has 64, but model.test.attempts is 32"),
        (
            ["--model.test.attempts", "0", "--model.test.pass_k", "[1]"],
            "pass_k has 1, but model.test.attempts is 0",
        ),
        (["--model.test.attempts", "-1"], "model.test.attempts is -1: use 0 for greedy only"),
        (["--model.test.temperature", "0"], "model.test.temperature is 0.0: it must be above 0"),
        (["--model.test.limit", "0"], "model.test.limit is 0: it must be at least 1"),
        (["--model.test.mode", "step"], "model.test"),
        (["--model.test.sampels", "4"], "model.test.sampels"),
        (["--data.benchmarks", "[aime2024]"], "did you mean aime24"),
        (["--data.benchmarks", "[no/file.jsonl]"], "there is no file no/file.jsonl"),
        (["--data.benchmarks", "[]"], "data.benchmarks is empty"),
        (["--data.benchmarks", "[heldout, heldout]"], "are both called heldout"),
        (["--data.benchmarks", "[{folder}/bad.jsonl]"], "bad.jsonl:2: not JSON"),
        (["--data.benchmarks", "[{folder}/twice.jsonl]"], "twice.jsonl:2: id 'x' was used at"),
        (
            ["--data.benchmarks", "[{folder}/bare.jsonl]"],
            "none of its 1 rows has an answer that can be checked",
        ),
        (["--model.test.folder", "{folder}/bad.jsonl"], "bad.jsonl: cannot be written"),
        (["--ckpt_path", "none.ckpt"], "--ckpt_path none.ckpt: there is no file none.ckpt"),
    ],
)
def test_bad_settings_are_refused_in_one_line(run, tmp_path, capsys, arguments, message):
    (tmp_path / "bad.jsonl").write_text('{"problem": "p", "answer": "1"}\n{oops\n')
    write_rows(tmp_path / "twice.jsonl", [{"id": "x", "problem": "p", "answer": "1"}] * 2)
    write_rows(tmp_path / "bare.jsonl", [{"id": "x", "problem": "p"}])
    arguments = [argument.replace("{folder}", str(tmp_path)) for argument in arguments]
    assert run.command("test", "--trainer.logger", "false", *arguments) == 2
    err = capsys.readouterr().err
    (line,) = [line for line in err.splitlines() if line.startswith("srl: error: ")]
    assert message in line
    assert "Traceback" not in err
    assert len(line) < 500


@pytest.mark.parametrize("command", ["test", "predict"])
def test_the_commands_explain_themselves(command, capsys):
    from srl.cli.commands import usage
    from srl.cli.main import main

    assert command in usage()
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert "--data.benchmarks" in out
    assert "--model.test.pass_k" in out


def test_strategies_are_compared_at_all_the_tokens_that_they_generate(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("srl.evaluation.underthinking.LIKELY", 0.12)  # it is never surer of two letters
    more = ["--strategies", "all", "--model.test.folder", str(tmp_path), *TEST, f"[{run.bench}]"]
    more += ["--data.limits.solution_tokens", "9", "--model.test.test_time.forced_answer", ""]
    assert run.command("test", "--ckpt_path", "last", *more) == 0
    curves = {
        one["strategy"]: one["points"] for one in json.loads((tmp_path / "bench_strategies.json").read_text())
    }
    assert {name: [point["budget"] for point in points] for name, points in curves.items()} == {
        **{name: ["1", "2", "4"] for name in ("majority", "weighted_majority", "best_of_n", "oracle")},
        "budget_forcing": ["1", "2", "4", "9", "9+1", "9+2"],  # of solution_tokens 9: 9 // 8, 9 // 4, ..
        "revision": ["0", "1", "2"],
    }
    tokens = [point["tokens"] for point in curves["majority"]]
    assert tokens[2] == 2 * tokens[1] == 4 * tokens[0]
    assert curves["oracle"][0]["accuracy"] == curves["best_of_n"][0]["accuracy"]
    assert all(
        a["accuracy"] <= b["accuracy"] for a, b in zip(curves["best_of_n"], curves["oracle"], strict=True)
    )
    assert (tmp_path / "bench_strategies.png").stat().st_size > 1000
    (found,) = run.runs()
    assert found.data.metrics["test/bench/oracle/4/accuracy"] == pytest.approx(
        curves["oracle"][2]["accuracy"]
    )
    # it writes b in each of 5 lines, 9 tokens: all is wrong. The right b, b is likely after the first line
    rows = [json.loads(line) for line in (tmp_path / "bench.jsonl").read_text().splitlines()]
    shares = {row["id"]: row["first_right"] for row in rows}
    assert shares == {"even": 1.0, "odd": 2 / 9, "trained": 2 / 9, "math": 1.0}
    assert found.data.metrics["test/bench/underthinking"] == pytest.approx((7 / 9 + 7 / 9) / 4)
    assert "underthinking 0.389: so much of 4 wrong greedy responses" in capsys.readouterr().out


def test_steps_that_a_judge_resets_stand_beside_plain_sampling_at_their_tokens(run, tmp_path):
    judge = "{adapter: off, votes: 1, tokens: 2, request: '{problem}{past}{step}'}"
    more = ["--strategies", "all", "best_of_n_judge", "--model.test.mode", "steps"]
    more += ["--model.test.folder", str(tmp_path)]
    more += ["--model.test.max_turns", "4"]
    more += ["--model.test.test_time", f"{{tries: 2, judge: {judge}}}", *TEST, f"[{run.bench}]"]
    assert run.command("test", "--ckpt_path", "last", *more) == 0
    curves = {
        one["strategy"]: one["points"] for one in json.loads((tmp_path / "bench_strategies.json").read_text())
    }
    budgets = {name: [point["budget"] for point in points] for name, points in curves.items()}
    counts = ["1", "2", "4"]
    tries = ["1", "2"]
    by_counts = dict.fromkeys(("majority", "best_of_n_judge", "oracle"), counts)
    assert budgets == by_counts | {"chunk_reset": tries, "equal_tokens": tries}
    plain, judged = (point["tokens"] for point in curves["chunk_reset"])
    assert plain < judged <= 4 * (3 + 2)  # four steps of 3 tokens and 2 of the judge; it resets nothing
    assert curves["equal_tokens"][1]["tokens"] >= curves["majority"][0]["tokens"]
    chosen, sampled = ([point["tokens"] for point in curves[name]] for name in ("best_of_n_judge", "oracle"))
    assert chosen[0] == sampled[0]
    assert sampled[1] < chosen[1] <= sampled[1] + 2 * 2  # a response of the judge to each of two samples
    (found,) = run.runs()
    assert "test_steps/bench/chunk_reset/2/tokens" in found.data.metrics
