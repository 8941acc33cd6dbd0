"""`inspect`: what the model will see, how long it is, and that no held-out problem is trained on."""

import json

from conftest import LETTER_PHASES, expert_rows, write_rows

from srl.cli.main import main

ALL = """[{name: all, mix: {srl: 1.0, rlvr: 1.0, sft_step: 1.0, holistic: 1.0}}]"""


def test_prompts_targets_lengths_limits_and_split(inspect, tmp_path):
    rows = expert_rows(24)
    rows[3]["problem"] = "x" * 300
    rows[4]["steps"][0]["body"] = "1+2+3+4=10"
    data = write_rows(tmp_path / "data.jsonl", rows)
    limits = '{step_tokens: 8, solution_tokens: 64, step_stop: ["\\n"], max_prompt_tokens: 120}'
    arguments = ["--data.limits", limits, "--curriculum.phases", ALL, "--data.validation.problems", "4"]
    found = json.loads(inspect(data, *arguments, "--json", "--examples", "3").out)
    assert set(found["examples"]) == {"srl", "rlvr", "sft_step", "holistic"}
    assert all(len(examples) == 3 for examples in found["examples"].values())
    by_uid = {row["uid"]: row for row in rows}
    for example in found["examples"]["srl"]:
        row = by_uid[example["uid"]]
        steps = [step["body"] for step in row["steps"]]
        assert example["compared_with"] == steps[example["step"] - 1]
        assert example["prompt"] == "\n".join([row["problem"], *steps[: example["step"] - 1], ""])
    for example in found["examples"]["sft_step"]:
        assert example["imitated"] == example["compared_with"] + "\n"
    for example in found["examples"]["rlvr"]:
        assert example["compared_with"] == by_uid[example["uid"]]["answer"]
    prompts = found["lengths"]["srl prompt"]
    assert sum(prompts["counts"].values()) == prompts["of"] > 50
    assert prompts["max"] == max(map(int, prompts["counts"]))
    reasons = found["over_the_limits"]
    assert any("prompt over data.limits.max_prompt_tokens 120" in reason for reason in reasons)
    assert any("srl: expert steps over data.limits.step_tokens 8" in reason for reason in reasons)
    assert 0 < found["floors"]["last_step"] < found["floors"]["best_sentence"] < 1
    split = found["split"]
    assert (split["train"]["problems"], split["held_out"]["problems"], split["in_both"]) == (20, 4, 0)


def test_held_out_problems_near_to_trained_ones_are_named(inspect, tmp_path):
    rows = expert_rows(12)
    words = " ".join("abcdefghijklmnopqrstuvwxyz")
    data = write_rows(tmp_path / "data.jsonl", [row | {"problem": f"{words} {row['uid']}"} for row in rows])
    split = json.loads(inspect(data, "--json", "--data.validation.problems", "5").out)["split"]
    assert (split["in_both"], len(split["near"])) == (0, 5)  # 14 of 15 13-grams of each
    assert all("% of its 13-grams are in p" in said for said in split["near"].values())
    shown = inspect(write_rows(data, rows), "--curriculum.phases", LETTER_PHASES).out
    assert "imitated, token by token" in shown
    assert "in both: 0; near to one trained on: 0" in shown


def test_special_tokens_of_the_target_show(inspect, tmp_path):
    data = write_rows(tmp_path / "data.jsonl", expert_rows(12))
    limits = "{step_tokens: 8, solution_tokens: 64, step_stop: []}"
    arguments = [
        "--data.limits",
        limits,
        "--curriculum.phases",
        "[{name: a, mix: {sft_step: 1.0}}]",
        "--json",
    ]
    (first, *_) = json.loads(inspect(data, *arguments).out)["examples"]["sft_step"]
    assert first["imitated"].endswith("<eos>")


def test_prompts_that_leave_out_turns_are_counted(inspect, tmp_path):
    rows = expert_rows(12)
    for row in rows:
        for step in row["steps"]:
            step["observation"] = "ok"
    data = write_rows(tmp_path / "data.jsonl", rows)
    arguments = ["--data.include_last", "true", "--curriculum.phases", LETTER_PHASES, "--json"]
    arguments += ["--data.validation.problems", "2", "--data.limits.max_prompt_tokens", "512"]
    found = json.loads(inspect(data, *arguments, "--data.prompt.context_turns", "1").out)["over_the_limits"]
    said = {what: count for what, count in found.items() if "first turns" in what}
    # three steps each: the prompt of the third leaves out the first
    assert set(said.values()) == {10}
    assert all("(data.prompt.context_turns 1), of 30 measured" in what for what in said)
    found = json.loads(inspect(data, *arguments, "--data.prompt.context_turns", "2").out)["over_the_limits"]
    assert not any("first turns" in what for what in found)


def test_the_curriculum_shows_without_a_model(inspect, tmp_path):
    """No tokenizer, so nothing can be counted: the phases stand in the config alone."""
    data = write_rows(tmp_path / "data.jsonl", expert_rows(12))
    arguments = ["--no_prompts", "--json", "--model.base", str(tmp_path / "none")]
    found = json.loads(inspect(data, *arguments, "--curriculum.phases", LETTER_PHASES).out)
    assert found.keys() == {"curriculum"}
    plan = found["curriculum"]
    assert [phase["name"] for phase in plan["phases"]] == ["copy", "steps", "outcome"]
    assert [phase["updates_a_pass"] for phase in plan["phases"]] == [None] * 3
    assert "examples were not counted: model" in plan["notes"][-1]
    assert "no such folder or file" in inspect(data, *arguments[1:], status=2).err


def test_the_old_name_of_the_curriculums_table_says_what_to_write(capsys):
    assert main(["plan-curriculum", "--config", "a b.yaml", "--json"]) == 2
    said = "write: python -m srl inspect --no_prompts --config 'a b.yaml' --json\n"
    assert capsys.readouterr().err == f"srl: error: plan-curriculum has another name; {said}"


def test_wrong_options_are_one_line(inspect, tmp_path):
    data = write_rows(tmp_path / "data.jsonl", expert_rows(12))
    assert "--examples -1: write 0 or more" in inspect(data, "--examples", "-1", status=2).err
    assert "there is no key data.pth" in inspect(data, "--data.pth", "x", status=2).err
