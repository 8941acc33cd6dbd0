"""Memory of rollouts: keys and values by the law of `srl.engine`, the passes by dry run.

Every rollout is taken to run to its limit, and every prompt to be of the longest length.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from srl.engine.caches import FIRST_CAPACITY
from srl.memory_plan.dry_run import prefill_pass
from srl.memory_plan.fake_model import Build
from srl.memory_plan.live_bytes import LiveBytes
from srl.memory_plan.model_shapes import widest
from srl.types import Sampling

PREFILL_TOKENS = 8192
"""What `RolloutEngine` prefills at once."""
SCORE_BYTES = 12
"""Of one attention score of a decode step: on the prompt or own, joined, after the softmax; float32 each."""


@dataclass(frozen=True)
class Call:
    """One call of the engine: distinct prompts of `prompt` tokens, n rollouts of `completion` tokens each.

    turns: of plays, whose prompts are kept for the next call (`srl.engine.history`). plays: of each prompt,
    every one with a prompt of its own in the end. sampling: what cuts the distribution takes memory. judge:
    of a reward's judge, whose lengths are its own.
    """

    prompts: int
    n: int
    prompt: int
    completion: int
    turns: bool = False
    plays: int = 1
    sampling: Sampling = Sampling()  # noqa: RUF009 - frozen
    judge: bool = False

    @property
    def distinct(self) -> int:
        """Prompts that no other row shares."""
        return self.prompts * self.plays


def keys_and_values(build: Build, call: Call, rows_in_flight: int) -> tuple[int, int]:
    """Bytes of the prompts' and of the rows' own, of as many as start together."""
    together = min(call.distinct, max(1, rows_in_flight // call.n))
    chunk = min(together, max(1, PREFILL_TOKENS // call.prompt))
    a_token = prefill_pass(build, chunk, call.prompt).kept / (chunk * call.prompt)
    own = own_columns(together * call.n, call.completion, waiting=call.distinct > together)
    return round(together * call.prompt * a_token), round(own * a_token)


def recorded(build: Build, call: Call, rows_in_flight: int) -> int:
    """Bytes of the copy that recorded steps hold (`srl.engine.static`). Where prompts wait, twice as many are
    in flight as start together, as long as one row of each is left.
    """
    prompts, own = keys_and_values(build, call, rows_in_flight)
    waiting = call.distinct > max(1, rows_in_flight // call.n)
    return (1 + waiting) * prompts + own


def rollout_parts(build: Build, call: Call, rows_in_flight: int) -> dict[str, int]:
    """Bytes beyond the weights at the worst moment: the first prefill, decoding, or prompts that enter later.

    What the parts are called is what a table shows; their sum is the peak.
    """
    if build.slow:
        return _slow_parts(build, call, rows_in_flight)
    together = min(call.distinct, max(1, rows_in_flight // call.n))
    rows = together * call.n
    waiting = call.distinct > together
    chunk = min(together, max(1, PREFILL_TOKENS // call.prompt))
    prefill = prefill_pass(build, chunk, call.prompt)
    prompts, own = keys_and_values(build, call, rows_in_flight)
    vocabulary = int(build.config.get_text_config().vocab_size)
    logits = 2 * 4 * together * vocabulary  # after each prompt, and once more stacked
    before = prompts if together > chunk else 0  # room for all is made when the first chunk is done
    moments = [
        {"keys and values of prompts": before, "prefill": prefill.peak + logits},
        {
            "keys and values of prompts": prompts,
            "keys and values of rollouts": own,
            "decoding and sampling": _decode(build, rows, call, vocabulary),
        },
    ]
    if waiting:  # all rows end at once: the next prompts are prefilled while these are still there
        moments.append(
            {
                "keys and values of prompts": 2 * prompts,
                "keys and values of rollouts": own,
                "prefill": prefill.peak + logits,
            }
        )
    if call.turns:  # those of the call before; and of this one, where their rows have left
        kept = (1 + waiting) * prompts
        moments = [parts | {"keys and values of turns": kept} for parts in moments]
    return max(moments, key=lambda parts: sum(parts.values()))


def _slow_parts(build: Build, call: Call, rows_in_flight: int) -> dict[str, int]:
    """As `srl.engine.general` does it: every row reads its own prompt, all of a batch at once, and keeps its
    keys and values until the batch ends. A step makes those of one layer anew, a token longer.
    """
    rows = min(call.distinct * call.n, rows_in_flight)
    text = build.config.get_text_config()
    prefill = prefill_pass(build, rows, call.prompt)
    kept = round(prefill.kept * (call.prompt + call.completion) / call.prompt)
    a_layer = kept // int(text.num_hidden_layers)
    logits = 4 * rows * int(text.vocab_size)  # of the step before; or of the prompts
    moments = [
        {"prefill of every row": prefill.peak + logits},
        {
            "keys and values of every row, its prompt's too": kept,
            "decoding and sampling": max(_decode(build, rows, call, int(text.vocab_size)), a_layer + logits),
        },
    ]
    return max(moments, key=lambda parts: sum(parts.values()))


def own_columns(rows: int, completion: int, waiting: bool) -> int:
    """Tokens that the rows' own keys and values have room for, at most (`srl.engine.caches.OwnCache`).

    Room doubles from 64 columns up to the limit. Where others enter as rows leave, all get twice the columns
    in use: just before the end of a row that is nearly two limits.
    """
    return rows * max(FIRST_CAPACITY, 2 * (completion - 1) if waiting else completion)


def _decode(build: Build, rows: int, call: Call, vocabulary: int) -> int:
    """Scratch of one step: the sampler's, or attention's with one unpacked weight."""
    text = build.config.get_text_config()
    scores = SCORE_BYTES * rows * text.num_attention_heads * (call.prompt + call.completion)
    weight = text.hidden_size * widest(text) * build.computes_in.itemsize if build.nf4 else 0
    return max(sampler_bytes(rows, vocabulary, build.device, call.sampling), scores + weight)


@lru_cache(maxsize=256)
def sampler_bytes(rows: int, vocabulary: int, device: str, sampling: Sampling) -> int:
    """The peak of `srl.engine.sampling.sample` with the logits that it is given, run without storage."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    from srl.engine.sampling import sample

    where = "meta" if device == "cuda" else "cpu"  # on meta it takes the way that it takes on CUDA
    no_values: Any = None  # nor a generator of them
    with FakeTensorMode() if where == "cpu" else torch.device("meta"), LiveBytes() as live:
        logits = torch.empty(rows, vocabulary, device=where)
        live.note(logits)
        sample(logits, sampling, no_values)
        return live.peak
