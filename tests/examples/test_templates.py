"""Chat templates and tokenizers as they are: how turns end, what a prompt opens, what is added to it."""

import logging

import pytest
import torch
from conftest import tiny_tokenizer
from make import CHATML, chat_tokenizer, ready
from tokenizers.processors import TemplateProcessing

from srl.cli.chat import builder_of
from srl.data.trajectory import Step, Trajectory
from srl.evaluation.solving import solve_whole
from srl.examples.builder import ExampleBuilder, ResponseLimits
from srl.examples.prompts import PromptFormat, PromptRenderer
from srl.objectives.table import objectives
from srl.types import Completion, Sampling

WAY = Trajectory("u", "Q?", "", (Step(1, "", "a=1"), Step(2, "", "b=2")), answer="2")


@pytest.mark.parametrize(("template", "end"), [("chat", "<|im_end|>"), ("plain", "<eos>"), ("raw", "<eos>")])
def test_an_imitated_response_ends_as_the_template_ends_a_turn(template, end, expert_file):
    tokenizer = chat_tokenizer()
    data = ready(expert_file, prompt=PromptFormat(template), tokenizer=tokenizer)
    for made in (data.builder, builder_of(data, tokenizer)):
        (step,) = made.step(WAY, 1, "sft_step", imitate=True)
        (whole,) = made.imitated(WAY, "sft_outline", reasoning=False)
        assert tokenizer.decode(list(step.target_ids)) == f"a=1{end}"
        assert tokenizer.decode(list(whole.target_ids)) == f"{WAY.solution}{end}"


OPENS = CHATML.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
OPENS_BARE = CHATML.replace("assistant\n{% endif %}", "assistant\n<think>{% endif %}")
CLOSING = (
    "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% else %}<think>\n{% endif %}"
)
ASKED = CHATML.replace("assistant\n{% endif %}", "assistant\n" + CLOSING + "{% endif %}")


@pytest.fixture
def said(caplog, monkeypatch):
    logger = logging.getLogger(
        "srl.examples.chat_template"
    )  # listen here: the command line stops propagation
    caplog.set_level(logging.WARNING, logger=logger.name)
    monkeypatch.setattr(logger, "handlers", [caplog.handler])
    monkeypatch.setattr(logger, "propagate", False)
    return lambda: [record.getMessage() for record in caplog.records]


class Parrot:
    """An engine that answers every prompt with one text."""

    def __init__(self, text):
        self.text = text

    def generate(self, examples, n, sampling, generator):
        return [[Completion((1,), self.text, torch.zeros(1), True, True)] * n for _ in examples]


def built(template, think):
    tokenizer = chat_tokenizer(template)
    return ExampleBuilder(
        PromptRenderer(tokenizer, PromptFormat(), think), ResponseLimits(), think=think, end_id=1
    )


def earned(name, example, text):
    return objectives()[name].reward([(example, Parrot(text).generate([0], 1, None, None)[0])])[0]["reward"]


@pytest.mark.parametrize(
    ("template", "ending", "how"),
    [
        (OPENS, "<think>\n\n</think>\n\n", "an empty thinking, closed by </think>"),
        (OPENS_BARE, "<think>\n\n</think>\n\n", "an empty thinking, closed by </think>"),
        (ASKED, "<think></think>", "enable_thinking: false"),  # as the template itself writes it
        (CHATML, "<|im_start|>assistant\n", None),
    ],
)
def test_without_thinking_an_exact_copy_earns_1_whatever_the_template_opens(template, ending, how, said):
    made = built(template, think=False)
    (step,), (whole,) = made.step(WAY, 1, "srl", False), made.problem(WAY, "rlvr")
    (asked,) = made.next_step(WAY, [])
    for example in (step, whole, asked):
        assert made.renderer.tokenizer.decode(list(example.prompt_ids)).endswith(ending)
        assert not example.opened
    assert earned("srl", step, "a=1") == [1.0]
    assert earned("holistic", made.problem(WAY, "holistic")[0], WAY.solution) == [1.0]
    assert earned("rlvr", whole, "The answer is \\boxed{2}") == [1.0]
    expected = f"The chat template opens <think>, and data.think is false: prompts have {how}"
    assert said() == ([] if how is None else [expected])  # once, for four prompts


@pytest.mark.parametrize("template", [OPENS, ASKED])
def test_without_thinking_an_exact_check_reads_the_whole_response(template):
    exact = Trajectory("u", "Q?", "", WAY.steps, answer="a=1\nb=2", answer_check="exact")
    (whole,) = built(template, think=False).problem(exact, "rlvr")
    ((solved,),) = solve_whole(Parrot("a=1\nb=2"), [whole], 1, Sampling(0.0), torch.Generator())
    assert (solved.correct, solved.in_format, solved.text) == (True, True, "a=1\nb=2")


@pytest.mark.parametrize("template", [OPENS, OPENS_BARE, ASKED])
def test_with_thinking_the_tag_stays_open_and_belongs_to_the_response(template, said):
    (step,) = (made := built(template, think=True)).step(WAY, 1, "srl", False)
    assert made.renderer.tokenizer.decode(list(step.prompt_ids)).rstrip().endswith("<think>")
    assert step.opened
    assert earned("srl", step, "hm</think>\na=1") == [1.0]
    assert said() == []


def test_a_problem_that_ends_in_a_tag_opens_nothing_where_nobody_thinks():
    renderer = PromptRenderer(chat_tokenizer(), PromptFormat("raw"), False)
    made = ExampleBuilder(renderer, ResponseLimits(), think=False)
    tagged = Trajectory("u", "Close <think>", "", WAY.steps, answer="2")
    assert earned("srl", made.step(tagged, 1, "srl", False)[0], "a=1") == [1.0]


@pytest.mark.parametrize(
    ("adds", "before"),
    [("<unk> $A <eos>", (2,)), ("$A <eos>", ()), ("$A:0 <pad> <eos>", ()), ("<eos> $A", (1,))],
)
@pytest.mark.parametrize("template", ["plain", "raw", "chat"])
def test_nothing_stands_between_a_prompt_and_its_response(adds, before, template):
    """An end token in front is how some tokenizers begin a text; behind it, it ended the response."""
    tokenizer = chat_tokenizer()
    names = [name for name in ("<pad>", "<eos>", "<unk>") if name in adds]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=adds, special_tokens=[(name, tokenizer.convert_tokens_to_ids(name)) for name in names]
    )
    renderer = PromptRenderer(tokenizer, PromptFormat(template), False)
    text = renderer.step("a?", ["b"])
    bare = tuple(tiny_tokenizer()("a?")["input_ids"])
    assert renderer.ids("a?") == (() if template == "chat" else before) + bare
    assert renderer.ids(text)[-1] not in tokenizer("")["input_ids"]
