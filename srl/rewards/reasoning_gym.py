"""Answers to reasoning-gym's problems, by the scorer of the data set that made each.

`reward.verifier: srl.rewards.reasoning_gym.Scorer`. A row's answer is its whole entry as JSON: question,
answer, and metadata with source_dataset. What is judged stands between the last <answer> tags, as the gym's
prompts ask for, else it is all that follows the thinking. The score, of 0 to 1, is the reward; an answer on
which its scorer raises, as several do on another form than they expect, earns 0.

Source: reasoning-gym 0.1 (Apache-2.0), an extra: pip install 'srl[reasoning-gym]'.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from srl.errors import ConfigError
from srl.response import after_thinking


class Scorer:
    """Says of a response what its data set's own `score_answer` says of the answer."""

    def __init__(self) -> None:
        try:
            import reasoning_gym
        except ImportError as error:
            raise ConfigError(f"{error}; pip install 'srl[reasoning-gym]'") from error
        self.gym = reasoning_gym
        self.scorer = cache(reasoning_gym.get_score_answer_fn)

    def __call__(self, response: str, answer: str, problem: str) -> float:
        entry = entry_of(answer)
        said = (after_thinking(response) or "").strip()
        marked = self.gym.utils.extract_answer(said)
        scorer = self.scorer(entry["metadata"]["source_dataset"])
        try:
            return float(scorer(marked or said, entry))
        except Exception:  # whatever the scorer's own code raises
            return 0.0


def entry_of(answer: str) -> dict[str, Any]:
    """ValueError: the row's answer is no entry of reasoning-gym's."""
    try:
        entry = json.loads(answer)
        entry["metadata"]["source_dataset"], entry["answer"]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"the row's answer {answer[:60]!r} is no entry of reasoning-gym as JSON (docs/method.md)"
        ) from error
    return dict(entry)
