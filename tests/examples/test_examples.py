"""Trajectories as examples, and what the model reads: prompts down to the character."""

import logging
from dataclasses import replace

import pytest
from conftest import tiny_tokenizer
from tokenizers.processors import TemplateProcessing

from srl.data.trajectory import Step, Trajectory
from srl.errors import ConfigError
from srl.examples.builder import ExampleBuilder, ResponseLimits
from srl.examples.prompts import (
    SOLUTION_SYSTEM,
    SOLUTION_SYSTEM_BARE,
    STEP_SYSTEM,
    STEP_SYSTEM_BARE,
    PromptFormat,
    PromptRenderer,
    Shot,
)
from srl.objectives.table import objectives

CHAT = (
    "{% for turn in messages %}[{{ turn.role }}]{{ turn.content }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
TITLED = Trajectory(
    uid="u1",
    problem="P?",
    preamble="Intro.",
    steps=(Step(1, "Add", "1+1=2"), Step(2, "Double", "2*2=4"), Step(3, "End", "so 4")),
    answer="4",
    conclusion="Done.",
)
PLAIN = Trajectory("u2", "Q?", "", (Step(1, "", "a"), Step(2, "", "b")), answer="a\nb", answer_check="exact")


def builder(tokenizer, template="raw", limits=None, **kwargs):
    renderer = PromptRenderer(tokenizer, PromptFormat(template), kwargs.get("think", True))
    return ExampleBuilder(renderer, limits or ResponseLimits(), **kwargs)


def chat_tokenizer(template=CHAT):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def text_of(tokenizer, example):
    return tokenizer.decode(list(example.prompt_ids))


# -- examples ---------------------------------------------------------------------------------------------


def test_n_steps_give_n_minus_1_examples_with_the_next_step_as_target(tokenizer):
    found = builder(tokenizer).steps(TITLED, "srl")
    assert [(e.step, e.target) for e in found] == [(1, "1. **Add**:\n1+1=2"), (2, "2. **Double**:\n2*2=4")]
    # the context: problem, preamble, earlier steps whole, and the title of the step to write
    assert [text_of(tokenizer, e) for e in found] == [
        "P?\nIntro.\nAdd\n",
        "P?\nIntro.\n1. **Add**:\n1+1=2\nDouble\n",
    ]
    assert {(e.uid, e.objective, e.n_steps, e.answer) for e in found} == {("u1", "srl", 3, "4")}


def test_what_can_be_copied_is_what_the_prompt_shows(tokenizer):
    """The title of the step to write is in it; of a history that is cut, only what is left of it."""
    first, second = builder(tokenizer).steps(TITLED, "srl")
    assert first.context == ("P?", "Intro.", "1. **Add**:")
    earlier = ("1. **Add**:\n1+1=2", "1.", "**Add**:", "1+1=2")
    assert second.context == ("P?", "Intro.", "2. **Double**:", *earlier)
    assert builder(tokenizer, title_hint=False).steps(TITLED, "srl")[0].context == ("P?", "Intro.")
    renderer = PromptRenderer(tokenizer, PromptFormat("raw", context_turns=1), True)
    steps = tuple(Step(k, "", text, observation=said) for k, (text, said) in enumerate(ACTED, 1))
    one = ExampleBuilder(renderer, ResponseLimits())
    cut = one.steps(Trajectory("u3", "Go.", "Intro.", steps, None), "srl")
    shown = [("Go.",), ("Go.", "take key", "Taken."), ("Go.", "go on", "Hall.")]
    assert [example.context for example in cut] == shown
    turn = one.turn(replace(cut[0], others=("other",)), steps[:2])
    assert (turn.context, turn.others) == (shown[2], ())


ACTED = [("take key", "Taken."), ("go on", "Hall."), ("take key", "No."), ("end", "")]


def test_a_step_may_be_that_of_another_solution_which_begins_alike(tokenizer):
    ways = (("c", "b"), ("a", "c"), ("a", "c", "d"), ("c",), ("a",), ("a", "b"))
    found = builder(tokenizer, include_last=True).steps(replace(PLAIN, references=ways), "srl")
    assert [(e.target, e.others) for e in found] == [("a", ("c",)), ("b", ("c",))]


def test_include_last_gives_n_examples(tokenizer):
    found = builder(tokenizer, include_last=True).steps(TITLED, "srl")
    assert [e.target for e in found][2:] == ["3. **End**:\nso 4"]
    assert len(found) == 3


def test_title_hint_can_be_left_out(tokenizer):
    found = builder(tokenizer, title_hint=False).steps(TITLED, "srl")
    assert [text_of(tokenizer, e) for e in found] == [
        "P?\nIntro.\n",
        "P?\nIntro.\n1. **Add**:\n1+1=2\n",
    ]


def test_limits_and_stop_strings_differ_for_a_step_and_a_solution(tokenizer):
    limits = ResponseLimits(step_tokens=7, solution_tokens=9, step_stop=("\n",))
    made = builder(tokenizer, limits=limits, think=False)
    (step,), (whole,) = made.steps(PLAIN, "srl"), made.problem(PLAIN, "rlvr")
    assert (step.max_new_tokens, step.stop, step.think) == (7, ("\n",), False)
    assert (whole.max_new_tokens, whole.stop, whole.step) == (9, (), 0)


def test_where_the_solution_goes_on_only_a_stop_string_may_end_a_step(tokenizer):
    # three steps: the third is the last, so the end token is right there, and in a whole solution anyway
    strict = builder(tokenizer, limits=ResponseLimits(step_stop=("\n",), step_end="stop"), include_last=True)
    assert [e.goes_on for e in strict.steps(TITLED, "srl")] == [True, True, False]
    assert [e.goes_on for e in strict.problem(TITLED, "rlvr")] == [False]
    assert [e.goes_on for e in strict.suffixes(TITLED, "reverse")] == [False] * 3
    # a model that solves step by step may need fewer steps than the expert
    assert [e.goes_on for e in strict.next_step(TITLED, ["1+1=2"])] == [False]
    usual = builder(tokenizer, limits=ResponseLimits(step_stop=("\n",)))
    assert [e.goes_on for e in usual.steps(TITLED, "srl")] == [False, False]
    with pytest.raises(ConfigError, match=r"data.limits.step_end is stop, but data.limits.step_stop has no"):
        ResponseLimits(step_end="stop")


def test_a_whole_problem_is_compared_with_the_whole_solution(tokenizer):
    (whole,) = builder(tokenizer).problem(TITLED, "rlvr")
    assert text_of(tokenizer, whole) == "P?\n"  # nothing of the solution, no preamble
    assert (
        whole.target == "Intro.\n1. **Add**:\n1+1=2\n2. **Double**:\n2*2=4\n3. **End**:\nso 4\nDone."
    )  # preamble, steps and conclusion
    assert (whole.answer, whole.answer_check) == ("4", "math")


@pytest.mark.parametrize(
    ("answer", "check", "reason"),
    [
        (None, "math", "no answer"),
        ("1 2 3", "math", "answer cannot be checked: '1 2 3'"),  # math-verify reads a product
        ("1 2 3", "exact", None),
    ],
)
def test_a_problem_whose_answer_cannot_be_checked_is_skipped_with_the_reason(
    tokenizer, answer, check, reason
):
    made = builder(tokenizer)
    found = made.problem(Trajectory("u", "P?", "", PLAIN.steps, answer, answer_check=check), "rlvr")
    assert len(found) == (reason is None)
    assert made.skipped == ([("rlvr", "u", reason)] if reason else [])


def test_a_prompt_over_the_limit_is_skipped_never_cut(tokenizer):
    # one token a character: step 1's prompt "P?\nIntro.\nAdd\n" has 3 + 7 + 4 = 14; step 2's has
    # "1. **Add**:\n1+1=2\n", 11 + 1 + 5 + 1 = 18, and "Double\n", 7: 3 + 7 + 18 + 7 = 35
    assert [len(e.prompt_ids) for e in builder(tokenizer).steps(TITLED, "srl")] == [14, 35]
    made = builder(tokenizer, limits=ResponseLimits(max_prompt_tokens=34))
    assert [e.step for e in made.steps(TITLED, "srl")] == [1]
    assert made.skipped == [
        ("srl", "u1", "prompt over data.limits.max_prompt_tokens 34: step 2 has 35 tokens")
    ]
    made = builder(tokenizer, limits=ResponseLimits(max_prompt_tokens=35))
    assert len(made.steps(TITLED, "srl")) == 2  # the limit itself is allowed
    made = builder(tokenizer, limits=ResponseLimits(max_prompt_tokens=2))
    assert made.problem(TITLED, "rlvr") == []
    assert made.skipped[0].reason.endswith("whole problem has 3 tokens")


def test_imitation_has_the_experts_tokens_and_an_end(tokenizer):
    known = objectives()
    stop = ResponseLimits(step_stop=("\n", ";"))
    (stopped,) = known["sft_step"].examples(builder(tokenizer, limits=stop, end_id=1), [PLAIN])
    assert tokenizer.decode(list(stopped.target_ids)) == "a\n"  # as sampling would end it
    (ended,) = known["sft_step"].examples(builder(tokenizer, end_id=1), [PLAIN])
    assert ended.target_ids == (*tokenizer("a")["input_ids"], 1)
    (neither,) = known["sft_step"].examples(builder(tokenizer), [PLAIN])
    assert neither.target_ids == tuple(tokenizer("a")["input_ids"])
    (sampled,) = known["srl"].examples(builder(tokenizer, limits=stop, end_id=1), [PLAIN])
    assert sampled.target_ids == ()


def test_imitation_writes_the_experts_thinking_where_there_is_any(tokenizer):
    steps = (Step(1, "", "a", thinking="so it is"), Step(2, "", "b"), Step(3, "", "c"))
    trajectory = Trajectory("u", "Q?", "", steps, answer="c")
    imitation = objectives()["sft_step"]
    made = imitation.examples(builder(tokenizer, end_id=1), [trajectory])
    assert [tokenizer.decode(list(e.target_ids[:-1])) for e in made] == ["<think>so it is</think>a", "b"]
    bare = imitation.examples(builder(tokenizer, end_id=1, think=False), [trajectory])
    assert tokenizer.decode(list(bare[0].target_ids[:-1])) == "a"
    assert made[0].target == "a", "the reward never sees the thinking"


def test_an_objective_builds_its_own_examples(tokenizer):
    made = builder(tokenizer)
    found = {name: one.examples(made, [TITLED, PLAIN]) for name, one in objectives().items()}
    steps = [("u1", 1, ()), ("u1", 2, ()), ("u2", 1, ())]
    whole = [("u1", 0, ()), ("u2", 0, ())]
    first = ("1. **Add**:\n1+1=2", "2. **Double**:\n2*2=4")
    starts = [("u1", 0, ()), ("u1", 0, first[:1]), ("u1", 0, first), ("u2", 0, ()), ("u2", 0, ("a",))]
    assert {name: [(e.uid, e.step, e.given) for e in examples] for name, examples in found.items()} == {
        "sft": [], "sft_outline": whole, "sft_step": steps,
        "srl": steps, "rlvr": whole, "holistic": whole, "reverse": starts, "prefix": starts,
        "rlsd": whole, "rlsd_step": steps, "distil": whole, "distil_step": steps,
        "sdpo": whole,
        "srl_own": [], "episode": [], "progress": [], "meta": [],
    }  # fmt: skip
    assert all(e.objective == name for name, examples in found.items() for e in examples)
    assert [name for name, examples in found.items() if any(e.target_ids for e in examples)] == [
        "sft_outline", "sft_step",
    ]  # fmt: skip
    assert {skip.where for skip in made.skipped} == {
        "sft", "srl_own", "episode", "progress", "meta",
    }  # fmt: skip  # no reasoning, no worlds


def test_a_teacher_reads_the_same_prompt_after_the_experts_own_answer(tokenizer):
    steps = (Step(1, "", "a"), Step(2, "", "b"))
    trajectory = Trajectory("u", "Q?", "", steps, answer="b")
    made = builder(tokenizer, include_last=True)
    _, second = objectives()["rlsd_step"].examples(made, [trajectory])
    assert text_of(tokenizer, second) == "Q?\na\n"
    taught = tokenizer.decode(list(second.taught_ids))
    assert taught == "Q?\na\nb\n\nQ?\na\n"
    assert (second.teaching, second.target) == ("size", "b")
    (whole,) = objectives()["distil"].examples(made, [trajectory])
    assert tokenizer.decode(list(whole.taught_ids)) == "Q?\na\nb\n\nQ?\n"
    assert whole.teaching == "target"
    short = builder(tokenizer, include_last=True, limits=ResponseLimits(max_prompt_tokens=9))
    assert len(objectives()["srl"].examples(short, [trajectory])) == 2
    assert [e.step for e in objectives()["rlsd_step"].examples(short, [trajectory])] == [1]
    assert "teacher's prompt over data.limits.max_prompt_tokens 9" in short.skipped[-1].reason


def test_solving_by_steps_shows_the_models_own_steps_alone(tokenizer):
    (asked,) = builder(tokenizer).next_step(TITLED, ["mine", "too"])
    assert text_of(tokenizer, asked) == "P?\nmine\ntoo\n"  # no preamble, no title: they are the expert's
    assert (asked.step, asked.target) == (3, "")
    made = builder(tokenizer, limits=ResponseLimits(max_prompt_tokens=11))
    assert made.next_step(TITLED, ["mine", "too"]) == []  # 3 + 5 + 4 = 12 tokens


def test_shots_are_the_second_step_or_the_whole_solution(tokenizer):
    made = builder(tokenizer, shots=[TITLED], think=False)
    assert made.step_shots == [Shot("P?\nIntro.\n1. **Add**:\n1+1=2\nDouble\n", "2. **Double**:\n2*2=4")]
    assert made.solution_shots == [Shot("P?\n", TITLED.solution)]
    (step,), (whole,) = made.steps(PLAIN, "srl"), made.problem(PLAIN, "rlvr")
    shown = "P?\nIntro.\n1. **Add**:\n1+1=2\nDouble\n2. **Double**:\n2*2=4\n\n"
    assert text_of(tokenizer, step) == shown + "Q?\n"
    assert text_of(tokenizer, whole) == "P?\n" + TITLED.solution + "\n\nQ?\n"
    bare = builder(tokenizer, shots=[TITLED], think=False, title_hint=False)
    assert bare.step_shots[0].request == "P?\nIntro.\n1. **Add**:\n1+1=2\n"


def test_a_demonstration_shows_what_was_printed_before_its_step(tokenizer):
    first, *others = TITLED.steps
    shown = replace(TITLED, steps=(replace(first, observation="ok"), *others))
    agent = PromptRenderer(tokenizer, PromptFormat("raw", context_turns=3), think=False)
    (shot,) = ExampleBuilder(agent, ResponseLimits(), think=False, shots=[shown]).step_shots
    assert shot.request == "P?\n1. **Add**:\n1+1=2\nprinted:\nok\nDouble\n"


@pytest.mark.parametrize(("ending", "opened"), [("<think>\n", True), ("", False)])
def test_a_tag_opened_by_the_prompt_belongs_to_the_response(ending, opened):
    tokenizer = chat_tokenizer(CHAT + ending)
    (example,) = builder(tokenizer, "chat").steps(PLAIN, "srl")
    assert example.opened == opened
    assert example.response("x</think>y") == ("<think>x</think>y" if opened else "x</think>y")


# -- prompts ----------------------------------------------------------------------------------------------


def test_plain_text_labels_problem_steps_and_hint(tokenizer):
    renderer = PromptRenderer(tokenizer, PromptFormat("plain", step_system="S", solution_system=""))
    assert renderer.step("P", ["one", "two"], "T") == (
        "S\n\nProblem: P\n\nSteps so far:\none\ntwo\n\nThe next step is: T\n\nNext step:\n"
    )
    assert renderer.step("P", []) == "S\n\nProblem: P\n\nNext step:\n"
    assert (
        renderer.solution("P") == "Problem: P\n\nSolution:\n"
    )  # an empty system prompt leaves no blank line
    shot = Shot(renderer.request("A"), "done")
    assert renderer.solution("P", [shot]) == "Problem: A\n\nSolution:\ndone\n\nProblem: P\n\nSolution:\n"


def test_chat_turns_are_system_shots_and_request():
    renderer = PromptRenderer(chat_tokenizer(), PromptFormat("auto", step_system="S", solution_system=""))
    assert renderer.template == "chat"
    assert renderer.step("P", ["one"], "T", [Shot("A", "done")]) == (
        "[system]S[user]A[assistant]done[user]P\n\nSteps so far:\none\n\nThe next step is: T[assistant]"
    )
    assert renderer.solution("P") == "[user]P[assistant]"  # an empty system prompt is no turn


@pytest.mark.parametrize(
    ("think", "step", "solution"),
    [(True, STEP_SYSTEM, SOLUTION_SYSTEM), (False, STEP_SYSTEM_BARE, SOLUTION_SYSTEM_BARE)],
)
def test_our_system_prompts_ask_for_thinking_only_where_it_is_read(tokenizer, think, step, solution):
    renderer = PromptRenderer(tokenizer, PromptFormat("plain"), think)
    assert (renderer.step_system, renderer.solution_system) == (step, solution)
    assert ("<think>" in step) == ("<think>" in solution) == think
    # a null takes ours, whatever the other is
    renderer = PromptRenderer(tokenizer, PromptFormat("plain", solution_system="mine"), think)
    assert (renderer.step_system, renderer.solution_system) == (step, "mine")


def test_no_chat_template_is_said_and_asking_for_one_is_refused(tokenizer, caplog, monkeypatch):
    logger = logging.getLogger("srl.examples.prompts")  # the command line stops propagation: listen here
    monkeypatch.setattr(logger, "handlers", [caplog.handler])
    monkeypatch.setattr(logger, "propagate", False)
    assert PromptRenderer(tokenizer).template == "plain"
    assert [record.getMessage() for record in caplog.records] == [
        "The tokenizer has no chat template: prompts are plain text (data.prompt.template: plain)"
    ]
    caplog.clear()
    PromptRenderer(tokenizer, PromptFormat("plain"))
    PromptRenderer(chat_tokenizer())
    assert not caplog.records
    with pytest.raises(ConfigError, match="template is chat, but the tokenizer has no chat template"):
        PromptRenderer(tokenizer, PromptFormat("chat"))


@pytest.mark.parametrize(("template", "adds"), [("plain", True), ("raw", True), ("chat", False)])
def test_special_tokens_are_added_to_what_no_chat_template_wrote(template, adds):
    tokenizer = chat_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<unk> $A", special_tokens=[("<unk>", 2)]
    )
    ids = PromptRenderer(tokenizer, PromptFormat(template)).ids("ab")
    assert ids == ((2,) if adds else ()) + tuple(tokenizer("ab", add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize("name", ["step_tokens", "solution_tokens", "max_prompt_tokens"])
def test_limits_of_nothing_are_refused(name):
    with pytest.raises(ConfigError, match=name):
        ResponseLimits(**{name: 0})
