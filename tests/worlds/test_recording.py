"""`prepare` plays a world's expert: its games become expert JSONL, and what could not be won is said."""

import json
from pathlib import Path

import pytest

from srl.cli.main import main
from srl.data.load import DataReport, load_trajectories
from srl.data.row_format import RowFormat
from srl.errors import ConfigError

CLASS = f"{Path(__file__).parent / 'scripted.py'}:Corridor"


def test_the_experts_plays_are_rows_and_every_other_game_is_accounted_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Seeds 1 to 8 are corridors of as many rooms: one step is too few, seven has no way, eight raises."""
    output = tmp_path / "expert.jsonl"
    main(["prepare", CLASS, "--games", "8", "--first_seed", "1", "-o", str(output), "--json"])
    report = json.loads(capsys.readouterr().out)
    assert report["rows"] == {"read": 8, "kept": 5, "dropped": 3}
    dropped = {reason: found["examples"] for reason, found in report["dropped"].items()}
    assert dropped == {
        "fewer than 2 steps": [f"{CLASS}:seed=1: 1 in 'right'"],
        "the expert did not win": [f"{CLASS}:seed=7: the expert did not win (after 2 actions)"],
        "the play was lost": [f"{CLASS}:seed=8: the play was lost (raised: ValueError: two lines)"],
    }
    first = json.loads(output.read_text().splitlines()[0])
    assert first == {
        "uid": f"{CLASS}:seed=2", "problem": "Walk to room 2.", "preamble": "", "answer": None,
        "steps": [
            {"title": "", "body": "right", "observation": "You are in room 1."},
            {"title": "", "body": "right", "observation": "You are in room 2."},
        ],
        "world": f"{CLASS}:seed=2",
    }  # fmt: skip
    trajectories = load_trajectories(str(output), RowFormat(), DataReport())
    assert [one.world for one in trajectories] == [f"{CLASS}:seed={length}" for length in range(2, 7)]
    assert [len(one.steps) for one in trajectories] == [2, 3, 4, 5, 6]
    assert trajectories[0].to_json() == output.read_text().splitlines()[0]


def test_thinking_by_rule_says_what_the_play_does(tmp_path: Path) -> None:
    output = tmp_path / "tagged.jsonl"
    main(["prepare", CLASS, "--games", "1", "--first_seed", "3", "--tagged", "-o", str(output), "--json"])
    (row,) = map(json.loads, output.read_text().splitlines())
    assert [(step["thinking"], step["body"]) for step in row["steps"]] == [
        ("planning: 3 actions to the goal, first right", "right"),
        ("monitor: 2 to go, again right", "right"),
        ("monitor: 1 to go, again right", "right"),
    ]


@pytest.mark.parametrize(
    ("first_seed", "said"),
    [
        (7, "seed=7: the expert did not win (after 2 actions)."),
        (9, "seed=9: the expert knows no action from the beginning."),
    ],
)
def test_a_world_whose_expert_wins_nothing_is_said_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], first_seed: int, said: str
) -> None:
    output = tmp_path / "expert.jsonl"
    found = main(["prepare", CLASS, "--games", "1", "--first_seed", str(first_seed), "-o", str(output)])
    assert found == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"srl: error: {CLASS}: none of the 1 rows was kept; 1 x the expert ")
    assert line.endswith(
        f"{said} Only games that the expert wins are recorded; docs/worlds.md says how others are played"
    )
    assert not output.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([CLASS], "give --games, how many games to record"),
        ([f"{CLASS}:seed=3", "--games", "2"], "leave out seed"),
        (["none.py:Corridor", "--games", "2"], "world none.py:Corridor: .*No such file"),
        ([CLASS, "--games", "0"], "--games is 0"),
        (
            ["textworld:file=a.z8", "--games", "2"],
            "file=a.z8: a file is one game, not 2; write --games 1, and further files",
        ),
        (["rows.jsonl", "--tagged"], "--tagged: only plays of a world"),
    ],
)
def test_what_cannot_be_recorded_is_one_line_and_leaves_no_file(
    arguments: list[str], said: str, tmp_path: Path
) -> None:
    from srl.cli import prepare

    with pytest.raises(ConfigError, match=said):
        prepare.main([*arguments, "-o", str(tmp_path / "expert.jsonl")])
    assert list(tmp_path.iterdir()) == []


def test_the_recorded_plays_of_textworld_read_as_an_agents(tmp_path: Path) -> None:
    pytest.importorskip("textworld", reason="needs the extra textworld")
    from srl.cli import prepare

    output = tmp_path / "expert.jsonl"
    prepare.main(["textworld:rooms=1,objects=3,length=2", "--games", "3", "-o", str(output), "--json"])
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["uid"] for row in rows] == [
        f"textworld:rooms=1,objects=3,length=2,seed={k}" for k in range(3)
    ]
    assert rows[0]["problem"] == (
        "Ditch the shadfly on the floor of the cellar. You are in the cellar. "
        "You see: safe (open, with shadfly). Exits: none. You carry: legume."
    )
    assert [step["body"] for step in rows[0]["steps"]] == ["take shadfly from safe", "drop shadfly"]
    assert rows[0]["steps"][0]["observation"] == "You take shadfly from safe."


def test_the_game_of_a_file_is_recorded_once_and_several_files_are_several_inputs(tmp_path: Path) -> None:
    pytest.importorskip("textworld", reason="needs the extra textworld")
    from srl.cli import prepare
    from srl.worlds.textworld import TextWorld

    tasks, problems = [], []
    for seed in (3, 4):
        world = TextWorld()
        problems.append(world.reset(f"rooms=2,objects=4,length=3,seed={seed}").text)
        world.game.save(str(tmp_path / f"a,{seed}.json"))
        tasks.append(f"textworld:file={tmp_path / f'a,{seed}.json'}")
    output = tmp_path / "expert.jsonl"
    prepare.main([*tasks, "--games", "1", "--first_seed", "7", "-o", str(output), "--json"])
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [(row["uid"], row["world"], row["problem"]) for row in rows] == [
        (task, task, problem) for task, problem in zip(tasks, problems, strict=True)
    ]
