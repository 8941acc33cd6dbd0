"""How likely an answer keeps a soft constraint: a linear head on the frozen base (arXiv 2508.02150).

p = sigmoid(w h + b), h [H] the last hidden state of the base, its adapter off, behind the answer and what is
asked of it in one fixed form. p itself is the reward: there a verdict was worse. All constraints of an answer
are branches behind it, so that it is read once. Nothing but w and b is trained (`srl.evaluation.soft_pairs`),
and nothing else is loaded.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from srl.errors import ConfigError, DataError, first_line
from srl.files import put
from srl.model.adapters import unwrapped
from srl.model.checkpoint import identity_differences
from srl.model.texts import ids_of
from srl.packing.micro_batches import Row
from srl.rewards.constraints import SoftScores, has_soft
from srl.rewards.parts import CONSTRAINTS, NO_HEAD, Case, Part, asked_of
from srl.update.loss import hidden_of

if TYPE_CHECKING:
    from srl.data.trajectory import Trajectory
    from srl.engine.engine import RolloutEngine

log = logging.getLogger(__name__)
FORM = ("Text:\n{answer}", "\n\nRequest: {text}\nDoes the text above do what the request asks? Answer:")


@dataclass(frozen=True)
class SoftHead:
    """weight: w, float32 [H]; bias: b. identity: of the base. quantised: whether that lay in 4 bits.

    settings: how it was trained, and its figures; for the reader.
    """

    weight: Tensor
    bias: float
    identity: dict[str, Any]
    quantised: bool = False
    settings: dict[str, Any] = field(default_factory=dict)

    def probability(self, state: Tensor) -> float:
        """state: [H]."""
        return float(torch.sigmoid(state.double() @ self.weight.double() + self.bias))


def soft_scores(
    engine: RolloutEngine, head: SoftHead, asked: Sequence[tuple[str, str]], tokens: int
) -> SoftScores:
    """Of each distinct (answer, text of a constraint); None where `states_of` has none."""
    pairs = list(dict.fromkeys(asked))
    found = zip(pairs, states_of(engine, pairs, tokens), strict=True)
    return {pair: None if state is None else head.probability(state) for pair, state in found}


def scores_of_parts(
    engine: RolloutEngine,
    heads: Mapping[str, SoftHead],
    parts: Sequence[Part],
    cases: Sequence[Case],
    tokens: int,
) -> dict[str, SoftScores]:
    """What the head of each part that has one says of all responses. heads: by what the part is called."""
    return {
        part.called: soft_scores(
            engine, heads[part.called], [one for case in cases for one in asked_of(part, case)], tokens
        )
        for part in parts
        if part.called in heads
    }


@torch.no_grad()
def states_of(engine: RolloutEngine, asked: Sequence[tuple[str, str]], tokens: int) -> list[Tensor | None]:
    """Of each (answer, text) the base's state h, float32 [H] on the CPU; None: longer than the model attends
    to, or signs without a token.

    tokens: padded ones at once, at most.
    """
    rows = [_row(engine, answer, text) for answer, text in asked]
    known = [row for row in rows if row is not None]
    own, found = engine.decoder, dict[int, Tensor]()
    with frozen(own.model), own.evaluating():
        for part in own.micro_batches(known, tokens):
            micro = part.to(own.device)
            hidden = hidden_of(own.backbone, micro, own.attention)  # [A, H]
            ends = torch.tensor([len(row.action_ids) for row in micro.rows]).cumsum(0) - 1
            states = hidden[ends.to(own.device)].float().cpu()  # [rows, H]
            found |= {id(row): state for row, state in zip(micro.rows, states, strict=True)}
    return [None if row is None else found[id(row)] for row in rows]


def _row(engine: RolloutEngine, answer: str, text: str) -> Row | None:
    """One token more than is asked: a row's states are those from which its tokens are predicted."""
    before, behind = FORM
    try:
        shown = ids_of(engine.tokenizer, before.replace("{answer}", answer.strip()))
        asked = ids_of(engine.tokenizer, behind.replace("{text}", text.strip()))
    except DataError:
        return None
    whole = len(shown) + len(asked) + 1
    return Row(shown, (*asked, asked[-1]), weight=1.0) if whole <= engine.decoder.context else None


