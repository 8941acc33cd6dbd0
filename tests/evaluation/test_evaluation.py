"""Solving held-out problems: by an engine that is told what to say, and by a real tiny model."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from conftest import expert_rows, tiny_model

from srl.data.trajectory import Step, Trajectory
from srl.engine.engine import RolloutEngine
from srl.evaluation.solving import COMPARED, GREEDY, answer_classes, solve_by_steps, solve_whole
from srl.evaluation.validation import ValidationSettings
from srl.examples.builder import ExampleBuilder, ResponseLimits
from srl.examples.prompts import PromptFormat, PromptRenderer
from srl.types import Completion, Sampling

ANY = torch.Generator()


def builder(tokenizer, think=False, **limits):
    renderer = PromptRenderer(tokenizer, PromptFormat("raw"), think)
    return ExampleBuilder(renderer, ResponseLimits(**limits), think=think)


def trajectory(uid, steps=3, answer="4", check="math"):
    made = tuple(Step(k, "Title", f"secret {k}") for k in range(1, steps + 1))
    return Trajectory(uid, f"{uid}?", "Expert.", made, answer, answer_check=check)


class Told:
    """An engine that says what it is told: a text, or (text, finished), for each prompt's text."""

    def __init__(self, tokenizer, answers):
        self.tokenizer, self.answers, self.asked = tokenizer, answers, []

    def generate(self, examples, n, sampling, generator):
        prompts = [self.tokenizer.decode(list(example.prompt_ids)) for example in examples]
        self.asked.append((prompts, n, sampling))
        return [[self._completion(self.answers[prompt], k) for k in range(n)] for prompt in prompts]

    @staticmethod
    def _completion(answer, k):
        answer = answer[k] if isinstance(answer, list) else answer
        text, finished = answer if isinstance(answer, tuple) else (answer, True)
        return Completion((3,), text, torch.zeros(1), finished)


# -- whole ------------------------------------------------------------------------------------------------


def test_whole_solutions_are_judged_one_by_one(tokenizer):
    made = builder(tokenizer)
    problems = [
        *made.problem(trajectory("a"), "v"),
        *made.problem(trajectory("b", answer="x", check="exact"), "v"),
    ]
    engine = Told(tokenizer, {"a?\n": ["so \\boxed{4}", ("it is 5", False)], "b?\n": ["x", "\\boxed{x}"]})
    sampling = Sampling(temperature=0.7)
    found = solve_whole(engine, problems, 2, sampling, ANY)
    assert [[(s.uid, s.text, s.correct, s.finished) for s in attempts] for attempts in found] == [
        [("a", "so \\boxed{4}", True, True), ("a", "it is 5", False, False)],
        [("b", "x", True, True), ("b", "\\boxed{x}", False, True)],  # exact: a box is not the answer
    ]
    assert [[s.answer for s in attempts] for attempts in found] == [["4", "5"], ["x", "\\boxed{x}"]]
    assert [(s.words, s.tokens) for s in found[0]] == [(2, 1), (3, 1)]  # Told writes one token each
    assert engine.asked == [(["a?\n", "b?\n"], 2, sampling)]  # one call for all


def test_the_opened_tag_counts_as_thinking(tokenizer):
    (problem,) = builder(tokenizer).problem(trajectory("a"), "v")
    opened = type(problem)(**{**vars(problem), "opened": True})
    engine = Told(tokenizer, {"a?\n": ["\\boxed{4}", "5</think>\\boxed{4}"]})
    (attempts,) = solve_whole(engine, [opened], 2, GREEDY, ANY)
    assert [a.correct for a in attempts] == [False, True]  # the first never leaves its thinking
    assert attempts[1].text == "<think>5</think>\\boxed{4}"


def test_a_problem_without_an_answer_is_refused(tokenizer):
    (step,) = builder(tokenizer).steps(trajectory("a", steps=2, answer=None), "v")
    with pytest.raises(ValueError, match="problem a has no answer"):
        solve_whole(Told(tokenizer, {"a?\nExpert.\nTitle\n": "4"}), [step], 1, GREEDY, ANY)


# -- by steps ---------------------------------------------------------------------------------------------


