"""`srl compare`: grouping and intervals by hand, and the command on real runs in sqlite."""

import json
import re
import shutil
import sqlite3
import statistics
from pathlib import Path

import pytest
from compared import artifact, three_runs

from srl.cli.main import main
from srl.compare.groups import grouped
from srl.compare.runs import Run, joined
from srl.compare.samples import marked
from srl.compare.summary import compare
from srl.errors import DataError
from srl.rewards.similarity import similarity

ROOT = Path(__file__).resolve().parents[2]
ACCURACY = "val/outcome/accuracy"


@pytest.fixture(scope="module")
def made(logging_ready, model_folder):
    return three_runs(model_folder)


@pytest.fixture(scope="module")
def report(made, tmp_path_factory):
    """Folder of the written comparison of the three runs, and what stands in its JSON."""
    folder = tmp_path_factory.mktemp("report") / "out"
    assert main(["compare", "--tracking_uri", made.uri, "--output", str(folder)]) == 0
    return folder, json.loads((folder / "comparison.json").read_text())


def a_run(name, values, seed="0", method="m", params=None, **tags):
    """A run with an accuracy at update 0, 10, ..."""
    history = {ACCURACY: {10 * place: value for place, value in enumerate(values)}} if values else {}
    tags = {"method": method, "seed": seed} | tags
    return Run(name, name, "FINISHED", params or {}, tags, history, started=float(len(name)))


# -- by hand ------------------------------------------------------------------------------------------------


def test_the_mean_over_seeds_has_students_interval():
    runs = [a_run(f"r{seed}", [0.0, value], str(seed)) for seed, value in enumerate((0.2, 0.4, 0.6))]
    found = compare(runs).figures[ACCURACY]["m"]
    assert found.mean == pytest.approx(0.4)
    assert found.half == pytest.approx(4.303 * 0.2 / 3**0.5, rel=1e-4)  # t of 2 degrees, deviation 0.2


def test_one_seed_has_no_interval_and_that_is_said():
    found = compare([a_run("r", [0.5])])
    assert found.figures[ACCURACY]["m"].half is None
    assert "m: one seed, so no interval" in found.notes
    assert "one seed: no interval" in found.verdict[0]


def test_the_lead_is_paired_over_common_seeds():
    ours = [a_run(f"a{seed}", [value], str(seed), "a") for seed, value in enumerate((0.5, 0.9))]
    theirs = [a_run(f"b{seed}", [value], str(seed), "b") for seed, value in enumerate((0.4, 0.8))]
    verdict = compare(theirs + ours).verdict
    assert verdict[0].startswith("a has the highest")
    assert (
        "+0.100 ± 0.000 over b (paired, 2 seeds)" in verdict[1]
    )  # both leads are 0.1, though seeds differ by 0.4
    noisy = [a_run("b0", [0.2], "0", "b"), a_run("b1", [0.9], "1", "b")]
    assert "within the noise" in compare(noisy + ours).verdict[1]


def test_other_settings_are_another_group_and_places_on_disk_are_not():
    runs = [
        a_run("r0", [0.1], "0", params={"lr": "1", "seed_everything": "0", "data.path": "x/train.jsonl"}),
        a_run("r1", [0.2], "1", params={"lr": "1", "seed_everything": "1", "data.path": "y/train.jsonl"}),
        a_run("r2", [0.3], "0", params={"lr": "2", "checkpoint.dirpath": "z", "data.path": "train.jsonl"}),
    ]
    found = compare(runs)
    assert [(group.label, group.seeds) for group in found.groups] == [
        ("m (lr 2)", ["0"]),
        ("m (lr 1)", ["0", "1"]),
    ]
    assert found.differences == {"lr": {"m (lr 2)": "2", "m (lr 1)": "1"}}


def test_runs_on_different_data_are_pooled_and_paired_with_a_note():
    path = {"data.path": "x/train.jsonl"}
    ours = [a_run("a0", [0.1], params=path, data_hash="1" * 64), a_run("a1", [0.1], "1", data_hash="1" * 64)]
    ours[1].params = {"data.path": "y/train.jsonl"}
    other = a_run("b0", [0.2], "0", "n", data_hash="2" * 64)
    notes = compare([*ours, other]).notes
    assert [note for note in notes if "data" in note] == ["m and n: different data at seed 0"]
    ours[1].tags["data_hash"] = "3" * 64
    assert "m: its runs have different data (data_hash 1111111111, 3333333333)" in compare(ours).notes
    same = [a_run(f"r{seed}", [0.1], str(seed), data_hash="1" * 64) for seed in (0, 1)]
    assert not [note for note in compare([*same, a_run("old", [0.1], "2")]).notes if "data" in note]


