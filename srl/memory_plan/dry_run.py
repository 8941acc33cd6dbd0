"""One forward and backward pass of the real update on fake tensors, and one prefill: bytes kept, and peaks.

A model of two layers and of three are run; what the third adds, every further one adds. (The second adds
more: what the first leaves behind is not yet in its way.)
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from srl.memory_plan.fake_kernels import as_on
from srl.memory_plan.fake_model import Build, Skeleton, on_meta
from srl.memory_plan.live_bytes import LiveBytes
from srl.model.logprobs import chunk_rows, head_logits, token_logprobs
from srl.packing.attention import attention_arguments
from srl.packing.micro_batches import MicroBatch, Row, micro_batches
from srl.types import Teaching
from srl.update.teacher import TeacherSettings, divergences


@dataclass(frozen=True)
class Pass:
    """Bytes beyond the weights and their gradients. kept: when the forward pass ends. peak: at most."""

    kept: int
    peak: int


@lru_cache(maxsize=256)  # a search for what fits asks again and again
def update_pass(
    build: Build,
    prompt: int,
    completion: int,
    tokens: int,
    share_prompt: bool = True,
    teaching: Teaching = "none",
    teacher: TeacherSettings = TeacherSettings(),  # noqa: B008 - frozen
) -> Pass:
    """A micro-batch of `tokens` padded tokens: completions behind prompts, of these lengths. The teacher's
    prompts are bounded as the policy's are, so what it reads is as long.
    """
    micro = micro_batch(prompt, completion, tokens, share_prompt, build.slow)
    return _all_layers(build, lambda skeleton, live: _update(skeleton, live, micro, teaching, teacher))


@lru_cache(maxsize=256)
def prefill_pass(build: Build, prompts: int, length: int) -> Pass:
    """Prompts [prompts, length] with their keys and values, which are what is kept."""
    return _all_layers(build, lambda skeleton, live: _prefill(skeleton, live, prompts, length))


def micro_batch(
    prompt: int, completion: int, tokens: int, share_prompt: bool, plain: bool = False
) -> MicroBatch:
    """The fullest micro-batch of a budget: as many completions as go, the last one cut to fill it.

    One completion behind its prompt goes whatever the budget.
    """
    tokens = max(tokens, prompt + completion)
    if share_prompt and not plain:
        more = tokens - prompt
        sizes = [completion] * (more // completion) + ([more % completion] if more % completion else [])
    else:
        sizes = [completion] * (tokens // (prompt + completion))
    ids = tuple(range(prompt))
    rows = [Row(ids, tuple(range(size)), weight=1.0) for size in sizes]
    return micro_batches(rows, tokens, share_prompt, plain)[0]


def _all_layers(build: Build, run: Callable[[Skeleton, LiveBytes], Pass]) -> Pass:
    layers = int(build.config.get_text_config().num_hidden_layers)
    if layers <= 3:
        return _measured(build, layers, run)
    two, three = (_measured(build, some, run) for some in (2, 3))
    return Pass(
        two.kept + (layers - 2) * (three.kept - two.kept), two.peak + (layers - 2) * (three.peak - two.peak)
    )


def _measured(build: Build, layers: int, run: Callable[[Skeleton, LiveBytes], Pass]) -> Pass:
    model = on_meta(build, layers)
    with warnings.catch_warnings(), FakeTensorMode(allow_non_fake_inputs=True):
        warnings.simplefilter("ignore")
        skeleton = Skeleton(build, model)
        with LiveBytes(made_only=True) as live, _autocast(build), as_on(build.device):
            live.note(skeleton.tensors())
            return run(skeleton, live)


@contextmanager
def _autocast(build: Build) -> Iterator[None]:
    """The CPU's autocast casts in a decoder what CUDA's does."""
    with torch.autocast("cpu", torch.bfloat16, enabled=build.autocast):
        yield


def _update(
    skeleton: Skeleton, live: LiveBytes, micro: MicroBatch, teaching: Teaching, teacher: TeacherSettings
) -> Pass:
    """As `srl.update.loss.logprobs_of`, with a teacher as `srl.update.teacher.Teacher.loss`, and its backward
    pass.
    """
    skeleton.model.train()
    merged = _warm(skeleton)
    before = live.live
    live.restart()
    read = None if teaching == "none" else _read(skeleton, micro, teacher)
    actions = _hidden(skeleton, micro)
    what = (micro.targets, micro.temperatures, skeleton.vocab_size)
    loss = token_logprobs(skeleton.head, actions, *what).sum()
    if read is not None:
        with torch.no_grad():
            token_logprobs(skeleton.head, read, *what)
    if read is not None and teaching == "target":
        both = actions.clone(), read.clone()  # of the rows that it teaches
        some = 2 * chunk_rows(4 * skeleton.vocab_size, read.device)  # all other chunks take the same again
        few = (both[0][:some], both[1][:some], micro.temperatures[:some])
        loss = loss + divergences(skeleton.head, *few, teacher, skeleton.vocab_size).sum()
        del both, few
    del actions, read
    kept = live.live - before
    loss.backward()
    del merged
    return Pass(kept, live.peak - before)


def _hidden(skeleton: Skeleton, micro: MicroBatch) -> Tensor:
    """As `srl.update.loss.hidden_of`."""
    seen = {} if micro.plain else _attention(skeleton, micro) | {"position_ids": micro.position_ids.clone()}
    hidden: Tensor = skeleton.decoder(
        input_ids=micro.input_ids.clone(), use_cache=False, **seen
    ).last_hidden_state
    return hidden.flatten(0, 1)[micro.predicted_from]


@torch.no_grad()
def _read(skeleton: Skeleton, micro: MicroBatch, teacher: TeacherSettings) -> Tensor:
    """As `srl.update.teacher.Teacher.hidden`: where its weights are a mean, the policy's are kept aside."""
    trained = [one for one in skeleton.model.parameters() if one.requires_grad]
    kept = [one.detach().clone() for one in trained] if teacher.weights == "ema" else []
    found = _hidden(skeleton, micro).clone()
    del kept
    return found