def test_actions_without_thinking_are_the_next_prompts_history(tokenizer):
    engine = Told(
        tokenizer,
        {
            "a?\n": "<think>hm</think>\n2+2\n",
            "a?\n2+2\n": "<think></think>is 4",
            "a?\n2+2\nis 4\n": "<think>hm</think>so \\boxed{4}",
        },
    )
    ((solved,),) = solve_by_steps(engine, builder(tokenizer, think=True), [trajectory("a")], ANY)
    assert (solved.uid, solved.text) == ("a", "2+2\nis 4\nso \\boxed{4}")
    assert (solved.correct, solved.finished) == (True, True)
    # greedy, one response a turn, and nothing of the expert in any prompt
    assert [(n, sampling) for _, n, sampling in engine.asked] == [(1, Sampling(temperature=0.0))] * 3
    assert not any(word in str(engine.asked) for word in ("Expert", "Title", "secret"))


def test_problems_leave_when_they_are_done_and_the_others_go_on(tokenizer):
    engine = Told(
        tokenizer,
        {
            "early?\n": "The answer is 4.",  # states its answer at the first of three turns
            "short?\n": "one",  # two turns: the expert took two steps
            "short?\none\n": "3",
            "broken?\n": "<think>no end",
            "long?\n": "1234567890",  # the next prompt has 6 + 11 = 17 tokens, over 16
            "bad?\n": "so",
            "bad?\nso\n": "<think>",
        },
    )
    trajectories = [
        trajectory("early"),
        trajectory("short", steps=2, answer="3"),
        trajectory("broken"),
        trajectory("long"),
        trajectory("bad"),
    ]
    engine.answers = {
        prompt: text if text.startswith("<think>") else f"<think></think>{text}"
        for prompt, text in engine.answers.items()
    }
    made = builder(tokenizer, think=True, max_prompt_tokens=16)
    found = {s.uid: s for (s,) in solve_by_steps(engine, made, trajectories, ANY)}
    assert {uid: (s.text, s.correct, s.finished) for uid, s in found.items()} == {
        "early": ("The answer is 4.", True, True),
        "short": ("one\n3", True, True),
        "broken": ("", False, False),
        "long": ("1234567890", False, False),
        "bad": ("so", False, False),
    }
    assert [len(prompts) for prompts, _, _ in engine.asked] == [5, 2]  # then only short and bad
    assert [skip.uid for skip in made.skipped] == ["long"]


@pytest.mark.parametrize(
    ("action", "ends"),
    [
        ("\\boxed{4}", True),
        ("#### 4", True),
        ("so\n  #### 4", True),
        ("the Answer is 4", True),
        ("**Final answer:** 4", True),
        ("The correct option is (C)", True),
        ("<answer>4</answer>", True),
        ("x #### 4", False),
        ("#### Case 2: n is even", False),
        ("\\boxed{}", False),
        ("4", False),
    ],
)
@pytest.mark.parametrize("check", ["math", "exact"])
def test_a_stated_answer_ends_the_turns_unless_the_check_is_exact(tokenizer, action, ends, check):
    turns = {"a?\n": action, f"a?\n{action}\n": "more", f"a?\n{action}\nmore\n": "end"}
    engine = Told(tokenizer, turns)
    ((solved,),) = solve_by_steps(engine, builder(tokenizer), [trajectory("a", check=check)], ANY)
    assert len(engine.asked) == (1 if ends and check == "math" else 3)
    assert solved.finished


def test_exact_answers_are_the_actions_line_by_line(tokenizer):
    engine = Told(tokenizer, {"a?\n": "d7,1", "a?\nd7,1\n": "e9,3"})
    made = builder(tokenizer)
    right = trajectory("a", steps=2, answer="d7,1\ne9,3", check="exact")
    wrong = trajectory("a", steps=2, answer="d7,1 e9,3", check="exact")
    assert [s.correct for (s,) in solve_by_steps(engine, made, [right, wrong], ANY)] == [True, False]


def test_no_problems_and_no_room(tokenizer):
    engine = Told(tokenizer, {})
    assert solve_by_steps(engine, builder(tokenizer), [], ANY) == []
    ((solved,),) = solve_by_steps(engine, builder(tokenizer, max_prompt_tokens=2), [trajectory("a")], ANY)
    assert (solved.text, solved.correct, solved.finished) == ("", False, False)
    assert engine.asked == []  # an engine is not asked for nothing


