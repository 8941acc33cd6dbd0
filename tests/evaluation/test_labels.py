"""Values of prefixes, the labels of steps that follow from them, and the file that is gone on with."""

import json
import math
from pathlib import Path

import pytest
import torch
from conftest import fit
from make import RAW

from srl.data.trajectory import Step, Trajectory
from srl.errors import ConfigError, DataError
from srl.evaluation.labels import LabelSettings, agreement, labels_of
from srl.evaluation.prefix_values import Valued, ValueSettings, first_error, valued
from srl.evaluation.value_figures import bands, label_agreement, largest_rises, positions
from srl.evaluation.value_file import ValueFile, read_values
from srl.examples.builder import ExampleBuilder, ResponseLimits
from srl.examples.prompts import PromptRenderer
from srl.types import Completion

# With alpha 0.4 and n 4, of Q_i after Q_{i-1}:
#   1/2 after 1/2   ratio 1     0.5 + 0                                          all positive
#   1/4 after 1/2   ratio 0.5   0.25 + 0.4 (0.5^4 - 0.75^4) = 0.25 - 0.102       rel_ratio alone negative
#   1/8 after 1     ratio 0.125 0.125 + 0.4 (0 - 0.875^4) = 0.125 - 0.234        abs_q alone positive
#   0 after 1/4     ratio 0     0 + 0.4 (0.75^4 - 1) = -0.273                    all negative
#   0 after 0       no ratio    0 + 0                                            all negative
#   1/8 after 0     infinite    0.125 + 0.4 (1 - 0.875^4) = 0.125 + 0.166        all positive
CASES = [
    (1 / 2, 1 / 2, (True, True, True)),
    (1 / 4, 1 / 2, (True, True, False)),
    (1 / 8, 1, (True, False, False)),
    (0, 1 / 4, (False, False, False)),
    (0, 0, (False, False, False)),
    (1 / 8, 0, (True, True, True)),
]


@pytest.mark.parametrize(("value", "before", "expected"), CASES)
def test_the_three_labels_by_hand(value, before, expected):
    found = labels_of([before, value], LabelSettings(alpha=0.4, best_of=4, gamma=0.8))
    assert tuple(found[name] for name in ("abs_q", "rel_effective", "rel_ratio")) == tuple(
        [one] for one in expected
    )


@pytest.mark.parametrize("wrong", [{"alpha": -0.1}, {"alpha": math.nan}, {"best_of": 0}, {"gamma": -1}])
def test_constants_that_mean_nothing_are_refused(wrong):
    with pytest.raises(ConfigError, match=f"--{next(iter(wrong))} is"):
        LabelSettings(**wrong)


def test_the_first_error_must_be_found_exactly():
    cases = [
        ([True, False, True], 2),  # found
        ([False, False, False], 2),  # one too early
        ([True, True, True], 3),  # passed
        ([True, None, True], 2),  # no verdict is none
        ([True, True], None),  # passed, as it should be
        ([True, None], None),
    ]
    found = agreement(cases)
    assert (found.wrong, found.right, found.n_wrong, found.n_right) == (0.25, 0.5, 4, 2)
    assert found.f1 == pytest.approx(2 * 0.25 * 0.5 / 0.75)
    # up to the first error: 2 of 2, 1 of 2, 2 of 3, 1 of 2; of the right ones 2 of 2, 1 of 2
    assert found.steps == pytest.approx(9 / 13)


def trajectory(uid="p", steps=("a", "b", "c"), answer="a\nb\nc", check="exact"):
    made = tuple(Step(k, "", text) for k, text in enumerate(steps, 1))
    return Trajectory(uid, f"{uid}?", "", made, answer, answer_check=check)


class Writer:
    """Of four continuations after j steps the first j come to a b c; two samples are a x c, and nothing."""

    device = torch.device("cpu")

    def generate(self, examples, n, sampling, generator):
        return [[self.completion(one, k, n) for k in range(n)] for one in examples]

    def completion(self, example, k, n):
        rest = "\n".join("abc"[len(example.given) :])
        texts = {2: ["a\nx\nc", " "], 4: [rest if place < len(example.given) else "z" for place in range(4)]}
        text = texts[n][k]
        return Completion((5,) * (len(example.given) + 1), text, torch.zeros(1), True)


