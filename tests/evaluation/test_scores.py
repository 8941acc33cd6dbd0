"""Records and the figures of a benchmark, against counts done by hand."""

from dataclasses import replace
from itertools import combinations
from math import comb

import pytest
import torch

from srl.data.trajectory import Trajectory
from srl.evaluation.metrics import bootstrap_means, percentile_interval
from srl.evaluation.scores import mean_score, prediction_of, problem_rows, records_of, score
from srl.evaluation.solving import Solved
from srl.types import Episode


def solved(correct=False, answer="1", finished=True, in_format=True, words=2, tokens=3, steps=()):
    return Solved(
        "p", f"is {answer}", finished, in_format, words, tokens, correct, answer=answer, steps=steps
    )


def trajectory(uid):
    return Trajectory(uid, f"{uid}?", "", (), "7")


def samples(right, answers):
    return [solved(correct=r, answer=a) for r, a in zip(right, answers, strict=True)]


@pytest.fixture
def records():
    """Two problems, three samples each: right 2 and 1 of 3."""
    return records_of(
        "b",
        [trajectory("p"), trajectory("q")],
        [
            solved(True, "7", words=10, tokens=20),
            solved(False, None, finished=False, in_format=False, words=30, tokens=60),
        ],
        [samples([True, False, True], ["7", "8", "7.0"]), samples([False, True, False], ["8", "7", None])],
    )


def test_a_record_says_all_that_is_needed_to_read_it(records):
    first, second = records
    assert {k: v for k, v in first.items() if k != "samples"} == {
        "id": "p", "benchmark": "b", "problem": "p?", "gold": "7", "response": "is 7", "answer": "7",
        "correct": True, "finished": True, "in_format": True, "words": 10, "tokens": 20,
    }  # fmt: skip
    assert [s["class"] for s in first["samples"]] == [0, 1, 0]  # 7.0 is 7
    assert [s["class"] for s in second["samples"]] == [0, 1, -1]
    assert [s["correct"] for s in second["samples"]] == [False, True, False]
    assert records_of("b", [trajectory("p")], [solved()])[0]["samples"] == []


def test_a_prediction_judges_nothing():
    found = prediction_of("b", trajectory("p"), solved(steps=("a", "b")))
    assert found["steps"] == ["a", "b"]
    assert not {"correct", "gold", "samples"} & found.keys()


def test_the_figures_by_hand(records):
    found = score("b", records, (1, 2, 3), resamples=100, seed=0)
    assert found.problems == 2
    assert found.values == pytest.approx(
        {
            "accuracy": 1 / 2,
            "avg_at_3": (2 / 3 + 1 / 3) / 2,
            "pass_at_1": (2 / 3 + 1 / 3) / 2,
            "pass_at_2": (1 + (1 - comb(2, 2) / comb(3, 2))) / 2,  # one wrong: any two; two wrong: 2 of 3
            "pass_at_3": 1.0,
            "maj_at_3": (1 + 1 / 2) / 2,  # 7 has two votes; 8 and 7 tie, the silent one has no vote
            "format": 1 / 2,
            "truncated": 1 / 2,
            "words": 20.0,
            "tokens": 40.0,
        }
    )
    assert set(found.intervals) == {"accuracy", "avg_at_3", "pass_at_1", "pass_at_2", "pass_at_3", "maj_at_3"}
    assert sum(found.histograms["words"]["responses"]) == 2
    assert dict(zip(*found.histograms["tokens"].values(), strict=True))[16] == 1  # 20 tokens
    assert dict(zip(*found.histograms["tokens"].values(), strict=True))[32] == 1  # 60 tokens


def test_plays_have_no_answer_to_vote_for():
    """Three that were won ended alike, which makes them no majority over five that were lost in five ways."""
    ends = ["won", "won", "won", "lost", "turns", "tokens", "format", "gone"]
    plays = [replace(solved(end == "won", None), episode=Episode(end, 1)) for end in ends]
    made = records_of("b", [trajectory("p")], plays[:1], [plays])
    found = score("b", made, (8,), 10, 0)
    assert (found.values["avg_at_8"], found.values["pass_at_8"]) == (3 / 8, 1.0)
    assert "maj_at_8" not in found.values
    assert [one["end"] for one in made[0]["samples"]] == ends
    (row,) = problem_rows(made)
    assert (row["end"], row["greedy_answer"], row["right_of_8"]) == ("won", None, 3)
    assert "maj_at_8" not in row


