"""Time and memory of rollout and update against size: `python benchmarks/scaling.py [--model SOURCE]`.

Four series go through one base point and change one thing each: problems, G (rollouts a prompt), tokens of a
response, and steps a problem, whose prompts nest: the prompt of step k is that of step k - 1 and
`--step_tokens` more. Prompts and responses are random tokens, no response stops early. Each measurement is
made in a fork of a process that has loaded the model, after a small warm-up: CPU seconds, the least of
`--repeats`, and peak memory in MiB above what the fork held before. An update is forward and backward in
micro-batches of `--budget` padded tokens, with the prompts' common beginnings computed once.

`tokens` are those computed (common beginnings once), `tokens_apart` those of every response with a prompt of
its own. `exponents` are slopes of log-log fits against `tokens` (1 is linear, less is cheaper by the token),
`exponents_of_variable` against the thing changed.
Progress goes to stderr, one JSON object to the last line of stdout and, with a plot, to `--output`. Linux.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from srl.engine.engine import RolloutEngine
from srl.model.adapters import LoraSettings, attach_lora
from srl.model.loading import load_base, load_tokenizer
from srl.model.merged_lora import merge_lora_forward
from srl.model.sources import resolve
from srl.packing.micro_batches import micro_batches
from srl.packing.tree import TokenTree, grow
from srl.types import Completion, Example, Group, Sampling
from srl.update.loss import LossSettings, build_rows, logprobs_of, loss_of

ROOT = Path(__file__).resolve().parent.parent
VARIABLES = {
    "problems": "problems",
    "group": "rollouts a prompt, G",
    "new_tokens": "length of a response (tokens)",
    "steps": "steps a problem (nested prompts)",
}
WORKS = {"rollout": "#1f6feb", "update": "#d9480f"}
MEASURES = {"seconds": "CPU time (s)", "mib": "peak memory (MiB)"}
Point = dict[str, int]


def prompts_of(point: Point, high: int) -> list[tuple[int, ...]]:
    """problems * steps prompts of random ordinary tokens; those of one problem nest."""
    generator = torch.Generator().manual_seed(0)
    longest = point["prompt_tokens"] + (point["steps"] - 1) * point["step_tokens"]
    shape, low = (point["problems"], longest), min(100, high // 4)
    rows = torch.randint(low, high, shape, generator=generator)
    rows[:, 0] = low + torch.arange(point["problems"])  # no two problems begin alike by chance
    ends = range(point["prompt_tokens"], longest + 1, point["step_tokens"])
    return [tuple(row[:end]) for row in rows.tolist() for end in ends]


def examples_of(point: Point, high: int) -> list[Example]:
    size = point["new_tokens"]
    return [
        Example(str(i), "srl", 1, prompt, "", think=False, max_new_tokens=size)
        for i, prompt in enumerate(prompts_of(point, high))
    ]


def groups_of(point: Point, high: int) -> list[Group]:
    """Rollouts as they might have been sampled, each of another advantage."""
    generator = torch.Generator().manual_seed(1)
    size = point["new_tokens"]
    rewards = torch.arange(point["group"], dtype=torch.float32)
    made = []
    for example in examples_of(point, high):
        ids = torch.randint(high // 2, high, (point["group"], size), generator=generator).tolist()
        made.append(
            Group(example, [Completion(tuple(row), "", -torch.ones(size), False) for row in ids], rewards)
        )
    return made


def tokens_of(point: Point, high: int) -> dict[str, int]:
    prompts = prompts_of(point, high)
    tree = TokenTree()
    grow(tree, prompts)
    responses = len(prompts) * point["group"]
    apart = sum(len(prompt) for prompt in prompts) * point["group"]
    new = responses * point["new_tokens"]
    return {"tokens": len(tree) + new, "tokens_apart": apart + new}


def rollout(engine: RolloutEngine, point: Point) -> None:
    generator = torch.Generator().manual_seed(0)
    engine.generate(examples_of(point, engine.decoder.vocab_size), point["group"], Sampling(), generator)


def update(engine: RolloutEngine, point: Point) -> None:
    settings = LossSettings(kl=1e-9)  # no row is left out
    own = engine.decoder
    own.model.train()
    rows = build_rows(groups_of(point, own.vocab_size), settings)
    for batch in micro_batches(rows, point["budget"]):
        new = logprobs_of(own.backbone, own.head, batch, own.vocab_size)
        loss_of(new, batch, settings)[0].backward()
    own.model.zero_grad()


def kib(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1])


def measure(work: str, engine: RolloutEngine, point: Point, repeats: int, pipe: Any) -> None:
    """In a fork of its own: what the point takes, sent through the pipe."""
    run = {"rollout": rollout, "update": update}[work]
    run(engine, {**point, "problems": 1, "steps": 1, "group": 2, "new_tokens": 2})
    held = kib("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        run(engine, point)
        seconds.append(time.process_time() - start)
    pipe.send((min(seconds), (kib("VmHWM") - held) / 1024))


def measured(engine: RolloutEngine, point: Point, repeats: int) -> dict[str, float]:
    """`rollout_seconds`, `rollout_mib` and the same of the update."""
    found: dict[str, float] = {}
    for work in WORKS:
        receive, send = multiprocessing.Pipe(duplex=False)
        process = multiprocessing.get_context("fork").Process(
            target=measure, args=(work, engine, point, repeats, send)
        )
        process.start()
        send.close()
        try:
            seconds, mib = receive.recv()
        except EOFError:
            process.join()
            raise SystemExit(f"{work} at {point} ended with status {process.exitcode}") from None
        process.join()
        found |= {f"{work}_seconds": round(seconds, 4), f"{work}_mib": round(mib, 1)}
    return found


def slope(xs: list[float], ys: list[float]) -> float | None:
    """Of the line through the logarithms by least squares; None where there is none."""
    if min(ys) <= 0 or len(set(xs)) < 2:
        return None
    x, y = [math.log(one) for one in xs], [math.log(one) for one in ys]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    over = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return round(over / sum((a - mean_x) ** 2 for a in x), 3)


def slopes(
    series: dict[str, list[dict[str, float]]], against: Callable[[str], str]
) -> dict[str, dict[str, float | None]]:
    """Of each series, the slope of each measure against one of its fields."""
    return {
        variable: {
            f"{work}_{unit}": slope(
                [p[against(variable)] for p in points], [p[f"{work}_{unit}"] for p in points]
            )
            for work in WORKS
            for unit in MEASURES
        }
        for variable, points in series.items()
    }


def plot(series: dict[str, list[dict[str, float]]], exponents: Any, title: str, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    figure, axes = plt.subplots(
        len(MEASURES), len(series), figsize=(3.5 * len(series), 6.8), sharey="row", layout="constrained"
    )
    for column, (variable, points) in enumerate(series.items()):
        xs = [point[variable] for point in points]
        for row, (measure_name, label) in enumerate(MEASURES.items()):
            axis = axes[row][column]
            for work, color in WORKS.items():
                name = f"{work}_{measure_name}"
                exponent = exponents[variable][name]
                said = work if exponent is None else f"{work}: tokens$^{{{exponent:.2f}}}$"
                axis.plot(xs, [point[name] for point in points], "o-", color=color, ms=5, lw=1.6, label=said)
            axis.set_xscale("log", base=2)
            axis.set_yscale("log")
            axis.set_xticks(xs, [str(x) for x in xs])
            axis.xaxis.set_minor_locator(NullLocator())
            axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axis.yaxis.set_minor_locator(NullLocator())
            axis.grid(color="#dddddd", lw=0.6)
            axis.set_axisbelow(True)
            axis.spines[["top", "right"]].set_visible(False)
            axis.legend(frameon=False, fontsize=9)
            if column == 0:
                axis.set_ylabel(label)
            axis.set_xlabel(VARIABLES[variable])
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=110)


def numbers(text: str) -> list[int]:
    return sorted({int(one) for one in text.split(",")})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default=str(ROOT / "data" / "quickstart" / "base"))
    parser.add_argument("--sha256")
    parser.add_argument("--problems", type=numbers, default="2,4,8,16", help="the base is the second value")
    parser.add_argument("--group", type=numbers, default="4,8,16,32")
    parser.add_argument("--new_tokens", type=numbers, default="16,32,64,128")
    parser.add_argument("--steps", type=numbers, default="1,2,4,8", help="the base is the first value")
    parser.add_argument("--prompt_tokens", type=int, default=64)
    parser.add_argument("--step_tokens", type=int, default=16)
    parser.add_argument("--budget", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results")
    o = parser.parse_args()
    torch.set_num_threads(1)  # the forks use the model as it stands
    files = resolve(o.model, sha256=o.sha256)
    loaded = load_base(files, quantization="none", device=torch.device("cpu"), dtype=None)
    model = attach_lora(loaded, LoraSettings(), seed=0)
    merge_lora_forward(model)
    engine = RolloutEngine(model, load_tokenizer(files), end_ids=())
    base = {name: getattr(o, name)[0 if name == "steps" else min(1, len(getattr(o, name)) - 1)]
            for name in VARIABLES}  # fmt: skip
    fixed = {"prompt_tokens": o.prompt_tokens, "step_tokens": o.step_tokens, "budget": o.budget}
    done: dict[str, dict[str, float]] = {}
    series: dict[str, list[dict[str, float]]] = {name: [] for name in VARIABLES}
    for variable in VARIABLES:
        for value in getattr(o, variable):
            point = {**base, **fixed, variable: value}
            key = json.dumps(point)
            if key not in done:
                done[key] = tokens_of(point, engine.decoder.vocab_size) | measured(engine, point, o.repeats)
                print(f"{variable} {value}: {done[key]}", file=sys.stderr, flush=True)
            series[variable].append({**{name: point[name] for name in VARIABLES}, **done[key]})
    exponents = slopes(series, lambda variable: "tokens")
    name = o.model.rsplit("/", 1)[-1] if o.model.startswith("package:") else Path(o.model).name
    result = {"model": name, "threads": torch.get_num_threads(), "repeats": o.repeats,
              "load": round(os.getloadavg()[0], 2), "base": base, **fixed, "exponents": exponents,
              "exponents_of_variable": slopes(series, lambda variable: variable),
              "series": series}  # fmt: skip
    o.output.mkdir(parents=True, exist_ok=True)
    (o.output / "scaling.json").write_text(json.dumps(result, indent=1) + "\n")
    title = (
        f"{name} on one CPU thread: {base['problems']} problems, prompts of {o.prompt_tokens} tokens, "
        f"G = {base['group']}, responses of {base['new_tokens']} tokens, one thing changed at a time\n"
        f"micro-batches of {o.budget} tokens, memory above the loaded model, "
        "exponents against the tokens computed"
    )
    plot(series, exponents, title, o.output / "scaling.png")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