@pytest.fixture
def builder(tokenizer):
    limits = ResponseLimits(max_prompt_tokens=16)
    return ExampleBuilder(PromptRenderer(tokenizer, RAW, False), limits, think=False)


def test_the_experts_prefixes_are_valued_and_the_whole_is_right(builder):
    settings = ValueSettings(continuations=4)
    long = trajectory("too long a problem")
    found = valued(Writer(), builder, [trajectory(), long], settings, 0)
    # after j steps j of 4 are right; tokens: 4 continuations of 1, 2 and 3 tokens
    assert (found[0].successes, found[0].tokens, found[0].first_error) == ((0, 1, 2, 4), 24, 0)
    assert found[1].successes == ()
    assert found[1].left_out.startswith("prompt over data.limits.max_prompt_tokens 16")


def test_own_samples_are_cut_and_equal_prefixes_counted_once(builder):
    settings = ValueSettings(source="own", samples=2, continuations=4)
    first, second = valued(Writer(), builder, [trajectory()], settings, 0)
    # after a x one continuation writes "c" twice, but a x c is not the answer
    assert (first.steps, first.successes, first.right) == (("a", "x", "c"), (0, 1, 0, 0), False)
    assert (first.first_error, first.tokens, first.own_tokens) == (2, 4 * (1 + 2 + 3), 1)
    assert (second.left_out, second.successes) == ("outside the format", ())


@pytest.mark.parametrize(
    ("check", "answer", "text", "right"),
    [
        ("exact", "a\n\nb", "a\n\nb", True),  # cut and joined it is a, b
        ("exact", "x=1\ny=2", "Step 1: x=1\nStep 2: y=2", False),
        ("OWN", "p?", "1. one\n2. two", True),
    ],
)
def test_what_an_own_sample_wrote_is_judged_and_kept_as_it_was_written(
    builder, tmp_path, check, answer, text, right
):
    """A rule of the user's is told the problem."""
    rule = tmp_path / "own_rules.py"
    rule.write_text(
        "class Knows:\n    def __call__(self, response, answer, problem):\n        return problem == answer\n"
    )
    check = f"{rule}:Knows" if check == "OWN" else check

    class One(Writer):
        def completion(self, example, k, n):
            return Completion((5,), text, torch.zeros(1), True)

    settings = ValueSettings(source="own", samples=1, continuations=0)
    (found,) = valued(One(), builder, [trajectory(answer=answer, check=check)], settings, 0)
    assert (found.right, found.solution) == (right, text)


def test_a_row_without_steps_has_no_values_and_says_so(builder):
    (found,) = valued(Writer(), builder, [trajectory(steps=())], ValueSettings(continuations=4), 0)
    assert (found.left_out, found.successes) == ("no steps", ())


def test_the_first_error_is_known_only_where_no_other_steps_are_right():
    expert = trajectory()
    assert first_error(trajectory(steps=("a", "b")), expert) == 2  # ends too early
    assert first_error(trajectory(steps=("a", "b", "c", "d")), expert) == 4
    assert first_error(expert, expert) == 0
    assert first_error(expert, trajectory(answer="c", check="math")) is None


def row(uid="p", successes=(2, 4, 0, 0), first=2, **more):
    fields = {"sample": 0, "problem": "?", "steps": ("s", "t", "u"), "right": False, "of": 4, "tokens": 9}
    return Valued(uid, **fields | {"successes": successes, "first_error": first} | more)