def test_the_figures_of_plays_by_hand():
    """Of four tasks the first is won in two turns, the others are not; sampled twice each."""
    won = Episode("won", 2, 1.0, seen=("a hall", "you win"))
    lost = Episode("turns", 4, 0.5, invalid=3, repeated=1, seen=("no", "no", "no", "a hall"))
    gone = Episode("gone", 0)

    def played(episode, steps=()):
        return replace(solved(episode.won, None, steps=steps), episode=episode)

    greedy = [played(won, ("go", "win")), played(lost, ("a", "a", "b", "go")), played(gone)]
    greedy.append(played(Episode("format", 1), ("what is this",)))
    samples = [
        [played(won), played(lost)],
        [played(won)] * 2,
        [played(lost)] * 2,
        [played(gone), played(won)],
    ]
    made = records_of("b", [trajectory(name) for name in "pqrs"], greedy, samples)
    found = score("b", made, (2,), 10, 0)
    assert found.values == pytest.approx(
        {
            "accuracy": 1 / 4, "avg_at_2": (1 + 2 + 0 + 1) / 8, "pass_at_2": 3 / 4, "informative": 2 / 4,
            "score": 1.5 / 4, "turns": 7 / 4, "invalid": (3 / 4) / 4, "repeated": (1 / 4) / 4,
            "format": 1.0, "truncated": 0.0, "words": 2.0, "tokens": 3.0,
        }
    )  # fmt: skip
    assert {"score", "turns", "invalid", "repeated", "informative"} < found.intervals.keys()
    assert made[1]["seen"] == ["no", "no", "no", "a hall"]
    first, *_, last = problem_rows(made)
    assert (first["turns"], first["informative"], first["end"]) == (2, 1, "won")
    assert first["response"] == "> go\na hall\n> win\nyou win"
    assert last["response"] == "> what is this"
    alone = score("b", records_of("b", [trajectory("p")], greedy[:1]), (), 10, 0)
    assert "informative" not in alone.values
    assert alone.values["turns"] == 2


def test_greedy_alone_has_no_sampled_figures():
    found = score("b", records_of("b", [trajectory("p")], [solved(True)]), (), 10, 0)
    assert found.values == {"accuracy": 1.0, "format": 1.0, "truncated": 0.0, "words": 2.0, "tokens": 3.0}
    assert found.intervals == {"accuracy": (1.0, 1.0)}


def test_intervals_hold_the_value_and_depend_on_seed_and_name_alone(records):
    many = records * 20
    found = score("b", many, (2,), 2000, 1)
    for figure, (low, high) in found.intervals.items():
        assert low <= found.values[figure] <= high, figure
    # accuracy is 1 and 0 in turn, 40 problems: 1/2 +- 1.96 sqrt(1/4 / 40) = +- 0.155
    low, high = found.intervals["accuracy"]
    assert (low, high) == (pytest.approx(0.345, abs=0.03), pytest.approx(0.655, abs=0.03))
    assert score("b", many, (2,), 2000, 1).intervals == found.intervals
    assert score("c", many, (2,), 2000, 1).draws["accuracy"].tolist() != found.draws["accuracy"].tolist()


def test_the_metrics_are_named_for_mlflow(records):
    names = score("b", records, (2,), 10, 0).metrics("test")
    assert {
        "test/b/accuracy",
        "test/b/accuracy_low",
        "test/b/accuracy_high",
        "test/b/pass_at_2_low",
    } <= names.keys()
    assert "test/b/words_low" not in names


def test_the_mean_counts_each_benchmark_once(records):
    sampled = score("b", records, (2,), 4000, 0)  # 2 problems: accuracy 1/2, avg_at_3 1/2
    greedy = score(
        "g",
        records_of("g", [trajectory(str(k)) for k in range(8)], [solved(k < 2) for k in range(8)]),
        (),
        4000,
        0,
    )
    mean = mean_score([sampled, greedy])
    assert mean.problems == 10
    assert mean.values["accuracy"] == pytest.approx((1 / 2 + 2 / 8) / 2)
    assert mean.values["avg_at_3"] == pytest.approx(1 / 2)  # of the one that has it
    assert mean.values["mean_of_figures"] == pytest.approx((1 / 2 + 1 / 2 + 2 / 8) / 3)
    low, high = mean.intervals["accuracy"]
    assert low < mean.values["accuracy"] < high
    # drawn apart from each other their variances add up: (1/2 * 1/2 / 2 + 1/4 * 3/4 / 8) / 4 = 0.0371
    assert float(mean.draws["accuracy"].var()) == pytest.approx(0.0371, rel=0.1)


def test_the_interval_is_the_bootstrap_of_the_figures_of_each_problem(records):
    """pass@2 of each problem by all pairs of its three samples."""
    many = records * 5
    by_pairs = [
        [sum(any(p) for p in combinations([s["correct"] for s in r["samples"]], 2)) / 3] for r in many
    ]
    found = score("b", many, (2,), 500, 9)
    expected = percentile_interval(bootstrap_means(torch.tensor(by_pairs), 500, 9))
    assert found.draws["pass_at_2"].mean().item() == pytest.approx(
        torch.tensor(by_pairs).mean().item(), abs=0.02
    )
    assert found.intervals["pass_at_2"] == pytest.approx([float(x) for x in expected], abs=0.07)