def test_of_two_runs_of_a_seed_the_newest_counts():
    groups, notes = grouped([a_run("old", [0.1]), a_run("newer", [0.2])])
    assert [run.name for run in groups[0].runs] == ["newer"]
    assert notes == ["old (old) is left out: run newer with the same method, settings and seed 0 is newer"]


def test_a_validation_of_its_own_is_no_newer_result():
    trained, validated = a_run("t", [0.1, 0.9]), a_run("later", [0.9], resumed_from_run="t")
    trained.history["train/loss"] = {1: 0.0}
    runs, _ = joined([trained, validated])
    groups, notes = grouped(runs)
    assert [run.name for run in groups[0].runs] == ["t"]
    assert notes[0].endswith("has trained, as this one has not")


def test_a_resumed_run_takes_over_the_history_of_the_one_before():
    first = a_run("first", [0.1, 0.2, 0.9])  # at 0, 10, 20
    second = a_run("second", [], resumed_from_run="first")
    second.history = {ACCURACY: {15: 0.3, 25: 0.4}, "train/loss": {16: 1.0}}
    (run,), notes = joined([first, second])
    assert run.history[ACCURACY] == {0: 0.1, 10: 0.2, 15: 0.3, 25: 0.4}  # what came after 15 was done again
    assert notes == ["second goes on with first after update 15: taken as one run"]


def test_a_chain_of_runs_has_every_update_once():
    """Killed at 7 with a checkpoint of 5, and at 9 with one of 8; one more died before it logged anything."""
    first = a_run("first", [])
    first.history = {"train/loss": dict.fromkeys(range(1, 8), 1.0)}
    second = a_run("second", [], resumed_from_run="first")
    second.history = {"floors/last_step": {5: 0.4}, "train/loss": dict.fromkeys(range(6, 10), 2.0)}
    silent = a_run("silent", [], resumed_from_run="second")
    third = a_run("third", [], resumed_from_run="second")
    third.history = {"floors/last_step": {8: 0.4}, "train/loss": {9: 3.0, 10: 3.0}}
    for when, run in enumerate([first, second, silent, third]):
        run.started = float(when)
    runs, notes = joined([first, second, silent, third])
    assert [run.name for run in runs] == ["silent", "third"]
    values = [1.0] * 5 + [2.0] * 3 + [3.0] * 2  # of updates 1 to 10
    assert runs[1].history["train/loss"] == dict(enumerate(values, start=1))
    assert runs[0].history == {}
    assert len(notes) == 2


def test_samples_of_the_machine_are_no_updates_and_a_chain_costs_the_time_of_all_its_runs():
    watts = "system/gpu_0_power_usage_watts"
    first, second = a_run("a", []), a_run("b", [], resumed_from_run="a")
    first.history = {ACCURACY: {0: 0.1, 8: 0.2}, "cost/seconds": {8: 60.0}, watts: {0: 100.0, 1: 100.0}}
    second.history = {ACCURACY: {12: 0.3}, "cost/seconds": {9: 70.0, 12: 90.0}, watts: {0: 400.0, 99: 400.0}}
    first.started, first.ended, second.started, second.ended = 0.0, 100.0, 500.0, 544.0
    found = compare([first, second])
    ((run,),) = [group.runs for group in found.groups]
    assert run.history["cost/seconds"] == {8: 60.0, 9: 70.0, 12: 90.0}
    assert (run.updates, found.cost["m"]["updates"]) == (12, 12.0)
    assert found.cost["m"]["seconds_outside"] == 144.0 - 90.0
    assert found.cost["m"]["energy_wh"] == pytest.approx(250 * 144 / 3600)
    first.ended, second.ended = None, 544.0  # the first was killed, and nobody knows when
    assert joined([first, second])[0][0].seconds is None


def test_the_parent_of_a_sweep_is_no_run():
    parent, child = a_run("parent", []), a_run("r", [0.5])
    child.tags["mlflow.parentRunId"] = "parent"
    assert not [note for note in compare([parent, child]).notes if "parent" in note]


