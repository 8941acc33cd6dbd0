"""The committed results of benchmarks, and what docs/RESULTS.md shows of them."""

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def committed(name="ordering"):
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())


def shown(name):
    text = (ROOT / "docs" / "RESULTS.md").read_text()
    return text.partition(f"<!-- {name} -->\n")[2].partition(f"<!-- /{name} -->")[0]
