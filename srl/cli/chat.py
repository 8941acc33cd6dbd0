"""`python -m srl chat`: ask a trained policy problems in the terminal; its thinking is dimmed.

A line that is a task of a world (`textworld:rooms=2,seed=7`) is played, and shown turn by turn.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from rich.console import Console
from rich.text import Text

from srl.cli.options import OptionParser, add_tracking_uri
from srl.errors import ConfigError, DataError
from srl.worlds.table import class_of, is_task
from srl.worlds.world import Lost

PROMPT = "problem> "


def main(arguments: list[str]) -> None:
    """Read a problem a line until the end of the input, and answer each, step by step or whole."""
    options, rest = parse(arguments)
    if options.temperature < 0:
        raise ConfigError(f"--temperature is {options.temperature}: use 0 for greedy, or a positive number")
    from srl.cli.loading import load_trained

    trained = load_trained(options.ckpt_path, options.tracking_uri, rest)
    chat = Chat(trained, options.temperature, options.seed)
    console = Console(highlight=False)
    how = "whole solutions" if options.whole else "step by step"
    console.print(f"{trained.path}, update {trained.update}, {how}. One problem a line; Ctrl-D ends.")
    for problem in problems():
        try:
            if is_task(problem):
                for text in chat.play(problem):
                    console.print(text)
                continue
            for thinking, action in chat.whole(problem) if options.whole else chat.steps(problem):
                show(console, thinking, action)
        except (ConfigError, DataError) as error:  # a problem that is too long is no reason to end
            console.print(Text(str(error), style="red"))


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = OptionParser(
        prog="python -m srl chat",
        description="Base and config come from the checkpoint's MLflow run, or from --config FILE. Further "
        "options are those of fit, for example --data.limits.solution_tokens 512.",
    )
    parser.add_argument("--ckpt_path", required=True, help="the file; with --config also last or best")
    parser.add_argument("--whole", action="store_true", help="one response instead of step by step")
    parser.add_argument("--temperature", type=float, default=0.0, help="0, the default, is greedy")
    parser.add_argument("--seed", type=int, default=0, help="of the sampling, with a temperature")
    add_tracking_uri(parser)
    return parser.parse_known_args(arguments)


_MATHS = re.compile(r"\$[^$]*\$|\\\(.*?\\\)|\\\[.*?\\\]")
_LATEX = (
    "abla|atural|cong|e|earrow|eg|eq|eqq|ewline|exists|geq|geqslant|gtr|i|leftarrow|Leftarrow|leftrightarrow|leq|"
    "leqslant|less|mid|orm|ot|otin|parallel|prec|preceq|rightarrow|Rightarrow|sim|subseteq|succ|succeq|supseteq|"
    "u|vdash|vDash|warrow"
)
_BREAK = re.compile(rf"\\n(?!(?:{_LATEX})(?![A-Za-z]))")


def problems() -> Iterator[str]:
    r"""Lines of standard input, blank ones left out; `\n` in a line stands for a line break, but where it
    begins a command of LaTeX in mathematics, as in $x \neq y$.
    """
    while True:
        try:
            line = input(PROMPT if sys.stdin.isatty() else "")
        except EOFError:
            return
        if line.strip():
            yield broken(line.strip())


def broken(line: str) -> str:
    r"""
    >>> broken(r"Is $a \neq b$?\nu = 3"), broken(r"It costs $5.\nAnd $6?")
    ('Is $a \\neq b$?\nu = 3', 'It costs $5.\nAnd $6?')
    """
    found, end = "", 0
    for maths in _MATHS.finditer(line):
        found += line[end : maths.start()].replace("\\n", "\n") + _BREAK.sub("\n", maths[0])
        end = maths.end()
    return found + line[end:].replace("\\n", "\n")


def show(console: Console, thinking: str, action: str) -> None:
    """The text as it is: a model may write what looks like markup."""
    if thinking.strip():
        console.print(Text(thinking.strip(), style="dim italic"))
    console.print(Text(action))


class Chat:
    """A policy that is asked single problems, in the prompts and limits that it was trained with."""

    def __init__(self, trained: Any, temperature: float, seed: int) -> None:
        import torch

        from srl.cli.loading import trained_engine
        from srl.types import Sampling

        self.engine = trained_engine(trained)
        self.builder, self.worlds = builder_of(trained.data, trained.model.tokenizer), trained.data.worlds
        self.sampling = Sampling(temperature)
        self.generator = torch.Generator(self.engine.device).manual_seed(seed)

    def whole(self, problem: str) -> Iterator[tuple[str, str]]:
        """(thinking, solution) once; outside the format all of it is the solution."""
        from srl.response import split_solution

        found = self.builder.problem(asked(problem), "chat", needs_answer=False)
        text = self._generate(found)
        yield split_solution(text, think=self.builder.think) or ("", text)

    def steps(self, problem: str) -> Iterator[tuple[str, str]]:
        """(thinking, action) of each step, the actions fed back, until a final answer or 16 steps.

        A step outside the format is shown as it is and is the last, as is one that repeats the one before.
        """
        from srl.evaluation.solving import MAX_TURNS
        from srl.response import split_response
        from srl.rewards.extract import states_answer

        actions: list[str] = []
        for _ in range(MAX_TURNS):
            text = self._generate(self.builder.next_step(asked(problem), actions))
            parts = split_response(text, think=self.builder.think)
            yield parts or ("", text)
            if parts is None or states_answer(parts[1]) or parts[1] in actions[-1:]:
                return
            actions.append(parts[1])

    def play(self, task: str) -> Iterator[Text]:
        """What the world shows and `> action` in turn, as an episode of training goes, and how it ended.

        The world may be a class that the config does not name: its name is typed here.
        """
        from srl.play.player import Player

        named = class_of(task)
        worlds = replace(self.worlds, own=(*self.worlds.own, *([named] if named else []))).pool()
        try:
            (begun,) = worlds.reset([task])
            if isinstance(begun.seen, Lost):
                raise ConfigError(f"{task}: the play was lost ({begun.seen.reason})")
            (first,) = self._fitting(
                self.builder.episode(replace(asked(begun.seen.text), world=task), "chat")
            )
            yield Text(begun.seen.text)
            sample = self.engine.turns(self.sampling, self.generator)
            player, room = Player(self.builder, worlds), self.engine.most_tokens
            ((episode, turns),) = player.play([first], sample, room)
            for turn, answer in zip(turns, (*episode.seen, ""), strict=False):  # the last may have no answer
                thinking, action = first.read(turn) or ("", first.response(turn.text))
                yield from [Text(thinking.strip(), style="dim italic")] if thinking.strip() else []
                yield Text(f"> {action}", style="bold")
                yield from [Text(answer)] if answer else []
            yield Text(f"{episode.end} after {episode.turns} turns", style="dim")
        finally:
            worlds.close()

    def _generate(self, examples: list[Any]) -> str:
        ((completion,),) = self.engine.generate(self._fitting(examples), 1, self.sampling, self.generator)
        return examples[0].response(completion.text)

    def _fitting(self, examples: list[Any]) -> list[Any]:
        if not examples and not self.builder.skipped[-1].reason.startswith("prompt over"):
            raise ConfigError(f"the prompt cannot be written: {self.builder.skipped[-1].reason}")
        if not examples:
            raise ConfigError(
                f"the prompt is over data.limits.max_prompt_tokens {self.builder.limits.max_prompt_tokens}; "
                "give a shorter problem, or raise the limit"
            )
        return examples


def asked(problem: str) -> Any:
    """A problem without an expert."""
    from srl.data.trajectory import Trajectory

    return Trajectory(uid="asked", problem=problem, preamble="", steps=(), answer=None)


def builder_of(data: Any, tokenizer: Any) -> Any:
    """The data module's own builder; its data are read only where demonstrations come from them."""
    if not data.shots:
        return data.builder_for(tokenizer)
    data.prepare(tokenizer)
    return data.builder