def test_a_run_without_the_metric_is_named_and_none_with_it_is_an_error():
    assert (
        "without is left out: it has no val/outcome/accuracy"
        in compare([a_run("r", [0.5]), a_run("without", [])]).notes
    )
    with pytest.raises(DataError, match=f"none of 1 runs has val/x; choose with --metric one of {ACCURACY}"):
        compare([a_run("r", [0.5])], "val/x")
    with pytest.raises(DataError, match="nothing to compare"):
        compare([a_run("r", [])])


def test_costs_are_means_and_seconds_by_part_add_up():
    run = a_run("r", [0.0, 0.5])
    run.history |= {
        "cost/seconds": {5: 6.0, 10: 12.0}, "cost/tokens_generated": {5: 100.0, 10: 220.0},
        "cost/tokens_trained": {5: 50.0, 10: 110.0}, "rollouts/seconds": {5: 4.0, 10: 3.0},
        "system/gpu_0_power_usage_watts": {0: 100.0, 1: 300.0},
    }  # fmt: skip
    run.started, run.ended = 100.0, 136.0
    cost = compare([run]).cost["m"]
    assert (cost["seconds"], cost["seconds_rollouts"], cost["seconds_other"]) == (12.0, 7.0, 5.0)
    assert cost["seconds_outside"] == 24.0  # 36 in all
    assert cost["energy_wh"] == pytest.approx(200 * 36 / 3600)
    assert cost["cpu_seconds"] is None
    assert [run.at("tokens", step) for step in (0, 5, 7, 10)] == [0, 150, 150, 330]


@pytest.mark.parametrize(
    ("action", "expert"),
    [("abcd", "bcde"), ("tide", "diet"), ("x", ""), ("a+b=c; " * 40, "b+a=c, so " * 30), ("äé∑x", "∑xé")],
)
def test_the_coloured_blocks_are_those_that_the_reward_counts(action, expert):
    ours, theirs = marked(action, expert)
    assert ("".join(text for text, _ in ours), "".join(text for text, _ in theirs)) == (action, expert)
    blocks = [{number: text for text, number in side if number is not None} for side in (ours, theirs)]
    assert blocks[0] == blocks[1]
    matched = sum(map(len, blocks[0].values()))
    assert 2 * matched / (len(action) + len(expert)) == pytest.approx(similarity(action, expert))


# -- on real runs -------------------------------------------------------------------------------------------


def test_runs_are_grouped_by_config_and_seed(report):
    _, found = report
    assert {group["method"]: [run["seed"] for run in group["runs"]] for group in found["groups"]} == {
        "steps": ["0", "1"], "imitation": ["0"],
    }  # fmt: skip
    assert "imitation: one seed, so no interval" in found["notes"]
    assert {"curriculum.phases.1.name"} <= found["differences"].keys()
    steps = next(group for group in found["groups"] if group["method"] == "steps")
    assert all(run["hand_offs"] == [3] for run in steps["runs"])


def test_figures_are_those_of_the_runs(made, report):
    _, found = report
    steps = next(group for group in found["groups"] if group["method"] == "steps")
    values = [
        made.client.get_metric_history(made.runs[f"steps seed {seed}"].info.run_id, "val/steps/reward")[
            -1
        ].value
        for seed in (0, 1)
    ]
    assert steps["figures"]["val/steps/reward"]["mean"] == pytest.approx(statistics.fmean(values))
    assert steps["cost"]["updates"] == 5
    assert steps["cost"]["tokens_generated"] > 0


def test_the_report_needs_nothing_else(report):
    folder, found = report
    text = (folder / "report.html").read_text()
    assert not re.search(r"https?://|<script|<link|@import", text)
    images = re.findall(r'src="([^"]{30})', text)
    assert images
    assert all(source.startswith("data:image/png;base64,") for source in images)
    written = {path.name for path in folder.iterdir()}
    assert written >= {"accuracy.png", "train_reward.png", "silent.png", "lengths.png", "positions.png"}
    assert all((folder / name).read_bytes()[:4] == b"\x89PNG" for name in written if name.endswith(".png"))
    assert all(line.replace("&", "&amp;") in text for line in found["verdict"])


