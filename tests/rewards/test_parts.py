"""A reward in parts, and the constraints of an answer's form."""

import json
import logging
import math
from pathlib import Path

import pytest
from conftest import expert_rows, fit, tracking_uri, write_rows
from make import from_rows, read_trajectories
from mlflow import MlflowClient

from srl.data.row_format import RowFormat
from srl.errors import ConfigError, DataError
from srl.objectives.table import objectives
from srl.rewards import own_rule, verifier
from srl.rewards.constraints import check, holds
from srl.rewards.json_schema import fault
from srl.rewards.json_schema import holds as admits
from srl.rewards.parts import Part, check_parts, weighed
from srl.types import Completion, Example

LETTER = "Dear Ann,\n\n# Plan\n- eat\n* SLEEP\n2) rest\n-no item\n\n#no heading\nYours"


def kept(answer, **constraint):
    check([constraint], "here")
    return holds(constraint, answer)


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        ("words", 15),  # Dear Ann, # Plan - eat * SLEEP 2) rest -no item #no heading Yours
        ("characters", len(LETTER)),
        ("lines", 8),
        ("paragraphs", 3),
        ("items", 3),  # - eat, * SLEEP, 2) rest; -no item lacks the blank behind its sign
        ("sections", 1),
    ],
)
def test_a_count_holds_between_its_bounds_and_not_one_beyond(kind, count):
    assert kept(LETTER, kind=kind, at_least=count, at_most=count)
    assert not kept(LETTER, kind=kind, at_least=count + 1)
    assert not kept(LETTER, kind=kind, at_most=count - 1)


@pytest.mark.parametrize(
    ("text", "constraint", "holds"),
    [
        ("a b a", {"kind": "contains", "text": "a"}, True),
        ("a b a", {"kind": "contains", "text": "A"}, False),
        ("a b a", {"kind": "contains", "text": "A", "ignore_case": True, "at_least": 2}, True),
        ("a b a", {"kind": "contains", "text": "a", "at_most": 1}, False),
        ("b", {"kind": "contains", "text": "a", "at_most": 1}, True),  # at most once is also never
        ("b", {"kind": "lacks", "text": "a"}, True),
        ("bA", {"kind": "lacks", "text": "a", "ignore_case": True}, False),
        ("  Dear Ann\n", {"kind": "begins_with", "text": "Dear"}, True),
        ("O Dear", {"kind": "begins_with", "text": "Dear"}, False),
        ("so be it. \n", {"kind": "ends_with", "text": "it."}, True),
        ("so be it.", {"kind": "ends_with", "text": "It."}, False),
        ("ALL 3!", {"kind": "case", "case": "upper"}, True),
        ("All", {"kind": "case", "case": "upper"}, False),
        ("123", {"kind": "case", "case": "lower"}, False),  # no letter has a case
        ('{"a": 1}', {"kind": "json"}, True),
        ('```json\n{"a": 1}\n```', {"kind": "json"}, True),
        ('so {"a": 1}', {"kind": "json"}, False),
        ("NaN", {"kind": "json"}, False),
        ("[" * 100_000, {"kind": "json"}, False),
        ("1" * 10_000, {"kind": "json"}, False),  # more digits than Python reads
        ('{"a": "x"}', {"kind": "json", "schema": {"properties": {"a": {"type": "number"}}}}, False),
    ],
)
def test_a_constraint_holds_or_does_not(text, constraint, holds):
    assert kept(text, **constraint) is holds


@pytest.mark.parametrize(
    ("value", "schema", "right"),
    [
        (1.0, {"type": "integer"}, True),
        (True, {"type": ["integer", "null"]}, False),
        (None, {"type": ["integer", "null"]}, True),
        (1e999, {"type": "integer"}, False),  # infinity
        ([1, 2], {"items": {"type": "integer"}, "minItems": 2, "maxItems": 2}, True),
        ([1, "2"], {"items": {"type": "integer"}}, False),
        ({"a": 1}, {"required": ["a", "b"]}, False),
        ({"a": 1, "b": 2}, {"properties": {"a": {}}, "additionalProperties": False}, False),
        ({"a": 1, "b": 2}, {"properties": {"a": {}}, "additionalProperties": {"minimum": 2}}, True),
        (3, {"exclusiveMinimum": 3}, False),
        ("ab", {"minLength": 3}, False),
        ([1], {"enum": [[True], 3]}, False),  # true is no 1
        ({"a": [1]}, {"const": {"a": [1.0]}}, True),
        (5, {"oneOf": [{"minimum": 3}, {"maximum": 9}]}, False),  # both
        (5, {"anyOf": [{"minimum": 9}, {"maximum": 9}]}, True),
        (5, {"not": {"minimum": 3}}, False),
        (5, False, False),
    ],
)
def test_a_value_and_a_schema(value, schema, right):
    assert fault(schema) is None
    assert admits(value, schema) is right


