"""The notebook for a T4: its cells in order on the CPU, with the quick start's model and data, in NF4."""

import json
from pathlib import Path

import matplotlib as mpl
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "notebooks" / "colab_t4.ipynb"


@pytest.fixture(scope="module")
def cells():
    book = json.loads(NOTEBOOK.read_text())
    assert book["nbformat"] == 4
    return [
        (one["metadata"].get("tags", []), "".join(one["source"]), one["outputs"])
        for one in book["cells"]
        if one["cell_type"] == "code"
    ]


def test_the_first_code_cell_is_the_parameters_and_nothing_is_left_of_a_run(cells):
    assert [tags for tags, _, _ in cells] == [["parameters"], *([[]] * (len(cells) - 1))]
    assert not any(outputs for _, _, outputs in cells)


def test_its_cells_run_on_a_cpu(cells, tmp_path, monkeypatch, capfd):
    mpl.use("Agg")
    monkeypatch.chdir(NOTEBOOK.parent)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    names: dict = {}
    (_, parameters, _), *rest = cells
    exec(compile(parameters, "parameters", "exec"), names)
    given = {"TASK": "quickstart", "BASE": "data/quickstart/base", "UPDATES": 2, "RUNS": str(tmp_path)}
    assert set(given) < set(names)
    names.update(given, PROBLEM="3@4@5")
    for number, (_, source, _) in enumerate(rest):
        exec(compile(source, f"cell {number}", "exec"), names)
        if "CONFIG.write_text" in source:
            measure_less(names["CONFIG"])
    said = capfd.readouterr().out
    assert "fits" in said
    assert "Held-out problems and steps" in said
    assert "update 2, step by step" in " ".join(said.split())  # rich breaks the line somewhere
    assert (tmp_path / "last.ckpt").stat().st_size > 0
    assert (tmp_path / "t4.png").stat().st_size > 1000
    config = yaml.safe_load((tmp_path / "t4.yaml").read_text())
    assert (config["model"]["quantization"], config["trainer"]["precision"]) == ("nf4", "32-true")


def measure_less(path: Path) -> None:
    """4-bit weights are slow on a CPU: few held-out problems, greedily, and one draw of two rollouts."""
    config = yaml.safe_load(path.read_text())
    config["model"]["validation"] = {"attempts": 0, "by_steps": False, "share": False}
    config["data"] = {"validation": {"max_examples": 4, "max_solve": 2}}
    config["rollout"] = {"num_generations": 2}
    config["dynamic_sampling"] = {"max_draws": 1}
    path.write_text(yaml.safe_dump(config))


def test_with_gsm8k_and_qwen_it_is_the_config_that_is_planned(cells, tmp_path, monkeypatch):
    """Up to the plan, which needs no weights and no network."""
    monkeypatch.chdir(NOTEBOOK.parent)
    names: dict = {}
    for number, (_, source, _) in enumerate(cells[:3]):
        exec(compile(source, f"cell {number}", "exec"), names)
        names["RUNS"] = str(tmp_path) if number == 0 else names["RUNS"]
    from srl.cli.plan import job_from
    from srl.memory_plan.memory import card
    from srl.memory_plan.plan import make_plan

    monkeypatch.chdir(ROOT)
    job = job_from(["--config", str(names["CONFIG"])], "cuda")
    assert (job.build.nf4, str(job.build.dtype), job.build.autocast) == (True, "torch.float32", False)
    assert card(16).fits(make_plan(job))