def test_what_a_rollout_holds_is_text_in_the_report(tmp_path):
    """The answer of a problem, the expert's step and the prompt come from outside."""
    from srl.compare.report import write_report

    run = a_run("<script>alert(1)</script>", [0.5], method="<b>m</b>")
    step = {
        "uid": "<i>u",
        "position": 1,
        "response": "<script>alert(2)</script>a",
        "expert_action": "a<script>",
    }
    run.tables["after"] = [step | {"reward": 0.5}]
    run.params["data.think"] = "False"
    run.tables["rollouts"] = [
        {"update": 1, "phase": "<u>", "objective": "srl", "prompt": "</pre><script>",
         "thinking": "<img src=x>", "action": "<script>", "expert_action": "&", "reward": 0.0,
         "advantage": 0.0}
    ]  # fmt: skip
    write_report(compare([run]), {}, tmp_path / "report.html", "<title>")
    text = (tmp_path / "report.html").read_text()
    assert not re.search(r"<script|<img src=x|<b>m|<i>u|<u>", text)
    assert "&lt;" in text
    assert 'class="b0">&lt;script&gt;</span>alert(2)' in text  # the block that both have


def test_held_out_steps_stand_beside_the_experts(report):
    text = (report[0] / "report.html").read_text()
    assert "The same held-out steps" in text
    assert re.search(r"steps: reward [\d.-]+</div>", text)
    assert re.search(r"imitation: reward [\d.-]+</div>", text)