@pytest.mark.parametrize(
    ("constraint", "said"),
    [
        ("words", "write an object whose kind is one of: words,"),
        ({"kind": "rhyme"}, "write an object whose kind is one of: words,"),
        ({"kind": "words"}, "needs at_least, at_most or both"),
        ({"kind": "words", "at_most": 2.5}, "at_most 2.5; write a whole number"),
        ({"kind": "words", "at_most": True}, "at_most True; write a whole number"),
        ({"kind": "words", "at_least": 3, "at_most": 2}, "at_least 3 is above at_most 2"),
        ({"kind": "words", "most": 2}, "no option 'most'; there are at_least, at_most"),
        ({"kind": "lacks", "text": " "}, "needs text"),
        ({"kind": "case", "case": "title"}, "write upper or lower"),
        ({"kind": "json", "schema": {"pattern": "(a+)+"}}, "schema has the keyword pattern"),
        ({"kind": "json", "schema": {"properties": {"a": {"type": "int"}}}}, "schema.properties.a.type is"),
    ],
)
def test_a_bad_constraint_is_a_data_error_with_its_line_and_a_config_error_with_its_key(constraint, said):
    row = {"problem": "p", "steps": ["a", "b"], "constraints": [{"kind": "json"}, constraint]}
    with pytest.raises(DataError) as found:
        from_rows([("f.jsonl:7", row)])
    assert str(found.value).startswith('f.jsonl:7: field "constraints"[1] ')
    assert said in str(found.value)
    with pytest.raises(ConfigError) as refused:
        check_parts([Part("constraints", constraints=(constraint,))])
    assert str(refused.value).startswith("reward.parts[0].constraints[0] ")


def test_constraints_of_a_row_are_kept_by_every_reader_and_by_prepare(tmp_path: Path):
    wanted = [{"kind": "words", "at_most": 3}]
    rows = [
        {"problem": "p", "steps": ["a", "b"], "constraints": wanted},
        {"problem": "q", "steps": ["a", "b"], "constraints": json.dumps(wanted)},  # as a table may hold it
        {"problem": "r", "steps": ["a", "b"]},
    ]
    found, _ = read_trajectories(write_rows(tmp_path / "rows.jsonl", rows))
    assert [json.loads(one.constraints or "[]") for one in found] == [wanted, wanted, []]
    raw = RowFormat(style="lines").read(
        {"problem": "p", "solution": "a\nb", "answer": "b", "constraints": wanted}, "f:1"
    )
    assert json.loads(raw.constraints) == wanted
    again, _ = from_rows([("f:1", json.loads(one.to_json())) for one in [raw]])
    assert again[0].constraints == raw.constraints
    assert "constraints" not in json.loads(found[2].to_json())


def case(example, *texts):
    import torch

    return example, [Completion((1,), text, torch.zeros(1), True) for text in texts]


def rewarded(objective, parts, *cases):
    check_parts(parts)
    return weighed(parts, cases, objectives()[objective].reward(cases))


def test_a_step_earns_the_weighted_sum_of_its_parts():
    # similarity of abcd and bcde 0.75, of ab and bcde 2 * 1 / 6; outside the format -1, 0 and 0
    parts = [
        Part("objective", 2.0),
        Part("format", 0.5),
        Part(
            "constraints",
            1.0,
            "short",
            ({"kind": "characters", "at_most": 2}, {"kind": "lacks", "text": "z"}),
        ),
    ]
    row = json.dumps([{"kind": "words", "at_least": 9}])  # of the whole answer, and so not of a step
    example = Example("u", "srl", 1, (1,), "bcde", constraints=row)
    (found,) = rewarded("srl", parts, case(example, "<think>t</think>abcd", "<think>t</think>ab", "abcd"))
    assert found["parts/objective"] == [0.75, 1 / 3, -1.0]
    assert found["parts/short"] == [0.5, 1.0, 0.0]
    assert found["reward"] == pytest.approx([1.5 + 0.5 + 0.5, 2 / 3 + 0.5 + 1.0, -2.0])
    assert found["constraints/characters"] == [0.0, 1.0, 0.0]
    assert found["constraints/lacks"] == [1.0, 1.0, 0.0]
    assert "constraints/words" not in found


