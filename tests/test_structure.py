"""The architecture, as tests: which way imports run, what stays light, file lengths, configs that parse."""

import ast
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("srl", "modules", "datamodules", "callbacks")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
PURE = [
    path
    for path in SOURCES
    if path.is_relative_to(ROOT / "srl")
    and path.name != "__main__.py"
    and "cli" not in path.relative_to(ROOT).parts
]
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))


def named(paths):
    return pytest.mark.parametrize("path", paths, ids=lambda path: path.relative_to(ROOT).as_posix())


def imported(text: str) -> set[str]:
    """Top-level packages that a source imports anywhere, except for type checking alone.

    >>> sorted(imported("import a.b, c\\nfrom d.e import f\\nif TYPE_CHECKING:\\n    import g"))
    ['a', 'c', 'd']
    """
    found: set[str] = set()

    def walk(node: ast.AST) -> None:
        if isinstance(node, ast.Import):
            found.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "write absolute imports"
            found.add((node.module or "").split(".")[0])
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            for child in node.orelse:
                walk(child)
            return
        for child in ast.iter_child_nodes(node):
            walk(child)

    walk(ast.parse(text))
    return found


def imports_of(path: Path) -> set[str]:
    return imported(path.read_text())


def test_the_files_are_found():
    assert {path.relative_to(ROOT).as_posix() for path in SOURCES} >= {
        "srl/curriculum/stream.py", "srl/engine/engine.py", "modules/policy.py", "datamodules/expert.py",
        "callbacks/dynamic_sampling.py",
    }  # fmt: skip
    assert len(PURE) < len([path for path in SOURCES if "srl" in path.relative_to(ROOT).parts])
    assert CONFIGS


@named(PURE)
def test_srl_knows_neither_lightning_nor_what_is_built_on_it(path):
    upwards = {"lightning", "lightning_fabric", "pytorch_lightning", "modules", "datamodules", "callbacks"}
    assert not imports_of(path) & upwards


def module_of(path: Path) -> str:
    """srl/data/load.py -> srl.data.load; a package goes by its folder."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def room_of(path: Path) -> str:
    """The folder under `srl`, a file on its ground, or one of the three packages beside it."""
    parts = path.relative_to(ROOT).parts
    return parts[0] if parts[0] != "srl" else "/".join(parts[:2])


def arrows() -> dict[Path, set[Path]]:
    """Every file of ours, and the files of ours that it imports anywhere, for type checking as well."""
    files = {module_of(path): path for path in SOURCES}
    found: dict[Path, set[Path]] = {path: set() for path in SOURCES}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
                names = [name if name in files else str(node.module) for name in names]
            found[path] |= {files[name] for name in names if name in files} - {path}
    return found


def circle(graph: dict[Path, set[Path]]) -> list[Path]:
    """The first circle in the graph, [] for none.

    >>> one, two = Path("a"), Path("b")
    >>> circle({one: {two}, two: set()}), circle({one: {two}, two: {one}}) == [one, two, one]
    ([], True)
    """
    done: set[Path] = set()

    def walk(node: Path, way: list[Path]) -> list[Path]:
        if node in way:
            return [*way[way.index(node) :], node]
        if node not in done:
            for child in sorted(graph[node]):
                if found := walk(child, [*way, node]):
                    return found
            done.add(node)
        return []

    return next((found for node in sorted(graph) if (found := walk(node, []))), [])


def test_no_files_import_each_other_in_a_circle():
    assert [path.relative_to(ROOT).as_posix() for path in circle(arrows())] == []


def test_rooms_depend_one_way_in_the_order_of_the_architecture_page():
    table = (ROOT / "docs" / "architecture.md").read_text().partition("| room |")[2].partition("\n\n")[0]
    order = re.findall(r"^\| `([\w/.]+)` \|", table, re.MULTILINE)
    assert set(order) == {room_of(path) for path in SOURCES if path.read_text().strip()}
    upwards = [
        f"{path.relative_to(ROOT)} imports {other.relative_to(ROOT)}"
        for path, others in arrows().items()
        for other in others
        if order.index(room_of(other)) > order.index(room_of(path))
    ]
    assert upwards == []


@pytest.mark.parametrize(
    "statement", ["import srl", "import srl.cli.main", "import srl.cli.main; srl.cli.main.main(['--help'])"]
)
def test_the_first_import_is_light(statement):
    heavy = "torch", "transformers", "lightning", "datasets", "mlflow", "peft", "numpy"
    code = f"{statement}\nimport sys\nsys.exit(' '.join(sorted(set({heavy}) & set(sys.modules))) or 0)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


@named(SOURCES)
def test_a_file_has_at_most_400_lines(path):
    """A thought is not cut where a counter says: from 300 lines on this only warns."""
    lines = len(path.read_text().splitlines())
    if lines > 300:
        warnings.warn(f"{path.relative_to(ROOT)} has {lines} lines: does it hold two thoughts?", stacklevel=1)
    assert lines <= 400


@pytest.fixture
def parse(monkeypatch):
    """The command line's own parser and checks, stopped before anything is built."""
    from srl.cli.lightning import SRLCLI, Launch, launched

    monkeypatch.setattr(SRLCLI, "instantiate_classes", lambda self: None)
    monkeypatch.setattr(SRLCLI, "_run_subcommand", lambda self, subcommand: None)
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.argv", ["srl"])  # Lightning warns when both are given
    return lambda *arguments: launched(Launch(["fit", *arguments])).config["fit"]