def test_json_is_one_object_on_standard_output(made, capsys):
    assert main(["compare", "--tracking_uri", made.uri, "--runs", "steps seed 0,steps seed 1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [group["method"] for group in found["groups"]] == ["steps"]


def test_the_table_is_printed(made, capsys):
    assert main(["compare", "--tracking_uri", made.uri, "--experiment", "srl"]) == 0
    out = capsys.readouterr().out
    for text in ("steps_accuracy", "generated", "Settings that differ", "one seed, so no interval"):
        assert text in out


def test_nine_methods_read_well_in_80_columns(monkeypatch, capsys):
    """Every figure whole, no line too long, and below each method only what it has of its own."""
    from srl.compare.runs import Run
    from srl.compare.summary import compare
    from srl.compare.terminal import show

    monkeypatch.setenv("COLUMNS", "80")
    history = {
        f"val/{name}": {0: 0.0, 5: 0.12345}
        for name in ("outcome/accuracy", "outcome/steps_accuracy", "outcome/avg_at_8", "outcome/informative",
                     "steps/reward", "steps/exact", "steps/format", "steps/tokens")
    }  # fmt: skip
    usual = {f"data.limits.key_{place}": "1000" for place in range(12)}
    usual |= {"curriculum.phases.0.name": "steps", "curriculum.phases.0.mix.srl": "1.0"}
    usual |= {"curriculum.phases.0.until": "None"}
    runs = []
    for place in range(9):
        own = {f"data.limits.key_{place}": f"{place}77"} if place < 8 else {}
        if place == 0:
            own |= {"curriculum.phases.0.until.updates": "20", "curriculum.phases.0.mix.rlvr": "0.5"}
            own |= {"curriculum.phases.1.name": "more", "curriculum.phases.1.mix.rlvr": "1.0"}
        for seed in "01":
            name = f"srl_no_dynamic_sampling_{place}"
            tags = {"method": name, "seed": seed}
            runs.append(Run(name + seed, name, "FINISHED", usual | own, tags, history))
    show(compare(runs))
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert "…" not in out
    assert len(re.findall(r"0\.123 ± 0\.000", out)) == 9 * 8 + 1  # and once who is ahead
    blocks = re.split(r"\n (?=srl_no_dynamic_sampling_\d)", out.split("Settings that differ")[1])
    assert [block.split()[0][-1] for block in blocks[1:]] == list("012345678")
    for place, block in enumerate(blocks[1:9]):
        (row,) = [line.split() for line in block.splitlines() if "data.limits" in line]
        assert row == [f"data.limits.key_{place}", f"{place}77", "1000"]
    rows = [line.split("  ") for line in blocks[1].splitlines()[1:]]
    found = {words[0]: words[1:] for row in rows if (words := [word.strip() for word in row if word.strip()])}
    assert found["phases.0.mix"] == ["rlvr 0.5, srl 1.0", "srl 1.0"]
    assert found["phases.0.until"] == ["updates 20", "not set"]
    assert found["phases.1"] == ["name more, mix rlvr 1.0", "not set"]
    assert "as most often" in blocks[9]


# -- bad input ----------------------------------------------------------------------------------------------


@pytest.fixture
def refused(made, capsys):
    def run(*arguments, uri=made.uri):
        assert main(["compare", "--tracking_uri", uri, *arguments]) == 2
        err = capsys.readouterr().err
        assert err.startswith("srl: error: ")
        assert err.count("\n") == 1
        return err

    return run


def test_no_such_experiment_lists_those_there_are(refused):
    assert "--experiment sl: there is no such experiment; there are srl (3 runs)" in refused(
        "--experiment", "sl"
    )


def test_no_such_run_lists_those_there_are(refused):
    assert re.search(r"no such run; there are .*steps seed 0 \(\w{8}\)", refused("--runs", "steps seed 9"))


def test_no_such_metric_lists_those_there_are(refused):
    assert "val/outcome/accuracy" in refused("--metric", "val/none")


def test_a_folder_that_is_not_empty_is_left_alone(refused, tmp_path):
    (tmp_path / "mine.txt").write_text("kept")
    assert "not empty (mine.txt)" in refused("--output", str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_no_database_is_said_and_none_is_made(refused, tmp_path):
    assert "there is no MLflow database" in refused(uri=f"sqlite:///{tmp_path}/none.db")
    assert not list(tmp_path.iterdir())


def test_another_file_is_no_database(refused, tmp_path):
    (tmp_path / "a.db").write_text("hello " * 100)
    assert "not a database of MLflow" in refused(uri=f"sqlite:///{tmp_path}/a.db")


def test_a_database_without_runs(refused, tmp_path):
    from conftest import tracking_uri

    assert "there are no runs yet" in refused(uri=tracking_uri(tmp_path))


def test_a_locked_database(refused, made, tmp_path, monkeypatch):
    import srl.runs.store

    monkeypatch.setattr(srl.runs.store, "WAIT", 0.2)
    path = shutil.copy(made.folder / "mlflow.db", tmp_path / "locked.db")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    try:
        assert "locked by another program" in refused(uri=f"sqlite:///{path}")
    finally:
        other.close()


def test_a_database_of_another_version(refused, made, tmp_path):
    path = shutil.copy(made.folder / "mlflow.db", tmp_path / "old.db")
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
    connection.close()
    assert f"mlflow db upgrade sqlite:///{path}" in refused(uri=f"sqlite:///{path}")


def test_a_server_that_does_not_answer(refused):
    assert "no tracking server answers" in refused(uri="http://127.0.0.1:9")
    assert "no tracking server answers (Port could not be cast" in refused(uri="http://host:PORT")


def test_a_run_is_refused_before_it_starts_where_it_could_not_be_logged(
    made, model_folder, expert_file, tmp_path, capsys
):
    from conftest import fit

    path = shutil.copy(made.folder / "mlflow.db", tmp_path / "old.db")
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
    connection.close()
    more = ["--trainer.logger.init_args.tracking_uri", f"sqlite:///{path}"]
    assert fit(model_folder, expert_file, tmp_path / "run", *more) == 2
    assert "mlflow db upgrade" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_an_unknown_option_is_one_line(refused):
    assert "unrecognized arguments: --experment" in refused("--experment", "srl")


@pytest.mark.parametrize(
    "table",
    [
        "[]", '{"columns": ["uid"]}', '{"columns": 5, "data": [[1]]}', '{"columns": ["uid"], "data": [[1]]}',
        '{"columns": ["uid"], "data": [[1, 2]]}', "not JSON",
        '{"columns": ["uid", "position", "response", "expert_action", "reward"], '
        '"data": [[1, 1, "", "", "x"]]}',
    ],
)  # fmt: skip
def test_a_table_of_another_shape_is_noted_and_left_out(made, tmp_path, table):
    import mlflow

    from srl.compare.reading import read_tables

    client = mlflow.MlflowClient(uri := f"sqlite:///{shutil.copy(made.folder / 'mlflow.db', tmp_path)}")
    experiment = client.create_experiment("odd", artifact_location=str(tmp_path / "artifacts"))
    run_id = client.create_run(experiment).info.run_id
    client.log_text(run_id, table, "validation/steps_000000.json")
    run = a_run(run_id, [0.5])
    (note,) = read_tables(client, run)
    assert note.startswith(f"{run_id}: its tables cannot be read ("), uri
    assert not run.tables


def table(*responses):
    columns = ["uid", "position", "response", "expert_action", "reward"]
    return json.dumps({"columns": columns, "data": [["u", 1, text, "e", 0.5] for text in responses]})


def test_of_resumed_runs_that_play_the_held_out_steps_are_those_of_the_first_and_the_last(made, tmp_path):
    """Tables of plays stand in the same folder."""
    import mlflow

    from srl.compare.reading import read_tables

    client = mlflow.MlflowClient(f"sqlite:///{shutil.copy(made.folder / 'mlflow.db', tmp_path)}")
    experiment = client.create_experiment("worlds", artifact_location=str(tmp_path / "artifacts"))
    first, second = (client.create_run(experiment).info.run_id for _ in range(2))
    for run_id, places in ((first, (0, 10)), (second, (20,))):
        for place in places:
            client.log_text(run_id, table(f"at {place}"), f"validation/steps_{place:06}.json")
            client.log_text(
                run_id, '{"columns": ["uid"], "data": []}', f"validation/episodes_{place:06}.json"
            )
    runs = [a_run(first, [0.1, 0.2]), a_run(second, [0.3], resumed_from_run=first)]
    runs[1].history["train/loss"] = {20: 1.0}
    ((run,), _) = joined(runs)
    assert read_tables(client, run) == []
    assert [run.tables[name][0]["response"] for name in ("before", "after")] == ["at 0", "at 20"]


def test_settings_are_drawn_as_they_are_written_and_long_ones_cut(tmp_path):
    """A dollar is no mathematics."""
    from srl.compare.plots import draw

    texts = (r"Put it in $\boxed{}$.", "Think for long, and then " * 9)
    runs = [a_run(f"r{k}", [0.1], params={"data.prompt.step_system": text}) for k, text in enumerate(texts)]
    found = compare(runs)
    assert [len(group.label) for group in found.groups] == [len(f"m (step_system {texts[0]})"), 16 + 40]
    assert draw(found, tmp_path)["accuracy"].is_file()


# -- what the runs left in MLflow for it --------------------------------------------------------------------


def test_the_run_is_named_and_tagged(made):
    run = made.runs["steps seed 1"]
    tags = run.data.tags
    assert (tags["method"], tags["seed"], tags["model"][:10]) == ("steps", "1", "tiny-model")
    assert tags["data_hash"] == tags["data_sha256/letters.jsonl"]
    if "git_commit" in tags or ROOT.joinpath(".git").exists():  # no commit where an archive was unpacked
        assert re.fullmatch("[0-9a-f]{40}", tags["git_commit"])
        assert tags["git_dirty"] in ("true", "false")
    assert run.info.status == "FINISHED"


def test_the_data_set_is_an_input_with_its_digest(made):
    run = made.runs["steps seed 0"]
    (found,) = run.inputs.dataset_inputs
    assert found.dataset.name == "letters.jsonl"
    assert run.data.tags["data_hash"].startswith(found.dataset.digest)
    assert [(tag.key, tag.value) for tag in found.tags] == [("mlflow.data.context", "training")]


def test_rollouts_say_format_similarity_and_whether_they_were_trained_on(made):
    rows = artifact(made, made.runs["steps seed 0"], "rollouts.json")
    columns = (
        "update phase objective prompt thinking action expert_action reward similarity format advantage kept"
    )
    assert set(columns.split()) <= rows[0].keys()
    for row in rows:
        found = similarity(row["action"], row["expert_action"]) if row["format"] else None
        assert row["similarity"] == pytest.approx(found)
        assert row["reward"] == pytest.approx(-1 if found is None else found)
    assert {row["kept"] for row in rows} == {True, False}


def test_reward_histograms_count_every_rollout_once(made):
    run = made.runs["steps seed 0"]
    rows = artifact(made, run, "reward_histograms.json")
    generated = made.client.get_metric_history(run.info.run_id, "rollouts/generated")
    assert {row["update"] for row in rows} == {4, 5}  # after 3 updates that imitate
    assert sum(row["rollouts"] for row in rows) == sum(point.value for point in generated)
    assert all(row["from"] <= row["to"] <= 1 for row in rows)


def test_system_metrics_and_checkpoints_only_where_they_were_asked_for(made):
    asked, other = made.runs["steps seed 0"], made.runs["steps seed 1"]
    assert "system/cpu_utilization_percentage" in asked.data.metrics
    assert not [name for name in other.data.metrics if name.startswith("system/")]
    names = [file.path for file in made.client.list_artifacts(asked.info.run_id, "checkpoints")]
    assert names == ["checkpoints/best.ckpt", "checkpoints/last.ckpt"]
    assert not made.client.list_artifacts(other.info.run_id, "checkpoints")
