"""The comparison in text games: every method is a config, and the table follows from the figures."""

import json
import sys
from argparse import Namespace
from pathlib import Path

import pytest
from committed import ROOT, committed, shown

sys.path.insert(0, str(ROOT / "benchmarks"))

import worlds
import worlds_plot
from fits import Earlier

from srl.cli.lightning import instantiated


@pytest.mark.parametrize("first", [None, 7])
def test_every_method_is_a_config_that_goes_on_from_its_start(first):
    chosen = Namespace(
        base="gemma3_270m",
        size="science",
        start=4,
        sft_updates=30,
        first=first,
        rate=2e-4,
        tokens=100,
        max_turns=3,
    )
    for method, (_, phases) in worlds.METHODS.items():
        if first is not None and len(phases) < 2:
            continue  # nothing hands over
        fit = worlds.fit_of(Path("made"), (Path("a.jsonl"), Path("b.jsonl")), method, 1, chosen)
        given, start = (
            dict(zip(fit.arguments[::2], fit.arguments[1::2], strict=True)),
            worlds.start_of(method),
        )
        gone_on = given.pop("--ckpt_path", None)
        assert gone_on == (None if method == start else f"made/checkpoints/{start}-1/last.ckpt")
        flat = [text for pair in given.items() for text in pair]
        config = instantiated([*flat, "--trainer.logger", "false"])
        found = config.curriculum.schedule.phases
        named = method.split("_")[: max(1, len(phases))]
        assert [phase.name for phase in found] == ["start", *(named if method != start else [])]
        assert len(found) == 1 + len(phases)
        assert [phase.until.updates for phase in found[:-1]] == [
            *([4] if phases else []), *(first or worlds.FIRST[phase.name] for phase in found[1:-1]),
        ]  # fmt: skip
        rates = {"srl_slow": {1e-4}, "sft": {1e-3}, "sft_episode": {1e-3, 2e-4}}
        assert {phase.lr for phase in found[1:]} == (rates.get(method, {2e-4}) if phases else set())
        assert config.rollout.sampling.temperature == (1.3 if method == "srl_warm" else 1.0)
        assert config.rollout.num_generations == (16 if method == "srl_wide" else 8)
        assert (config.curriculum.choice.adaptive is not None) == (method == "srl_adaptive")
        assert config.data.draw == ("step" if "_apart" in method else "problem")
        paid = config.reward.options
        options = (paid.floor, paid.copying and paid.copying.penalty, paid.exact and paid.exact.bonus)
        assert options == {
            "srl_floor": (True, None, None), "srl_copying": (False, 1, None), "srl_exact": (False, None, 0.5),
            "srl_apart_copying": (False, 1, None),
        }.get(method, (False, None, None))  # fmt: skip
        assert config.trainer.max_steps == {start: 4, "sft": 30}.get(method, 100_000)


def test_games_beyond_the_recorded_ones_have_no_steps_and_unseen_ones_begin_as_none(tmp_path, monkeypatch):
    def record(path, size, first, count, *more):
        worlds.write(path, [{"problem": f"{first % 7 + number}", "steps": [1]} for number in range(count)])

    monkeypatch.setattr(worlds, "record", record)
    train, unseen = worlds.games(tmp_path, "rooms=1", 3, 5, 6)
    assert [len(row["steps"]) for row in worlds.read(train)] == [1, 1, 1, 0, 0, 0, 0, 0]
    assert [row["problem"] for row in worlds.read(unseen)] == ["8", "9", "10"]  # 5, 6 and 7 are trained on


def test_the_table_shows_means_over_seeds_and_success_with_its_standard_error():
    figures = {"success": 0.2, "turns": 5.0, "invalid": 0.5, "repeated": 0.25, "format": 0.0, "exact": 0.1}
    run = {
        "method": "sft", "seed": 0, "updates": 9, "tokens": 1000.0, "cpu_seconds": 60, "step_reward": 0.3,
        **figures,
    }  # fmt: skip
    other = run | {"seed": 1, "success": 0.4, "updates": 11, "tokens": 2000.0}
    result = {"base": figures | {"success": 0.0}, "unseen": 100, "runs": [run, other]}
    base, sft = worlds.report(result).splitlines()[2:]
    assert base.startswith("| base |  |  |  |  | 0.00 ± 0.00 |  | 5.00 |")
    assert sft.startswith(
        "| SFT on the expert's actions | 2 | 10 | 1,500 | 60 | 0.30 ± 0.05 | 0.20 0.40 | 5.00 | 0.50 |"
    )


