"""The tables of docs/RESULTS.md are those of the committed JSON, computed again from its runs."""

import sys

import pytest
from committed import ROOT, committed, shown

sys.path.insert(0, str(ROOT / "benchmarks"))

import similarity_kinds
from ordering import signals, tables


def test_the_tables_follow_from_the_runs():
    saved = committed()
    again = tables.summary(saved["runs"], saved["tokens"])
    for key in again:
        assert again[key] == saved[key], key
    assert shown("ordering") == tables.report(saved)
    assert shown("signals") == signals.report(saved["runs"])


def test_the_table_of_similarities_follows_from_the_groups():
    groups = committed("similarity")["groups"]
    assert shown("similarity") == similarity_kinds.report(groups)
    assert {one["data"] for one in groups} == {"gsm8k", "numina"}
    assert all(one["autojunk"] == one["character"] for one in groups if one["characters"] < 200)


def test_two_ways_to_compare_by_hand():
    # ranks 1 2 3 by character and 2 1 3 by token, so a correlation of 1 - 6 (1 + 1 + 0) / (3 * 8) = 0.5;
    # means 0.5 and 0.4: the signs are - 0 + and 0 - +, of which none is turned; differences 0.3, 0.4, 0.2
    group = {"character": [0.1, 0.5, 0.9], "token": [0.4, 0.1, 0.7]}
    found = similarity_kinds.compared([group], "token")
    assert found == {"mean": 0.4, "difference": 0.3, "rank": 0.5, "flipped": 0.0}
    # the second group turns two of three: - - + and + - -, and has the opposite order at its ends
    turned = {"character": [0.0, 0.1, 0.8], "token": [0.8, 0.1, 0.0]}
    assert similarity_kinds.compared([group, turned], "token")["flipped"] == pytest.approx(2 / 6, abs=1e-3)
    assert similarity_kinds.compared([turned], "token")["rank"] == -1


def test_nine_methods_and_five_seeds_each_with_its_run_in_mlflow():
    saved = committed()
    pairs = [(run["method"], run["seed"]) for run in saved["runs"]]
    assert sorted(pairs) == sorted((method, seed) for method in tables.METHODS for seed in range(5))
    assert len({run["mlflow_run"] for run in saved["runs"]}) == len(pairs)
    for run in saved["runs"]:
        if run["method"] != "base":  # the update that reaches the budget is the last, and is never cut short
            assert run["curve"][-2]["tokens"] < saved["tokens"] <= run["curve"][-1]["tokens"]


def test_an_interval_by_hand():
    # mean 0.6; both deviate by 0.1: sample deviation sqrt(0.02), standard error 0.1; t = 12.706: 0.6 ± 1.27
    assert tables.interval([0.5, 0.7]) == {
        "mean": 0.6,
        "low": 0.0,
        "high": 1.0,
        "values": [0.5, 0.7],
    }
    assert tables.interval([0.5, 0.7], lowest=-1.0)["low"] == pytest.approx(0.6 - 1.2706)
    # three at 0.1, 0.2, 0.3: standard error 0.1 / sqrt(3), t = 4.303: 0.2 ± 0.2484
    found = tables.interval([0.1, 0.2, 0.3])
    assert (found["low"], found["high"]) == (0.0, 0.4484)
    assert tables.interval([0.5])["low"] is None


def test_a_reading_lies_on_the_line_between_two_validations():
    costs, accuracies = (0.0, 5.0, 11.0), (0.0, 0.4, 1.0)
    curve = [
        {"cpu_seconds": c, "accuracy": a, "step_reward": a} for c, a in zip(costs, accuracies, strict=True)
    ]
    read = [
        tables.at("cpu_seconds", limit)({"curve": curve})["accuracy"]
        for limit in (0.0, 2.5, 5.0, 8.0, 11.0, 99.0)  # 8 is half of the way from 5 to 11
    ]
    assert read == [0.0, 0.2, 0.4, 0.7, 1.0, 1.0]


def test_a_claim_counts_seeds():
    ends = {("srl", 0): 0.5, ("srl", 1): 0.5, ("srl", 2): 0.1, ("base", 0): 0.4, ("base", 1): 0.5,
            ("base", 2): 0.2}  # fmt: skip
    runs = [{"method": m, "seed": s, "curve": [{"accuracy": a}]} for (m, s), a in ends.items()]
    found = tables.claim(runs, tables.at_end, "srl", "base")
    assert (found["held"], found["tied"], found["reversed"]) == (1, 1, 1)
    assert found["gaps"] == [0.1, 0.0, -0.1]
    runs[0]["curve"][0]["accuracy"] = 0.4 + 0.5 / 96  # less than a problem: as between two validations
    assert tables.claim(runs, tables.at_end, "srl", "base")["tied"] == 2


def test_signals_by_hand():
    series = {"rollouts/silent": [[1, 0.5], [2, 0.3], [5, 0.0]], "train/neg_logprob": [[1, 2.0], [5, 1.0]]}
    runs = [
        {"method": "rlvr", "train": series, "hand_off": None,
         "curve": [{"accuracy": 0.25, "format": 1.0, "step_reward": 0.5}]},
    ]  # fmt: skip
    assert signals.in_window(runs, "rollouts/silent", (1, 4)) == 0.4  # (0.5 + 0.3) / 2
    assert signals.by_update(runs, "rollouts/silent") == {1: 0.5, 2: 0.3, 5: 0.0}
    points = [
        {"step": 0, "step_reward": 0.5, "informative": i, "avg": 0, "pass": 0, "accuracy": 0} for i in (0, 1)
    ]
    srl = [{"method": "srl", "curve": [point]} for point in points]
    assert signals.outcome_signal(srl)[0]["informative"] == 0.5
    srl[0]["curve"].append({**points[0], "step": 4})  # one seed alone has it: left out
    assert len(signals.outcome_signal(srl)) == 1


def test_what_keeping_the_history_of_a_play_spares_is_as_measured():
    saved = committed("turns")
    text = " ".join((ROOT / "docs" / "worlds.md").read_text().split())
    seconds, prompts = saved["seconds"], {way: sum(each) for way, each in saved["prefill"].items()}
    assert f"took {seconds['kept']} seconds of the processor instead of {seconds['whole']}, " in text
    assert f"{prompts['kept']:.1f} instead of {prompts['whole']:.1f} of them for prompts" in text
    assert f"{saved['same'][0]} of the {saved['same'][1]} episodes were the same" in text
    assert saved["ratio"] == round(seconds["kept"] / seconds["whole"], 2)