def test_a_solution_earns_for_its_answer_and_for_the_constraints_of_its_row_given_steps_counted():
    row = json.dumps([{"kind": "lines", "at_least": 2}, {"kind": "ends_with", "text": "7"}])
    example = Example("u", "rlvr", 0, (1,), "", answer="7", think=False, constraints=row)
    given = Example("v", "rlvr", 0, (1,), "", answer="7", think=False, constraints=row, given=("3+4",))
    bare = Example("w", "rlvr", 0, (1,), "", answer="7", think=False)
    found = rewarded(
        "rlvr",
        [Part("objective"), Part("constraints", 0.5)],
        case(example, "\\boxed{7}\n7", "8"),
        case(given, "#### 7"),
        case(bare, "#### 7"),
    )
    assert [one["reward"] for one in found] == [[1.5, 0.0], [1.5], [1.0]]
    assert [one["parts/constraints"] for one in found] == [[1.0, 0.0], [1.0], [0.0]]


def test_a_part_of_weight_0_is_logged_and_its_failure_harms_nothing(monkeypatch):
    monkeypatch.setattr("srl.rewards.own_rule.scores", lambda asked: [math.nan] * len(asked))
    parts = [Part("objective"), Part("rules.Own", 0.0, "own")]
    (found,) = rewarded("srl", parts, case(Example("u", "srl", 1, (1,), "bcde"), "<think>t</think>abcd"))
    assert found["reward"] == [0.75]
    assert math.isnan(found["parts/own"][0])


OWN = """
class Length:
    def __call__(self, response, answer, problem):
        if "raise" in response:
            raise ValueError("no")
        return len(answer) + len(problem)
class Fails:
    def __call__(self, response, answer, problem):
        return float("nan") if problem.startswith("#1:") else len(response)
"""


def test_a_class_of_the_users_is_a_part_and_its_failure_is_no_number(tmp_path, monkeypatch, caplog):
    (tmp_path / "my_parts.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(own_rule, "_said", set())
    verifier.close()  # a worker that starts in this folder
    parts = [Part("objective"), Part("my_parts.Length", 0.5, "length")]
    step = Example("u", "srl", 1, (1,), "bcde", problem="abc", think=False)
    with caplog.at_level(logging.WARNING):
        (found,) = rewarded("srl", parts, case(step, "bcde", "raise"))
    assert found["reward"][0] == 1.0 + 0.5 * (4 + 3)  # the expert's step and the problem
    assert math.isnan(found["reward"][1])
    assert "my_parts.Length: raised ValueError: no" in caplog.text
    verifier.close()


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        (
            [Part("similarity")],
            "reward.parts[0].kind is 'similarity'; write objective, format, constraints, ",
        ),
        ([Part("format", math.inf)], "reward.parts[0].weight is inf"),
        ([Part("format"), Part("format")], "reward.parts[1] is called format as another part is"),
        ([Part("format", 0.0)], "every weight is 0"),
        ([Part("format", constraints=({},))], "only a part of kind constraints has it"),
    ],
)
def test_parts_that_mean_nothing_are_refused(parts, said):
    with pytest.raises(ConfigError) as found:
        check_parts(parts)
    assert said in str(found.value)


def test_a_run_logs_every_part_and_leaves_out_the_row_whose_check_fails(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run_parts.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    verifier.close()
    data = write_rows(tmp_path / "rows.jsonl", expert_rows(6))
    parts = (
        "[{kind: objective}, {kind: format, weight: 0.5}, {kind: run_parts.Fails, weight: 0.1, name: own},"
        " {kind: constraints, constraints: [{kind: words, at_most: 2}]}]"
    )
    more = ["--reward.parts", parts, "--data.validation.problems", "1", "--curriculum.batch_groups", "15"]
    assert fit(model_folder, data, tmp_path / "run", *more, "--trainer.max_steps", "1") == 0
    verifier.close()
    client = MlflowClient(tracking_uri(tmp_path))
    (run,) = client.search_runs([client.get_experiment_by_name("srl").experiment_id])
    metrics = run.data.metrics
    assert metrics["train/parts/format"] == 1.0  # of a random model without thinking: any text is a step
    assert metrics["train/reward"] == pytest.approx(
        sum(
            w * metrics[f"train/parts/{name}"]
            for name, w in [("objective", 1), ("format", 0.5), ("own", 0.1)]
        )
        + metrics["train/parts/constraints"]
    )
    assert metrics["train/constraints/words"] == metrics["train/parts/constraints"]
    assert metrics["reward/dropped_groups"] >= 1
    assert metrics["reward/verifier_faults"] >= 4