def test_figures_by_position_and_the_productive_band():
    rows = [row(), row("q", (0, 0, 0, 4), 0), row("r", (4, 4, 1, 4), 0)]
    found = positions(rows)
    # 0: 2/4, 0, 4/4. 1: 4/4, 0, 4/4, one raised by 2/4. 2: 0, 0, 1/4: lowered by 1 and by 3/4
    assert [(one.step, one.success, one.raised, one.lowered) for one in found] == [
        (0, 0.5, 0, 0), (1, pytest.approx(2 / 3), pytest.approx(1 / 3), 0),
        (2, pytest.approx(1 / 12), 0, pytest.approx(2 / 3)),
    ]  # fmt: skip
    assert [one.rise for one in found[1:]] == [pytest.approx(1 / 6), pytest.approx(-1.75 / 3)]
    assert bands(rows) == {"some": 1, "none": 1, "all": 1}
    assert [(one.uid, one.step, one.text) for one in largest_rises(rows)] == [("p", 1, "s")]


def test_labels_against_the_true_first_error():
    rows = [row(), row("r", (4, 4, 1, 4), 0)]
    found = label_agreement(rows, LabelSettings())
    # p: 1 after 1/2, then 0: all find step 2. r is right: 1/4 after 1 is positive for abs_q; 0.25 + 0.4 (0 -
    # 0.75^4) = 0.123 for rel_effective; a quarter of before for rel_ratio
    assert [(one.wrong, one.right) for one in found.values()] == [(1, 1), (1, 1), (1, 0)]
    assert label_agreement([row(first=None)], LabelSettings()) == {}


def test_a_cut_file_is_gone_on_with_and_others_are_refused(tmp_path):
    path = tmp_path / "values.jsonl"
    rows = [row(), row("q")]
    ValueFile(path, {"seed": 0}).add(rows)
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    file = ValueFile(path, {"seed": 0})
    assert file.rows == rows[:1]
    assert (
        file.cut == len(whole.splitlines()[-1]) - 19
    )  # without the last 20 bytes, of which one ends the line
    assert file.add(rows) == rows[1:]
    assert path.read_bytes() == whole
    assert read_values(path) == ({"seed": 0}, rows)
    with pytest.raises(ConfigError, match="made with other settings \\(seed 0 there, 1 here\\)"):
        ValueFile(path, {"seed": 1})
    named_since = {"digests": {"weights": "ab"}}
    assert ValueFile(path, {"seed": 0} | named_since).rows == rows
    path.write_bytes(whole.replace(b'"tokens"', b'"token"', 1))
    with pytest.raises(DataError, match=r"values.jsonl:2: the line is damaged"):
        ValueFile(path, {"seed": 0})


@pytest.mark.parametrize("text", ["notes", "notes\nmore\n", '{"a": 1}\n'])
def test_a_file_of_another_kind_is_refused_and_left_as_it_is(tmp_path, text):
    path = tmp_path / "values.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match="no file of python -m srl label"):
        ValueFile(path, {})
    assert path.read_text() == text


def test_the_command_values_resumes_and_refuses(logging_ready, model_folder, expert_file, tmp_path, capsys):
    path = tmp_path / "own.jsonl"

    def label(*more):
        arguments = ["--output", str(path), "--source", "own", "--samples", "2", "--problems", "3"]
        arguments += ["--continuations", "2", "--batch_size", "2"]
        status = fit(model_folder, expert_file, tmp_path / "run", *arguments, *more, command="label")
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    status, out, _ = label()
    assert status == 0
    assert "6 solutions valued" in out
    assert "Against the true first error" in out
    assert Path(tmp_path / "own.png").stat().st_size > 0
    whole = path.read_bytes()
    settings = json.loads(whole.splitlines()[0])["settings"]
    assert (settings["continuations"], settings["weights"]) == (2, "base")
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[:4]) + b'{"uid": "p')
    status, out, _ = label()
    assert "its last line was damaged, 10 bytes, and is cut" in out
    assert "3 solutions valued" in out
    assert path.read_bytes() == whole
    status, _, err = label("--temperature", "0.5")
    (line,) = [line for line in err.splitlines() if line.startswith("srl: error: ")]
    assert (status, err.endswith(line + "\n")) == (2, True)
    assert "temperature 1.0 there, 0.5 here" in line