def test_an_unknown_answer_is_never_right(tokenizer):
    engine = Told(tokenizer, {"a?\n": "4", "a?\n4\n": "4"})
    unknown = trajectory("a", steps=2, answer=None)
    ((solved,),) = solve_by_steps(engine, builder(tokenizer), [unknown], ANY)
    assert (solved.correct, solved.finished) == (False, True)


def test_the_format_of_a_solution_is_that_of_the_data(tokenizer):
    texts = ["<think>hm</think>4", "4", "<think>4"]
    for think, expected in ((True, [True, False, False]), (False, [True, True, True])):
        examples = builder(tokenizer, think=think).problem(trajectory("a"), "v")
        (attempts,) = solve_whole(Told(tokenizer, {"a?\n": texts}), examples, 3, GREEDY, ANY)
        assert [a.in_format for a in attempts] == expected


def test_without_a_judge_no_answer_is_needed(tokenizer):
    (example,) = builder(tokenizer).problem(trajectory("a"), "v")
    example = type(example)(**{**vars(example), "answer": None})
    engine = Told(tokenizer, {"a?\n": "so \\boxed{4}"})
    ((solved,),) = solve_whole(engine, [example], 1, GREEDY, ANY, judge=False)
    assert (solved.correct, solved.answer) == (False, "4")


def test_a_problem_without_expert_steps_has_max_turns(tokenizer):
    """It is finished when it states an answer; running out of turns is no end of its own."""
    engine = Told(tokenizer, {"a?\n": "x", "a?\nx\n": "y", "b?\n": "x", "b?\nx\n": "the answer is 4"})
    problems = [trajectory("a", steps=0), trajectory("b", steps=0)]
    (a,), (b,) = solve_by_steps(engine, builder(tokenizer), problems, ANY, max_turns=2)
    assert (a.steps, a.finished, a.correct) == (("x", "y"), False, False)
    assert (b.steps, b.finished, b.correct, b.answer) == (("x", "the answer is 4"), True, True, "4")
    assert (b.words, b.tokens) == (5, 2)
    assert len(engine.asked) == 2


def test_sampled_attempts_go_their_own_ways(tokenizer):
    """Two attempts at one problem: each one's history is its own, and all are asked in one call a turn."""

    class Drawn(Told):
        def generate(self, examples, n, sampling, generator):
            prompts = [self.tokenizer.decode(list(example.prompt_ids)) for example in examples]
            self.asked.append((prompts, n, sampling))
            said = {"a?\n": iter("xy"), "a?\nx\n": iter("4"), "a?\ny\n": iter("5")}
            return [[self._completion(next(said[prompt]), 0)] for prompt in prompts]

    engine, sampling = Drawn(tokenizer, {}), Sampling(temperature=0.5)
    problem = trajectory("a", steps=2, answer="x\n4", check="exact")
    (attempts,) = solve_by_steps(engine, builder(tokenizer), [problem], ANY, n=2, sampling=sampling)
    assert [(a.text, a.correct) for a in attempts] == [("x\n4", True), ("y\n5", False)]
    assert engine.asked == [(["a?\n", "a?\n"], 1, sampling), (["a?\nx\n", "a?\ny\n"], 1, sampling)]


# -- equal answers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (["7", "8", "7"], [0, 1, 0]),
        (["8", "7", " 7", "007", "+7"], [1, 0, 0, 0, 0]),  # the most frequent comes first
        (["1/2", "0.5", "\\frac{1}{2}", "2"], [0, 0, 0, 3]),
        (["3", None, "3.0", None], [0, -1, 0, -1]),  # 3.0 is no integer: it is compared
        ([None, None], [-1, -1]),
        (["???", "??", "???"], [0, 1, 0]),  # unreadable: by text
    ],
)
def test_equal_answers_are_one_class(answers, expected):
    assert answer_classes([answers], ["math"]) == [expected]


def test_exact_answers_are_compared_as_text():
    assert answer_classes([["1/2", "0.5", "1/2"], ["7", "007"]], ["exact", "exact"]) == [[0, 1, 0], [0, 1]]