def frozen(model: Any) -> AbstractContextManager[Any]:
    """The base without its adapter, where it has one."""
    return model.disable_adapter() if hasattr(model, "disable_adapter") else nullcontext()


def is_quantised(model: Any) -> bool:
    return bool(getattr(unwrapped(model), "is_quantized", False))


def warn_of_precision(heads: Mapping[str, SoftHead], model: Any) -> None:
    """The base in 4 bits has other states than in more."""
    words = {True: "in 4 bits", False: "not in 4 bits"}
    for name, head in heads.items():
        if head.quantised != is_quantised(model):
            log.warning(
                "reward part %s: its head was trained on the base %s, which lies here %s, with other states: "
                "train it on the same (model.quantization)",
                name, words[head.quantised], words[not head.quantised],
            )  # fmt: skip


def write_head(head: SoftHead, path: Path) -> None:
    from safetensors.torch import save

    tensors = {"weight": head.weight.float().contiguous(), "bias": torch.tensor([head.bias])}
    about = {"form": FORM, "identity": head.identity, "quantised": head.quantised, "settings": head.settings}
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        draft.write_bytes(save(tensors, {"soft_head": json.dumps(about)}))
        put(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def heads_of(
    parts: Sequence[Part], rows: Sequence[Trajectory], identity: Mapping[str, Any]
) -> dict[str, SoftHead]:
    """The heads of a reward's parts. ConfigError: a row has a soft constraint and the part that reads it no
    head; there is no frozen base; `read_head`.
    """
    found: dict[str, SoftHead] = {}
    for place, part in enumerate(parts):
        key = f"reward.parts[{place}]"
        if part.kind == CONSTRAINTS and part.head is None:
            soft = next((one.uid for one in rows if has_soft(one.constraints)), None)
            if soft is not None:
                raise ConfigError(f"{key}.head is null, but row {soft} has a soft constraint: {NO_HEAD}")
        elif part.head is not None:
            if identity["lora"] is None:
                raise ConfigError(
                    f"{key}.head scores by the base without its adapter, but model.lora is null"
                )
            found[part.called] = read_head(part.head, identity)
    return found


def read_head(path: str, identity: Mapping[str, Any]) -> SoftHead:
    """identity: of the policy on whose base it shall score. ConfigError, one line: no such file, no head or a
    damaged one, one of another base or another form.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {})["soft_head"])
            weight, bias = file.get_tensor("weight"), file.get_tensor("bias")
    except OSError as error:
        said = error.strerror or first_line(error)[:100]
        raise ConfigError(f"soft head {path}: {said}; train one with python -m srl soft") from error
    except (SafetensorError, KeyError, ValueError) as error:
        raise ConfigError(
            f"soft head {path}: no head, or a damaged one ({first_line(error)[:100]}); give a file that "
            "python -m srl soft wrote"
        ) from error
    if weight.dim() != 1 or bias.numel() != 1 or not bool(weight.isfinite().all() & bias.isfinite().all()):
        raise ConfigError(f"soft head {path}: its numbers are not those of a head; train another")
    if tuple(about["form"]) != FORM:
        raise ConfigError(
            f"soft head {path}: it was trained by another version of this program; train another"
        )
    now = {**identity, "lora": None}
    for one in identity_differences(about["identity"], now):
        raise ConfigError(
            f"soft head {path}: {one.setting} is {one.checkpoint} there and {one.config} here; train one on "
            "this run's base: python -m srl soft"
        )
    return SoftHead(weight, float(bias), about["identity"], bool(about["quantised"]), about["settings"])