def _attention(skeleton: Skeleton, micro: MicroBatch) -> dict[str, Any]:
    """As `srl.packing.attention.attention_arguments`, but for flex, whose mask is next to nothing."""
    build = skeleton.build
    if build.packed_attention == "flex":
        return {"attention_mask": None}
    segments, ancestors = micro.segments.clone(), micro.ancestors.clone()
    return attention_arguments(skeleton.decoder, micro.trees, segments, ancestors, build.packed_attention)


def _prefill(skeleton: Skeleton, live: LiveBytes, prompts: int, length: int) -> Pass:
    """As `srl.engine.prefill` does with prompts that share nothing."""
    from transformers import DynamicCache

    skeleton.model.eval()
    with torch.no_grad():
        merged = _warm(skeleton)
        before = live.live
        live.restart()
        ids = torch.zeros(prompts, length, dtype=torch.int64)
        places = torch.arange(length)[None].expand(prompts, length)
        cache = DynamicCache()
        hidden = skeleton.decoder(
            input_ids=ids, position_ids=places, attention_mask=None, past_key_values=cache, use_cache=True
        ).last_hidden_state
        head_logits(skeleton.head, hidden[:, -1])
        layers: Any = cache.layers
        kept = sum(_size(layer.keys) + _size(layer.values) for layer in layers)
        del merged
        return Pass(kept, live.peak - before)


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _warm(skeleton: Skeleton) -> list[Tensor]:
    """Make the merged weights, which last from pass to pass, before anything is counted."""
    made: list[Tensor] = []
    if skeleton.build.autocast:  # under which there are none
        return made
    for module in skeleton.model.modules():
        forward: Any = module.__dict__.get("forward")
        if hasattr(forward, "merged"):
            with torch.no_grad():
                module(torch.zeros(1, forward.layer.in_features))
            made.append(forward.merged)
    return made
