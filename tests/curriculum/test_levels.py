"""Levels of constraints: rows of each level, phases that draw them, figures by level, resumes."""

import json
from types import SimpleNamespace

import pytest
from conftest import fit, write_rows
from make import RAW, from_rows, group
from resumed import UNLOGGED, Keep, equal, what_counts

from callbacks.dynamic_sampling import DynamicSampling
from srl.cli.main import main
from srl.curriculum.choice import Choice, by_difficulty
from srl.curriculum.levels import ByLevel, check_levels
from srl.curriculum.phases import Phase, Until
from srl.curriculum.selectors import Adaptive
from srl.curriculum.stream import Draw
from srl.data.levels import level_below, level_rows
from srl.data.trajectory import problem_key
from srl.errors import ConfigError, DataError
from srl.examples.builder import ExampleBuilder, ResponseLimits
from srl.examples.lazy import StepExamples
from srl.examples.prompts import PromptRenderer
from srl.types import Example

SHORT = {"kind": "words", "at_most": 2, "say": "Two words."}
KIND = {"kind": "soft", "text": "Be kind."}
ROW = {
    "uid": "u",
    "problem": "Name it.",
    "constraints": [SHORT, KIND],
    "answers": ["a b c", "a b", "dear\n1. a"],
}


def levels(row, names=None):
    return [one for _, one in level_rows([("f.jsonl:3", row)], names)]


def test_a_row_of_two_constraints_is_two_rows_that_are_held_out_together():
    found, _ = from_rows([(f"f:{k}", one) for k, one in enumerate(levels(ROW))])
    assert [one.uid for one in found] == ["u/1", "u/2"]
    assert [one.problem for one in found] == ["Name it.\nTwo words.", "Name it.\nTwo words.\nBe kind."]
    assert [json.loads(one.constraints) for one in found] == [[SHORT], [SHORT, KIND]]
    assert [(one.solution, one.without) for one in found] == [("a b", "a b c"), ("dear\n1. a", "a b")]
    assert {problem_key(one) for one in found} == {"name it."}
    assert [level_below(one) for one in found] == ["Name it.", "Name it.\nTwo words."]
    again, _ = from_rows([("f:1", json.loads(found[1].to_json()))])
    assert again[0] == found[1]


def test_without_answers_each_level_has_the_rows_own_solution_and_bare_rows_stay_as_they_are():
    own = {"problem": "p", "steps": ["a", "b"], "constraints": [SHORT]}
    (found,), _ = from_rows([("f:1", levels(own)[0])])
    assert (found.uid, found.solution, found.without) == ("f-3/1", "a\nb", "")
    bare = {"problem": "p", "steps": ["a", "b"], "constraints": []}
    assert levels(bare) == [bare]
    (odd,), _ = from_rows([("f:1", {"problem": "p", "steps": ["a"], "constraints": [SHORT]})])
    assert level_below(odd) is None  # its problem does not say it


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"answers": ["a", "b"]}, 'f.jsonl:3: field "answers" is the list ['),
        ({"answers": ["a", "b", " "]}, "write 3 texts that are not blank"),
        ({"constraints": [{"kind": "words", "at_most": 2}]}, 'field "constraints"[0] (words) has no say'),
        ({"constraints": [{**KIND, "say": " "}]}, "(soft) has say ' '"),
        ({"constraints": [{"kind": "soft"}]}, "(soft) needs text"),
        ({"problem": " "}, 'field "problem" is blank'),
    ],
)
def test_a_row_whose_levels_mean_nothing_is_its_error(change, said):
    (found,) = levels(ROW | change)
    assert isinstance(found, DataError)
    assert said in str(found)


