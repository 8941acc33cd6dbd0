"""The committed results of benchmarks/kill.py and benchmarks/soak.py hold what is claimed of them."""

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"


def test_every_killed_run_went_on_as_if_it_had_not_been():
    found = json.loads((RESULTS / "kill.json").read_text())
    assert found["moments"] == found["equal"] == len(found["trials"]) == 20
    assert found["processes_killed"] == sum(trial["killed"] for trial in found["trials"]) >= 20
    for trial in found["trials"]:
        assert (trial["state"], trial["metrics"]) == ("bitwise equal", "equal")
        assert not trial["doubled_steps"]
        assert not trial["processes_left"]
    kinds = {trial["kind"] for trial in found["trials"] if trial["killed"]}
    assert kinds >= set(found["calls_of_each_kind"])


def test_memory_and_files_stay_flat_over_two_thousand_updates():
    found = json.loads((RESULTS / "soak.json").read_text())
    assert found["updates"] == 2000
    assert abs(found["rss_mb_per_100_updates"]) < 1
    assert found["files"][0] == found["files"][1]
    text = (ROOT / "docs" / "architecture.md").read_text()
    assert f"grew by {found['rss_mb_per_100_updates']} MB" in text
    assert f"in {found['query_seconds_late_to_early']} times" in text


def test_a_run_whose_vllm_server_was_killed_went_on_by_the_next_one():
    found = json.loads((RESULTS / "vllm.json").read_text())
    runs = found["runs"]
    (kill,) = runs["server"]["draw_of_the_kill"]
    assert 1 < kill["draw"] < runs["server"]["draws"]
    assert runs["server"]["starts"] == 2
    assert {len(run["solved"]) for run in runs.values()} == {len(runs["own"]["solved"])}
    text = " ".join((ROOT / "docs" / "scale.md").read_text().split())
    for name, cost in found["cpu_of_a_draw_over_our_own"].items():
        gap = runs[name]["gap_a_token"]["most"]
        assert gap < 0.02
        assert f"{gap:.4f}" in text
        assert f"{cost:.1f}" in text