def test_comparisons_are_bounded_and_made_in_one_call(monkeypatch):
    calls = []
    monkeypatch.setattr(
        "srl.evaluation.solving.are_equal", lambda pairs: calls.append(pairs) or [False] * len(pairs)
    )
    names = [f"x+{k}" for k in range(32)]
    assert answer_classes([names, ["1", "2", "a"]], ["math", "math"]) == [list(range(32)), [0, 1, 2]]
    (pairs,) = calls
    # the first COMPARED among themselves, 8 * 7 / 2, each later one with those; then a with 1 and with 2
    assert len(pairs) == 28 + (32 - COMPARED) * COMPARED + 2


def test_an_answer_joins_the_most_frequent_one_that_it_equals(monkeypatch):
    """c equals both a and b, which differ: it goes to a, which has more votes."""
    monkeypatch.setattr("srl.evaluation.solving.are_equal", lambda pairs: [pair[1] == "c" for pair in pairs])
    assert answer_classes([["c", "b", "b", "a", "a", "a"]], ["math"]) == [[0, 1, 1, 0, 0, 0]]


# -- a real model -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def engine():
    from conftest import tiny_tokenizer

    tokenizer = tiny_tokenizer()
    return RolloutEngine(tiny_model(vocab_size=len(tokenizer)), tokenizer, (1,))


@pytest.fixture
def problems():
    return [Trajectory.from_json(row, "here:1") for row in expert_rows(6)]


def test_a_real_models_steps_are_its_greedy_continuations(engine, tokenizer, problems):
    """Each turn alone must give what the batch of problems gave, turn after turn."""
    made = builder(tokenizer, step_tokens=6, step_stop=("\n",))
    for one, (solved,) in zip(problems, solve_by_steps(engine, made, problems, ANY), strict=True):
        actions = []
        for _ in range(3):
            (example,) = made.next_step(one, actions)
            ((completion,),) = engine.generate([example], 1, GREEDY, ANY)
            if not completion.text.strip():
                break
            actions.append(completion.text.strip())
        assert solved.text == "\n".join(actions)
        assert solved.text
        assert solved.finished == (len(actions) == 3)


def test_a_real_models_solution_is_right_when_the_gold_says_so(engine, tokenizer, problems):
    """The answer is taken from what the model says: then, and only then, it is right."""
    made = builder(tokenizer, solution_tokens=10)
    examples = [made.problem(problem, "v")[0] for problem in problems]
    said = [text for ((text,),) in zip(solve_whole(engine, examples, 1, GREEDY, ANY), strict=True)]
    assert not any(attempt.correct for attempt in said)
    # a random model now and then writes a thinking tag, which the answer check reads as one: leave those out
    pairs = [pair for pair in zip(problems, said, strict=True) if "think>" not in pair[1].text]
    golds = [Trajectory(**{**vars(problem), "answer": attempt.text}) for problem, attempt in pairs]
    assert golds
    found = solve_whole(engine, [made.problem(gold, "v")[0] for gold in golds], 2, GREEDY, ANY)
    assert all(attempt.correct for attempts in found for attempt in attempts)


# -- a validation of steps ----------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["any", "stop"])
def test_a_validation_counts_the_steps_that_end_the_solution(tokenizer, end):
    """Of the three steps two have others behind them; both are the expert's, one ends by the end token."""
    made = builder(tokenizer, step_stop=("\n",), step_end=end)
    made.include_last = True
    steps = tuple(Step(k, "Title", f"word{k}") for k in (1, 2, 3))  # the title is in the prompt
    examples = made.steps(replace(trajectory("a"), steps=steps), "validation")
    engine = SimpleNamespace(
        generate=lambda *_: [
            [Completion((3,), one.target, torch.zeros(1), True, end_token=one.step != 2)] for one in examples
        ]
    )
    measured = ValidationSettings(decisions="\\w+").begin(
        SimpleNamespace(should_stop=True, state=SimpleNamespace(fn="fit"), global_step=0)
    )
    batch = SimpleNamespace(examples=examples, trajectories=[trajectory("a")] * 3)
    measured.steps(engine, batch, ANY)
    found = measured.compute()
    assert found["val/steps/end_token"] == 0.5
    # the first is outside the format with `stop`: rewards -1, 1 and 1
    assert found["val/steps/reward"] == pytest.approx(1.0 if end == "any" else 1 / 3)
    assert found["val/steps/format"] == pytest.approx(1.0 if end == "any" else 2 / 3)
    assert found["val/steps/exact_step_1"] == (end == "any")
    assert found["val/steps/decisions"] == pytest.approx(1.0 if end == "any" else 2 / 3)
