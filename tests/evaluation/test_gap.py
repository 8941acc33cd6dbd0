"""What a teacher knows more, on a model whose answer is known: it copies what stands before the question."""

import torch
from make import example

from srl.evaluation.gap import Gap, gap
from srl.objectives.table import objectives
from srl.types import Completion


class Copier:
    """Writes the first letter of the prompt, which a teacher's prompt begins with the answer."""

    device = torch.device("cpu")

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def generate(self, examples, n, sampling, generator):
        assert (n, sampling.temperature) == (1, 0.0)
        texts = [self.tokenizer.decode(list(one.prompt_ids[:1])) for one in examples]
        return [[Completion((1,), text, torch.zeros(1), True)] for text in texts]


def asked(tokenizer, text, target, **kwargs):
    knowing = example(target + text, tokenizer).prompt_ids
    return example(text, tokenizer, teaching="size", taught_ids=knowing, **kwargs)


def test_the_gap_is_counted_on_steps_and_on_answers(tokenizer):
    steps = [asked(tokenizer, text, "t") for text in ("x?", "t?", "y?", "z?")]  # the target is "t"
    found = gap(Copier(tokenizer), objectives()["rlsd_step"], steps)
    assert found == Gap(without=0.25, knowing=1.0, examples=4)
    assert found.said("a") == (
        "a: of 4 examples 0.25 are right, and 1.00 with the expert's answer before them"
    )


def test_a_teacher_that_knows_no_more_is_said_to_teach_nothing():
    assert "teaches nothing" in Gap(0.5, 0.55, 64).said("rlsd")
    assert "teaches nothing" in Gap(0.5, 0.2, 64).said("rlsd")


def test_inspect_measures_it_and_refuses_where_there_is_no_teacher(inspect, expert_file):
    phases = "[{name: x, mix: {distil_step: 1.0}}]"
    more = ["--confidence", "--model.test.test_time.forced_answer", "so ", "--no_prompts"]
    out = " ".join(inspect(expert_file, "--gap", *more, "--curriculum.phases", phases).out.split())
    assert "with the expert's answer before them" in out
    assert "held-out problems" in out
    assert "are sure too early" in out
    err = inspect(expert_file, "--output", "curve.png", status=2).err
    assert "it takes the plot of --confidence" in " ".join(err.split())
    phases = "[{name: x, mix: {srl: 1.0}}]"
    err = inspect(expert_file, "--gap", "--no_prompts", "--curriculum.phases", phases, status=2).err
    assert "--gap: no objective of this curriculum has a teacher" in " ".join(err.split())
