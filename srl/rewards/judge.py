"""A judge of steps: what it is asked, and how (StepWiser, arXiv 2508.19229).

It reads the problem, the steps so far and one more step, analyses freely and ends in a verdict. Who answers
stands in `srl.evaluation.votes`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from srl.errors import ConfigError, check_counts
from srl.rewards.verdict import BOXED, Words, check_of, check_words
from srl.server import check_address, check_variable

REQUEST = """Problem:
{problem}

Steps so far:
{past}

Step to judge:
{step}

Is this step right, and can a right answer still come of it? Analyse it first. Then end with \
{positive} or {negative}, once and with nothing after it."""
_HOLE = re.compile(r"\{(problem|past|step|positive|negative)\}")


@dataclass(frozen=True)
class JudgeSettings:
    """Who judges single steps, and how it is asked."""

    adapter: str | bool = "off"
    """Whose weights judge: off, the policy's base without its adapter, or the checkpoint of a judge that was
    trained on this base with this model.lora; it stands where the policy's adapter does while it judges."""
    votes: int = 1
    """Responses to each step."""
    temperature: float = 1.0
    """Of the votes; 0 is greedy, with one vote."""
    tokens: int = 1024
    """Tokens of a response, at most; analysis and verdict."""
    max_prompt_tokens: int = 2048
    """Longest request to the policy's own base, in tokens; a step with a longer one gets no vote, and that is
    counted."""
    think: bool = False
    """Whether the judge begins with <think>...</think>; the verdict stands behind it."""
    system: str = "You judge single steps of solutions."
    """System prompt, where prompts have one."""
    request: str | None = None
    """What is asked, with {problem}, {past} (the steps so far) and {step}; the words may stand there as
    {positive} and {negative}. null is ours."""
    positive: str = BOXED[0]
    """The verdict that a step is right."""
    negative: str = BOXED[1]
    """The verdict that it is wrong."""

    url: str | None = None
    """Address of an OpenAI-compatible server that judges instead, such as http://localhost:8000/v1; null
    asks the policy's own base."""
    model: str = ""
    """The model's name on that server."""
    key_variable: str = "SRL_JUDGE_KEY"
    """Environment variable that holds the server's API key; it may be unset. The key stands nowhere else."""
    time_limit: float = 120.0
    """Seconds that the server has for one response."""
    patience: float = 600.0
    """Seconds that a server may answer nothing, while it is asked again and again; then the run is stopped,
    its last.ckpt written."""

    def __post_init__(self) -> None:
        where = "judge."
        counts = {"votes": self.votes, "tokens": self.tokens, "max_prompt_tokens": self.max_prompt_tokens}
        check_counts(where, 1, **counts)
        if self.adapter is True or self.adapter == "":
            raise ConfigError(f"{where}adapter is {self.adapter!r}: write off, or the checkpoint of a judge")
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ConfigError(f"{where}temperature is {self.temperature}: write 0 for greedy, or more")
        if self.temperature == 0 and self.votes > 1:
            raise ConfigError(f"{where}votes is {self.votes}, but greedy votes are all the same: write 1")
        self._check_texts(where)
        self._check_server(where)

    def _check_texts(self, where: str) -> None:
        if self.request is not None and not {"problem", "step"} <= set(_HOLE.findall(self.request)):
            raise ConfigError(f"{where}request lacks {{problem}} or {{step}}: write where they stand")
        check_words(where, self.words)

    def _check_server(self, where: str) -> None:
        for name in ("time_limit", "patience"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{where}{name} is {value}: write seconds above 0")
        check_variable(f"{where}key_variable", self.key_variable)
        if self.url is None:
            return
        address = "http://localhost:8000/v1"
        check_address(f"{where}url", self.url, f"{where}key_variable", address)
        if not self.model:
            raise ConfigError(f"{where}url is given, but not {where}model: write the model's name there")
        if self.adapter not in (False, "off"):
            raise ConfigError(f"{where}url and {where}adapter are both given: one of them judges")
        if self.think:
            raise ConfigError(f"{where}think is for the policy's own base; {where}url names a server")

    @property
    def words(self) -> Words:
        return self.positive, self.negative

    @property
    def file(self) -> str | None:
        """The checkpoint that judges; None for the base."""
        return None if self.adapter in (False, "off") else str(self.adapter)

    @property
    def check(self) -> str:
        """The answer_check of rows that train such a judge."""
        return check_of(self.words)

    def asks(self, problem: str, past: Sequence[str], step: str) -> str:
        """What asks for a verdict on a step behind those so far.

        >>> JudgeSettings(request="{step}|{problem}\\n{past}").asks("1+1", [], "{past}2")
        '{past}2|1+1'
        """
        nothing = "(none)" if self.request is None else ""
        filled = {"problem": problem, "past": "\n".join(past) or nothing, "step": step}
        filled |= {"positive": self.positive, "negative": self.negative}
        return _HOLE.sub(lambda hole: filled[hole[1]], self.request or REQUEST).strip()
