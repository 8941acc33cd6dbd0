"""Several processes that train one model: what each of them does, and how they come to the same decisions.

The law: every rank draws the same prompts. It samples and scores its share of them, and from there on every
rank holds the groups of all, in the order of the draw. Whatever is decided (which groups train, when a phase
ends) is decided by every rank on the same values, so none waits for one that decided otherwise. In an update
a rank computes the gradient of its share of the rows, whose weights are those of the whole batch; the
gradients are added, not averaged. With one process every function gives back what it was given.

Between ranks go built-in types and tensors alone, read with weights_only=True. NCCL has not been run.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from srl.errors import ConfigError
from srl.types import Example, Group

if TYPE_CHECKING:
    from srl.packing.micro_batches import Row


T = TypeVar("T")


def rank() -> int:
    return dist.get_rank() if _several() else 0


def size() -> int:
    return dist.get_world_size() if _several() else 1


def share(items: Sequence[T]) -> list[T]:
    """This rank's part of what all ranks have: every size-th, from its own number on."""
    return list(items[rank() :: size()])


def all_groups(mine: Sequence[Group], examples: Sequence[Example]) -> list[Group]:
    """The groups of a whole draw, in its order, from those that each rank made of its `share` of it.

    examples: those of the draw. A group keeps its example, as every rank has it.
    """
    if size() == 1:
        return list(mine)
    states = _whole([group.state_dict() for group in mine], len(examples))
    return [Group.from_state(state, example) for state, example in zip(states, examples, strict=True)]


def all_examples(mine: Sequence[Example], examples: Sequence[Example]) -> list[Example]:
    """The examples of a whole draw as each rank has made them anew in its `share` of it."""
    if size() == 1:
        return list(mine)
    return [Example.from_state(one) for one in _whole([one.state_dict() for one in mine], len(examples))]


def _whole(mine: list[T], count: int) -> list[T]:
    """All `count` items in order, from what each rank made of its `share` of them."""
    parts = gathered(mine)
    return [parts[place % size()][place // size()] for place in range(count)]


# -- what all must have alike -------------------------------------------------------------------------


def check_same(mine: Mapping[str, str]) -> None:
    """ConfigError, the same on every rank, where one has other settings or data than rank 0."""
    first, *others = gathered(dict(mine))
    for number, other in enumerate(others, start=1):
        for key in sorted(first.keys() | other.keys()):
            here, there = first.get(key, "absent"), other.get(key, "absent")
            if here != there:
                raise ConfigError(
                    f"process {number} has {key}: {there}, process 0 has {here}; start every machine with "
                    "the same config, data and base"
                )


# -- decisions ----------------------------------------------------------------------------------------


def gathered(value: T) -> list[T]:
    """Every rank's value, by rank. Built-in types and tensors on the CPU."""
    if size() == 1:
        return [value]
    device = _device()
    buffer = io.BytesIO()
    torch.save(value, buffer)
    mine = torch.frombuffer(bytearray(buffer.getbuffer()), dtype=torch.uint8).to(device)
    sizes = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(size())]
    dist.all_gather(sizes, torch.tensor([len(mine)], device=device))
    longest = max(int(length) for length in sizes)
    padded = torch.zeros(longest, dtype=torch.uint8, device=device)
    padded[: len(mine)] = mine
    parts = [torch.empty_like(padded) for _ in range(size())]
    dist.all_gather(parts, padded)
    found = (part[: int(length)].cpu().numpy().tobytes() for part, length in zip(parts, sizes, strict=True))
    return [torch.load(io.BytesIO(one), weights_only=True) for one in found]


def first(value: T) -> T:
    """What rank 0 has, for all: of values that hold times, or that one rank alone can know."""
    return gathered(value)[0]


def most(number: int) -> int:
    """The largest of the ranks' numbers: a signal that reached one of them reaches all."""
    if size() == 1:
        return number
    tensor = torch.tensor([number], device=_device())
    dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return int(tensor)


def total(number: float) -> float:
    """The sum over the ranks, the same on each."""
    return float(sum(gathered(float(number))))


def by_rank(own: T, others: Sequence[T]) -> T:
    """What a checkpoint holds of this rank: rank 0's stands alone, the others' in a list.

    ConfigError: it was written by another number of ranks.
    """
    if len(others) + 1 != size():
        raise ConfigError(
            f"the checkpoint was written on {len(others) + 1} devices, this run has {size()}: each has "
            f"random numbers of its own, so go on with trainer.devices: {len(others) + 1}"
        )
    return (own, *others)[rank()]


# -- the update ---------------------------------------------------------------------------------------


def share_of_rows(rows: Sequence[Row]) -> list[Row]:
    """This rank's rows of an update, all rollouts of a prompt together; the ranks' tokens are about equal.

    Longest first to the rank with the fewest tokens so far, so that every rank finds the same division.
    """
    if size() == 1:
        return list(rows)
    prompts: dict[tuple[int, ...], list[Row]] = {}
    for row in rows:
        prompts.setdefault(row.prompt_ids, []).append(row)
    tokens = {
        prompt: len(prompt) + sum(len(row.action_ids) for row in own) for prompt, own in prompts.items()
    }
    loads = [0] * size()
    mine: list[Row] = []
    for prompt in sorted(prompts, key=lambda prompt: -tokens[prompt]):
        least = loads.index(min(loads))
        loads[least] += tokens[prompt]
        mine += prompts[prompt] if least == rank() else []
    return mine


def add_gradients(parameters: Iterable[Tensor]) -> None:
    """Give every rank the sum of the ranks' gradients; a parameter that none touched keeps none."""
    if size() == 1:
        return
    every = [parameter for parameter in parameters if parameter.requires_grad]
    touched = torch.tensor([parameter.grad is not None for parameter in every], device=_device()).int()
    dist.all_reduce(touched, op=dist.ReduceOp.MAX)
    for parameter, any_rank in zip(every, touched.tolist(), strict=True):
        if any_rank:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            dist.all_reduce(parameter.grad)


def totals_of_all(totals: dict[str, float]) -> dict[str, float]:
    """Sums over each rank's rows -> over all, as `add_up` adds them."""
    found: dict[str, float] = {}
    for part in gathered(totals):
        add_up(found, part)
    return found


def add_up(totals: dict[str, float], part: dict[str, float]) -> None:
    """Add the sums over a part of the rows to `totals`; of names that end in _max the larger counts."""
    for name, value in part.items():
        before = totals.get(name, 0.0)
        totals[name] = max(before, value) if name.endswith("_max") else before + value


def _several() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _device() -> torch.device:
    """Where a collective wants its tensors: NCCL on the GPU, Gloo on the CPU."""
    return torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")
