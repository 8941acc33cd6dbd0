"""The docs: their commands run, the messages they quote are the program's, their links lead somewhere."""

import io
import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
from compared import three_runs
from conftest import forget_store

from srl.cli.commands import COMMANDS
from srl.cli.main import main

ROOT = Path(__file__).resolve().parent.parent
PAGES = (
    "method", "data", "curriculum", "comparing", "architecture", "troubleshooting", "configuration", "speed",
    "gpu", "running", "worlds", "test_time", "judges",
)  # fmt: skip
DOCS = [ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in PAGES)]
SHORT = [  # what a test adds to a training that a reader lets run
    "--trainer.max_steps", "1", "--data.validation.max_examples", "4", "--data.validation.max_solve", "2",
    "--model.validation.attempts", "0", "--trainer.enable_progress_bar", "false",
    "--rollout.num_generations", "2", "--dynamic_sampling.max_draws", "1",
]  # fmt: skip


def blocks(path):
    """(marker, language, lines) of every code block; the marker is the comment on the line before."""
    found = re.findall(r"(?:<!-- ([^\n]*) -->\n)?```(\w*)\n(.*?)```", path.read_text(), re.DOTALL)
    return [(marker, language, body.strip().splitlines()) for marker, language, body in found]


COMMAND_LINES = [
    pytest.param(line, id=f"{path.stem}: {line}")
    for path in DOCS
    for marker, language, lines in blocks(path)
    if language == "bash" and marker == "run"
    for line in lines
]


def test_every_command_is_run_or_says_what_it_needs():
    for path in DOCS:
        for marker, language, lines in blocks(path):
            assert language, (path.name, lines)
            if language == "bash":
                assert marker == "run" or marker.startswith("not run: needs"), (path.name, lines)
                assert all(line.startswith("python -m srl ") for line in lines), (path.name, lines)
            else:
                assert not any(line.startswith("python -m srl ") for line in lines), (path.name, lines)
    assert len(COMMAND_LINES) >= 8


@pytest.fixture
def place(logging_ready, model_folder, tmp_path, monkeypatch):
    """A folder as a reader has it: configs, docs, data, and three runs, one in the quick start's place."""
    made = three_runs(model_folder)
    for name in ("configs", "docs", "data"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copy(made.folder / "mlflow.db", tmp_path)
    shutil.copytree(made.folder / "steps-0", tmp_path / "runs" / "quickstart")
    monkeypatch.chdir(tmp_path)
    forget_store()
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr("sys.stdin", io.StringIO("5:\n"))
    return tmp_path


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_the_command_runs(line, place, monkeypatch, capsys):
    from srl.cli import sweep

    def shortened(command, log):
        monkeypatch.setattr("sys.stdout", io.StringIO())
        return main([*command[3:], *SHORT])

    monkeypatch.setattr(sweep, "run_process", shortened)
    arguments = shlex.split(line)[3:]
    assert arguments[0] in COMMANDS
    assert main(arguments) == 0, capsys.readouterr().err
    output = re.search(r"--output (\S+)", line)
    assert output is None or any((place / output[1]).iterdir())


def test_quoted_messages_are_the_programs_own():
    """Text of the sources with its string literals joined, as they are when they are printed."""
    sources = [
        path
        for part in ("srl", "callbacks", "modules", "datamodules")
        for path in (ROOT / part).rglob("*.py")
    ]
    code = "\n".join(re.sub(r"\"\n\s*f?\"", "", path.read_text()) for path in sources)
    quoted = re.findall(r"^> (.*)$", (ROOT / "docs" / "troubleshooting.md").read_text(), re.MULTILINE)
    assert len(quoted) >= 8
    for line in quoted:
        for part in line.split(" ... "):
            assert part in code, part


def test_links_lead_somewhere():
    for path in DOCS:
        for target in re.findall(r"\]\(([^)]+)\)", path.read_text()):
            if target.startswith("http"):
                continue
            name, _, anchor = target.partition("#")
            file = path.parent / name if name else path
            assert file.exists(), (path.name, target)
            if not anchor:
                continue
            heads = [re.sub(r"[^\w -]", "", line.lstrip("# ").strip().lower()).replace(" ", "-")
                     for line in file.read_text().splitlines() if line.startswith("#")]  # fmt: skip
            assert anchor in heads, (path.name, target)


def test_files_that_the_docs_name_are_there():
    for path in DOCS:
        for name in re.findall(r"`((?:srl|configs|callbacks|modules|docs)/[\w/.]+)`", path.read_text()):
            assert (ROOT / name).exists(), (path.name, name)


def test_the_figures_of_speed_are_those_measured():
    measured = json.loads((ROOT / "benchmarks" / "results" / "throughput.json").read_text())
    text = (ROOT / "docs" / "speed.md").read_text()
    names = ("step", "trl_rollout", "trl_update", "memory", "rollout", "update")
    expected = [*(measured[f"{name}_ratio"] for name in names), measured["decode_vs_gemm"]]
    rows = re.search(r"<!-- throughput -->\n(.*?)<!-- end -->", text, re.DOTALL)[1].splitlines()[2:]
    assert [float(row.split("|")[2]) for row in rows] == expected
    rows = re.search(r"<!-- tricks -->\n(.*?)<!-- end -->", text, re.DOTALL)[1].splitlines()[2:]
    tricks = {row.split("|")[1].strip().replace(" ", "_"): float(row.split("|")[2]) for row in rows}
    assert tricks == measured["tricks"]
    readme = re.search(
        r"takes ([\d.]+) of the CPU time .* and ([\d.]+) of its memory", (ROOT / "README.md").read_text()
    )
    assert float(readme[1]) == round(1 / measured["step_ratio"], 2)
    assert float(readme[2]) == round(measured["memory_ratio"], 2)


def test_the_configuration_is_up_to_date():
    sys.path.append(str(ROOT / "docs"))
    from make_configuration import text

    written = (ROOT / "docs" / "configuration.md").read_text()
    assert text() == written, "run: python docs/make_configuration.py"


def test_the_sizes_of_worlds_are_those_measured():
    measured = json.loads((ROOT / "benchmarks" / "results" / "world_sizes.json").read_text())
    table = re.search(
        r"<!-- sizes -->\n(.*?)<!-- end -->", (ROOT / "docs" / "worlds.md").read_text(), re.DOTALL
    )[1]
    for row, size in zip(table.splitlines()[2:], measured["sizes"], strict=True):
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        options = size["world"].removeprefix("textworld:").split(",")
        assert cells[:3] == [
            ", ".join(option.split("=")[1] for option in options), str(size["turns"]),
            f"{size['random_player_wins']} of {measured['games']}",
        ]  # fmt: skip
        tokens = [size["tokens"][name]["mean"] for name in ("task", "action", "observation")]
        expected = [size["expert_actions"]["mean"], size["admissible_at_first"], *tokens]
        assert [float(cell) for cell in cells[3:]] == [round(value, 1) for value in expected]


def test_the_world_that_the_docs_write_is_recorded(tmp_path, monkeypatch, capsys):
    """Seeds 0 to 4 are corridors of 2 to 6 rooms: 20 actions in all."""
    (body,) = [lines for _, language, lines in blocks(ROOT / "docs" / "worlds.md") if language == "python"]
    (tmp_path / "maze.py").write_text("\n".join(body))
    monkeypatch.chdir(tmp_path)
    assert main(["prepare", "maze.py:Maze", "--games", "5", "-o", "maze.jsonl", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["rows"]["kept"], report["steps"]["all"]) == (5, 20)
