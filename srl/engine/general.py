"""Any architecture by its own forward and cache: slow, for layers that our attention does not compute.

Rollouts: no row is padded. The rows of a batch begin with as many tokens of their prompts as the shortest
has, and go on in step; a row that still reads its prompt is given the next token of it. So a recurrent layer
sees each row's own tokens and nothing else. Updates: one response a row, padded behind, where no causal layer
looks (`Decoder.micro_batches`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from srl.engine import blocks
from srl.engine.decoder import Decoder
from srl.engine.sampling import TokenTexts, sample
from srl.engine.scheduler import Rollout, Scheduler
from srl.engine.settings import Path
from srl.engine.verify import DECODED, allowed, divergence, verify
from srl.errors import ConfigError, few, first_line
from srl.model.logprobs import head_logits
from srl.out_of_memory import is_out_of_memory
from srl.types import Sampling

log = logging.getLogger(__name__)
PADDING = 4  # tokens behind the line that is compared


def choose(decoder: Decoder, ids: Sequence[int], path: Path) -> None:
    """Whether our attention computes this decoder or transformers' own forward does; checked on `ids`.

    ConfigError: our own is asked for and cannot, or the architecture's own steps and passes disagree.
    """
    why = "" if path == "transformers" else unknown(decoder, ids)
    if path == "own":
        decoder.context = decoder.window
        if why:
            raise ConfigError(f"model.base: {why}; set rollout.engine: auto for the slow path")
    if not why and path != "transformers":
        return
    decoder.leave_ours()
    check_own(decoder, ids)
    log.warning(
        "%s: rollouts and updates take the slow path, transformers' own forward; no prompt is shared",
        why or "rollout.engine is transformers",
    )


def unknown(decoder: Decoder, ids: Sequence[int]) -> str:
    """Why our attention does not compute this architecture; empty where it does.

    Only of layers that no code here was written for; a fault of Llama, Qwen2 and Qwen3 is raised.
    """
    said = "it has recurrent layers"
    if not decoder.recurrent:
        try:
            verify(decoder, ids)
        except Exception as error:  # whatever the layers raise where they are called as ours
            if blocks.knows(decoder.backbone) or is_out_of_memory(error):
                raise
            said = _said(error)
        else:
            return ""
    return f"our attention does not compute {decoder.kind} ({said})"


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, ConfigError) else f"{type(error).__name__}: {first_line(error)}"


def check_own(decoder: Decoder, ids: Sequence[int]) -> None:
    """ConfigError where cached steps, or the forward in training with padding behind, are not the plain pass.

    Seen in transformers 5.23: the steps of Bamba and MiniMax are not.
    """
    tokens = torch.tensor([ids], device=decoder.device)  # [1, T]
    padded = torch.nn.functional.pad(tokens, (0, PADDING))

    def stepped() -> Tensor:
        logits, cache = step(decoder, tokens[:, :-DECODED], None)
        found = [logits]
        for token in tokens.T[-DECODED:]:
            logits, cache = step(decoder, token[None], cache)
            found.append(logits)
        return torch.cat(found)

    def trained() -> Tensor:
        decoder.model.train()  # `evaluating` has it back in its own mode
        try:
            return _plain(decoder, padded)[len(ids) - DECODED - 1 : len(ids)]
        finally:
            decoder.model.eval()

    read = {}
    for what, found in {"steps with a cache": stepped, "the forward in training": trained}.items():
        try:
            expected = _plain(decoder, tokens)[-DECODED - 1 :]
            with _adapters(decoder) as read[what]:
                gap = divergence(expected, found())
            said = f"a KL divergence of {gap:.2g} a token from its plain forward; rounding explains less"
        except Exception as error:  # of the layers' own code
            if is_out_of_memory(error):
                raise
            gap, said = float("inf"), _said(error)
        if not gap <= allowed(decoder):
            raise ConfigError(
                f"model.base: {decoder.kind} can be trained by no path here: {what} of this version of "
                f"transformers: {said}. Use another model, or other model.lora.target_modules"
            )
    sampling, training = read.values()
    if past := sorted(sampling - training):
        raise ConfigError(
            f"model.base: {decoder.kind} in training does not go through the adapter of {few(past)}; fused "
            "kernels read the weight alone: leave these out of model.lora.target_modules"
        )


@contextmanager
def _adapters(decoder: Decoder) -> Iterator[set[str]]:
    """The names of the layers with an adapter that are called meanwhile."""
    found: set[str] = set()

    def note(name: str) -> Callable[..., None]:
        return lambda *_: found.add(name)

    layers = [(name, one) for name, one in decoder.model.named_modules() if hasattr(one, "lora_A")]
    hooks = [one.register_forward_pre_hook(note(name)) for name, one in layers]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _plain(decoder: Decoder, tokens: Tensor) -> Tensor:
    """[1, T] -> logits float32 [T, V]."""
    return head_logits(decoder.head, decoder.backbone(input_ids=tokens, use_cache=False).last_hidden_state[0])


def step(decoder: Decoder, tokens: Tensor, cache: Any) -> tuple[Tensor, Any]:
    """The next tokens of each row int64 [R, T] -> logits after them float32 [R, V], and the cache."""
    out = decoder.backbone(input_ids=tokens, past_key_values=cache, use_cache=True)
    return head_logits(decoder.head, out.last_hidden_state[:, -1]), out.past_key_values


def run(
    decoder: Decoder,
    scheduler: Scheduler,
    sampling: Sampling,
    generator: torch.Generator,
    end_ids: frozenset[int],
    texts: TokenTexts,
) -> None:
    """Sample all rollouts, those with long prompts first.

    Where the scheduler has drawn its random numbers, how rows are batched changes nothing.
    """
    ordered = sorted(scheduler.rollouts, key=lambda one: len(one.example.prompt_ids), reverse=True)
    for start in range(0, len(ordered), scheduler.rows_in_flight):
        rows = ordered[start : start + scheduler.rows_in_flight]
        for writing, tokens in _steps(decoder, rows, scheduler, sampling, generator):
            for row in writing:
                rows[row].record(tokens[row], end_ids, texts)


def _steps(
    decoder: Decoder,
    rows: Sequence[Rollout],
    scheduler: Scheduler,
    sampling: Sampling,
    generator: torch.Generator,
) -> Iterator[tuple[list[int], list[int]]]:
    """One batch until all its rows have ended: after each step the rows that write, and a token of each."""
    device, prompts = scheduler.device, [row.example.prompt_ids for row in rows]
    place, spare = min(map(len, prompts)), scheduler.logprobs.shape[1] - 1
    numbers = torch.tensor([row.number for row in rows], device=device)
    feed, cache = [list(prompt[:place]) for prompt in prompts], None
    while not all(row.ended for row in rows):
        logits, cache = step(decoder, torch.tensor(feed, device=device), cache)
        writing = [i for i, row in enumerate(rows) if len(prompts[i]) <= place and not row.ended]
        columns = [spare] * len(rows)  # what other rows write is lost
        for row in writing:
            columns[row] = len(rows[row].ids)
        where = numbers, torch.tensor(columns, device=device)
        uniform = None if scheduler.draws is None else scheduler.draws[where][:, None]
        drawn, scheduler.logprobs[where] = sample(logits, sampling, generator, uniform)
        tokens = drawn.tolist()
        yield writing, tokens
        feed = [[*(prompt[place : place + 1] or (one,))] for prompt, one in zip(prompts, tokens, strict=True)]
        place += 1
