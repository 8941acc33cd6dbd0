"""Config files that extend one another: the later one wins; its phases replace the earlier ones."""

from pathlib import Path

import pytest
import yaml

from srl.cli.config_files import FORGET_PHASES, with_extended
from srl.cli.lightning import Launch, launched
from srl.cli.main import main
from srl.errors import ConfigError, first_line

ROOT = Path(__file__).resolve().parents[2]
QUICKSTART = "configs/quickstart.yaml"
TASK = ROOT / "data" / "quickstart"


@pytest.fixture
def write(tmp_path):
    def write(name, text):
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write


def phases_of(capsys, *arguments):
    """As the parser of the real command line has them."""
    with pytest.raises(SystemExit):
        main(["fit", *arguments, "--print_config"])
    return yaml.safe_load(capsys.readouterr().out)["curriculum"]["phases"]


def test_phases_are_replaced_whole_by_those_of_a_file_that_extends(write, capsys):
    write("base.yaml", "curriculum: {phases: [{name: a, mix: {srl: 1.0}, lr: 0.5, reset_optimizer: true}]}\n")
    child = write("child.yaml", "extends: base.yaml\ncurriculum: {phases: [{name: b, mix: {rlvr: 1.0}}]}\n")
    for given in (["--config", child], [f"--config={child}"]):
        (phase,) = phases_of(capsys, *given)
        assert (phase["name"], phase["lr"], phase["reset_optimizer"]) == ("b", None, False)


def test_phases_are_replaced_whole_by_those_of_the_command_line(write, capsys):
    file = write("a.yaml", "curriculum: {phases: [{name: a, mix: {srl: 1.0}, lr: 0.5}]}\n")
    for given in (["--curriculum.phases", "[{name: b, mix: {srl: 1.0}}]"],
                  ["--curriculum.phases=[{name: b, mix: {srl: 1.0}}]"]):  # fmt: skip
        (phase,) = phases_of(capsys, "--config", file, *given)
        assert (phase["name"], phase["lr"]) == ("b", None)
    (phase,) = phases_of(capsys, "--config", file, "--curriculum.batch_groups", "3")
    assert phase["lr"] == 0.5  # nobody gave others


def test_the_files_stand_in_the_order_in_which_they_win(write):
    base = write("base.yaml", "trainer: {max_steps: 1}\n")
    child = write("child.yaml", "extends: base.yaml\ncurriculum: {phases: []}\n")
    for given in (["--config", child, "--foo", "-1"], ["--foo", "-1", "-c", child]):
        assert with_extended(["fit", *given]) == [
            "fit", "--config", base, FORGET_PHASES, "--config", child, "--foo", "-1"
        ]  # fmt: skip


def test_an_option_wins_over_a_file_that_stands_after_it(write):
    path = write("old.yaml", "ckpt_path: null\ntrainer: {max_steps: 7}\n")
    options = ["--trainer.max_steps", "99", "--ckpt_path=last", "--config", f"{ROOT / QUICKSTART}"]
    with pytest.raises(ConfigError, match="there is no file"):
        launched(Launch(["fit", *options, "--config", path], runs=False))


@pytest.mark.parametrize("value", ["5", "{file: base.yaml}"])
def test_an_extends_that_is_no_name_is_refused(write, value):
    path = write("child.yaml", f"extends: {value}\n")
    with pytest.raises(ConfigError, match="write the name of a file, or a list of names"):
        with_extended(["fit", "--config", path])


def test_extends_on_the_command_line_is_refused_not_ignored():
    with pytest.raises(ConfigError, match="give several --config"):
        with_extended(["fit", "--extends", QUICKSTART])


def test_the_config_that_is_kept_extends_nothing(write):
    """It is complete: from the artifact's folder the name would lead nowhere."""
    path = write("child.yaml", f"extends: {ROOT / QUICKSTART}\ndata: {{path: {TASK / 'train.jsonl'}}}\n")
    more = [f"--model.base={TASK / 'base'}", f"--data.val_path={TASK / 'heldout.jsonl'}"]
    cli = launched(Launch(["fit", "--config", path, *more], runs=False))
    assert cli.config["fit"].extends is None
    assert cli.config["fit"].dynamic_sampling.epsilon == 0.02  # of the quick start


def test_a_refusal_inside_an_optional_setting_is_what_is_said():
    error = ValueError(
        "Does not validate against any of the Union subtypes\nSubtypes: [...]\nErrors:\n"
        "  - curriculum: until.metric is x; the names of metrics begin with val/\n"
        "  - Expected a <class 'NoneType'>"
    )
    assert first_line(error).startswith("curriculum: until.metric is x; the names")


def test_a_text_that_yaml_takes_for_a_comment_stays_text(write, monkeypatch):
    """`answer_marker` and the prompts may be null: jsonargparse reads their texts as YAML once more."""
    row = 'row: {problem: question, solution: answer, style: lines, answer_marker: "####", remove: "#+ .*"}'
    prompt = 'prompt: {template: raw, step_system: "# Task\\nOne step", solution_system: null}'
    path = write("child.yaml", f"extends: {ROOT / QUICKSTART}\ndata:\n  {row}\n  {prompt}\n")
    monkeypatch.chdir(ROOT)
    data = launched(Launch(["fit", "--config", path, "--data.hub_config=#1"], runs=False)).config["fit"].data
    assert (data.row.answer_marker, data.row.remove) == ("####", "#+ .*")
    assert data.prompt.step_system == "# Task\nOne step"
    assert data.hub_config == "#1"
    assert data.prompt.solution_system is None
    assert data.row.reasoning is None