@named([path for path in CONFIGS if path.parent.name not in ("ordering", "methods", "gpu")])
def test_every_config_parses(path, parse):
    """All but those that tests/cli/test_configs.py runs and tests/memory_plan/test_plan.py plans."""
    config = parse("--config", str(path))
    assert config.model.base
    assert config.data.path
    assert config.curriculum.phases


@named(CONFIGS)
def test_every_config_begins_with_its_command_and_its_question(path):
    command, question = path.read_text().splitlines()[:2]
    assert command.startswith("# python -m srl ")
    assert path.relative_to(ROOT).as_posix() in command
    assert question.startswith("# Question: ")


def test_a_config_with_an_unknown_key_does_not_parse(parse, tmp_path):
    from srl.errors import ConfigError

    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(
        (ROOT / "configs" / "quickstart.yaml").read_text() + "\nrollouts: {num_generations: 4}\n"
    )
    with pytest.raises(ConfigError, match="rollouts"):
        parse("--config", str(wrong))


def test_what_is_imported_is_declared():
    """Nothing is there only because another package brings it along."""
    tomllib = pytest.importorskip("tomllib")  # from Python 3.11 on
    from importlib.metadata import packages_distributions

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    own = ("vllm", "textworld", "textworld-express", "scienceworld", "gymnasium", "reasoning-gym")
    wanted = [*project["dependencies"], *(line for name in own for line in extras[name])]
    declared = {re.split(r"[^\w.-]", line)[0].lower().replace("_", "-") for line in wanted}
    found = {name for path in SOURCES for name in imports_of(path)} - set(sys.stdlib_module_names)
    owners = packages_distributions()
    for name in sorted(found - {*PACKAGES, *(name.replace("-", "_") for name in own)}):
        called = {
            owner.lower().replace("_", "-").removesuffix("-skinny") for owner in owners.get(name, [name])
        }
        assert called & declared, f"{name}: declare it in pyproject.toml"


def test_the_top_folders_are_those_of_the_house():
    """A file of a new kind needs a folder that somebody has thought of."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    folders = {line.partition("/")[0] for line in listed.splitlines() if "/" in line}
    python = {"benchmarks", "callbacks", "datamodules", "modules", "srl", "tests"}
    assert folders == python | {".ci", "configs", "data", "docs", "notebooks"}