@pytest.mark.parametrize(
    "name",
    [
        "worlds",
        "worlds_play",
        "worlds_few",
        "worlds_three_rooms",
        "worlds_by_heart",
        "worlds_long",
        "worlds_gemma",
        "worlds_science",
        "worlds_science_seeds",
    ],
)
def test_the_table_follows_from_the_committed_runs(name):
    assert shown(name) == worlds.report(committed(name))


@pytest.mark.parametrize(
    "name", ["worlds_few", "worlds_three_rooms", "worlds_long", "worlds_science", "worlds_science_seeds"]
)
def test_the_comparison_by_game_follows_from_the_games_that_each_run_won(name):
    result = committed(name)
    for run in result["runs"]:
        assert len(run["won"]) == result["unseen"]
        assert run["won"].count("1") / result["unseen"] == pytest.approx(run["success"], abs=5e-5)
    assert shown(f"{name}_games") == worlds.by_game(result)


def test_by_game_each_rival_is_of_the_same_seed_and_the_start_is_only_a_rival():
    assert worlds.against([("1110", "0001"), ("11", "00")]) == "3:1 2:0 (p = 0.22)"  # (1 + 6) / 32 from 5 : 1
    assert worlds.against([("10", "10")]) == "0:0 (p = 1)"
    assert worlds.against([("1" * 11, "0" * 11)]) == "11:0 (p < 0.001)"  # 2 / 2048
    runs = [("start", 0, "0000"), ("start", 1, "1000"), ("srl", 0, "0110"), ("srl", 1, "0111"),
            ("episode", 1, "0011")]  # fmt: skip
    result = {"runs": [dict(zip(("method", "seed", "won"), run, strict=True)) for run in runs]}
    assert worlds.by_game(result).splitlines()[2:] == [
        "| SRL | 2:0 3:1 (p = 0.22) |  | 1:0 (p = 1) |",
        "| RLVR (episodes) | 2:1 (p = 1) | 0:1 (p = 1) |  |",
    ]


def test_runs_of_an_earlier_result_stand_beside_new_ones_of_the_same_games(tmp_path):
    path, base = tmp_path / "earlier.json", {"success": 0.1}
    first = {"method": "sft", "seed": 1, "success": 0.3}
    path.write_text(json.dumps({"command": "before", "unseen": 4, "base": base, "runs": [first]}))
    earlier = Earlier(path)
    assert ("sft", 1) in earlier
    assert ("sft", 0) not in earlier
    new = [{"method": "srl", "seed": 0}, {"method": "sft", "seed": 1, "success": 0.4}]
    found = earlier.beside({"command": "now", "unseen": 4, "base": {}, "runs": new}, ["sft", "srl"])
    assert found == {"command": "now", "unseen": 4, "base": base, "runs": [first, new[0]]}
    with pytest.raises(ValueError, match="unseen is 4, here it is 5: another experiment"):
        earlier.beside({"unseen": 5, "runs": []}, [])


def test_the_picture_shows_the_committed_runs_and_is_drawn_from_them(tmp_path):
    results = worlds_plot.committed()
    for (_, wins), result in zip(worlds_plot.panels(results), results.values(), strict=True):
        assert next(iter(wins)) == "the start"
        assert sorted(won for row in wins.values() for won in row) == sorted(
            run["success"] for run in result["runs"]
        )
    drawn, kept = tmp_path / "worlds.png", worlds_plot.RESULTS / "worlds.png"
    assert worlds_plot.digest(results).encode() in kept.read_bytes()
    one = {"worlds_long": results["worlds_long"], "worlds_science": results["worlds_science"]}
    worlds_plot.draw(one, drawn)
    assert worlds_plot.digest(one).encode() in drawn.read_bytes()
    assert worlds_plot.digest(one) != worlds_plot.digest(results)
