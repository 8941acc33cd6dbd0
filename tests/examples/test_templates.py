"""Chat templates and tokenizers as they are: how turns end, what a prompt opens, what is added to it."""

import pytest
from make import chat_tokenizer, ready

from srl.cli.chat import builder_of
from srl.data.trajectory import Step, Trajectory
from srl.examples.prompts import PromptFormat

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