def test_prepare_writes_the_rows_of_each_level_and_counts_what_it_drops(tmp_path, capsys):
    data = write_rows(tmp_path / "in.jsonl", [ROW, ROW | {"uid": "v", "answers": []}])
    assert main(["prepare", str(data), "--levels", "--output", str(tmp_path / "out.jsonl"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["rows"] == {"read": 3, "kept": 2, "dropped": 1}
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [len(one["constraints"]) for one in written] == [1, 2]


def texts(level):
    return json.dumps([SHORT] * level) if level else ""


def examples(*levels):
    return [Example(f"{k}", "holistic", 0, (1,), "t", constraints=texts(own)) for k, own in enumerate(levels)]


def selector(some, adaptive=None):
    choice = Choice(adaptive)
    return ByLevel(some, (None, 1, 2), lambda part: by_difficulty(part, "holistic", 0, choice))


def drawn(one, level, count):
    one.level = level
    one.begin()
    return [one.take().uid for _ in range(count)]


def test_a_level_draws_its_rows_and_those_without_constraints():
    one = selector(examples(0, 1, 1, 2, 3))
    assert sorted(drawn(one, 1, 3)) == ["0", "1", "2"]
    assert sorted(drawn(one, 2, 2)) == ["0", "3"]
    assert sorted(drawn(one, None, 5)) == ["0", "1", "2", "3", "4"]
    assert one.sizes == {None: 5, 1: 3, 2: 2}


def test_a_level_goes_on_after_a_resume_where_it_was_and_a_new_one_begins_afresh():
    some = examples(0, 1, 1, 1, 2, 2)
    one = selector(some, Adaptive())
    for uid in drawn(one, 1, 3):
        one.observe(some[int(uid)], float(uid))
    state = one.state_dict()
    del state["levels"]["2"]
    rest, again = drawn(one, 1, 9), selector(some, Adaptive())
    again.load_state_dict(state)
    assert drawn(again, 1, 9) == rest
    assert drawn(again, 2, 3) == drawn(selector(some, Adaptive()), 2, 3)


def test_steps_that_are_built_on_demand_have_levels_too(tokenizer):
    rows = [
        {"uid": f"{k}", "problem": "p", "steps": ["a", "b"], "constraints": [SHORT] * k} for k in range(3)
    ]
    found, _ = from_rows([(f"f:{k}", row) for k, row in enumerate(rows)])
    builder = ExampleBuilder(PromptRenderer(tokenizer, RAW, False), ResponseLimits(), think=False)
    one = selector(StepExamples(builder, found, "srl", imitate=False))
    assert sorted(drawn(one, 2, 2)) == ["0", "2"]


@pytest.mark.parametrize(
    ("there", "phase", "said"),
    [
        (
            (0, 1, 1),
            Phase("x", {"holistic": 1.0}, level=2),
            "phase x: level is 2, but there are no rows with ",
        ),
        (
            (1, 3),
            Phase("x", {"holistic": 1.0}, level=2),
            "holistic has no rows with so many constraints; rows ",
        ),
        ((1, 3), Phase("x", {"holistic": 1.0}, level=3), ""),
    ],
)
def test_a_level_beyond_the_rows_is_refused_at_the_start(there, phase, said):
    known = {"holistic": ByLevel(examples(*there), (phase.level,), lambda part: by_difficulty(
        part, "holistic", 0, Choice()))}  # fmt: skip
    if not said:
        check_levels([phase], known)
        return
    with pytest.raises(ConfigError) as found:
        check_levels([phase], known)
    assert said in str(found.value)


def test_the_figures_of_each_level_are_over_all_draws_since_the_last_update():
    callback = DynamicSampling(epsilon=0.0)
    groups = [group([5], [1, 1], [0.0, 1.0]), group([6], [1, 1], [0.5, 1.0]), group([7], [1, 1], [0.0, 0.0])]
    for one, level in zip(groups, (1, 2, 2), strict=True):
        one.example = Example("u", "holistic", 0, (1,), "t", constraints=texts(level))
    metrics = {}
    for part in (groups[:1], groups[1:]):
        draw = Draw([])
        draw.temperature = 1.0
        draw.groups, draw.phase = (
            list(part),
            SimpleNamespace(name="p", batch_groups=2, objectives={"holistic"}),
        )
        callback.on_train_batch_start(None, None, draw, 0)
        metrics |= draw.metrics
    # the means of the groups are 0.5; 0.75 and 0
    assert metrics["train/level_1/reward"] == 0.5
    assert metrics["train/level_2/reward"] == 0.375
    assert metrics["train/level_1/share"] == pytest.approx(1 / 3)
    assert metrics["train/level_2/share"] == pytest.approx(2 / 3)


PHASES = """[
 {name: one, mix: {holistic: 1.0}, level: 1, until: {updates: 2}}, {name: two, mix: {holistic: 1.0}, level: 2}
]"""


def taken(state):
    """Examples drawn of each level."""
    (stream,) = state["loader"] if isinstance(state["loader"], list) else [state["loader"]]
    return {level: one["cursor"] for level, one in stream["selectors"]["holistic"]["levels"].items()}


def test_a_run_climbs_the_levels_and_goes_on_after_a_stop_bit_by_bit(model_folder, tmp_path, monkeypatch):
    rows = [
        {"uid": f"{k}/{level}", "problem": f"{k}", "steps": ["a"], "constraints": [
            {"kind": "characters", "at_most": 7 * level}, {"kind": "lacks", "text": "e"}][:level]}
        for k in range(12) for level in (1, 2)
    ]  # fmt: skip
    data = write_rows(tmp_path / "rows.jsonl", rows)
    more = [
        "--curriculum.phases", PHASES, "--reward.parts", "[{kind: constraints}]", "--trainer.max_steps", "4",
        "--data.validation.problems", "0", "--model.validation.attempts", "0",
        "--checkpoint.every_n_updates", "1", *UNLOGGED,
    ]  # fmt: skip
    keep = Keep(monkeypatch, tmp_path)
    assert fit(model_folder, data, tmp_path / "run", *more) == 0
    whole = what_counts(tmp_path / "run" / "last.ckpt")
    found = {
        state["global_step"]: (copy, taken(state)) for copy in keep.copies if (state := what_counts(copy))
    }
    assert found[2][1]["1"] > 0 == found[2][1]["2"]
    assert found[4][1] == {"1": found[2][1]["1"], "2": found[4][1]["2"]}
    assert found[4][1]["2"] > found[3][1]["2"] > 0
    assert fit(model_folder, data, tmp_path / "again", *more, "--ckpt_path", str(found[3][0])) == 0
    equal(what_counts(tmp_path / "again" / "last.ckpt"), whole)


def test_a_level_and_pools_do_not_go_together(refused):
    line = refused("--curriculum.phases", "[{name: a, per_problem: {}, level: 1}]")
    assert "level is 1: it must be at least 1, in a phase with a mix" in line
    assert Phase("a", {"srl": 1.0}, Until(1), level=2).level == 2
