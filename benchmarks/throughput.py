"""Our training step against TRL's, and its parts: `python benchmarks/throughput.py [--quick] [--model M]`.

Three processes take turns, so that whatever else the machine does falls on all: `srl fit`, TRL's GRPOTrainer
(`pip install '.[bench]'`; `--no_trl` leaves it out) and the parts of our step in one process. Both trainers
get the same model, prompts, G, response length, reward, LoRA, dtype, threads and seed; every response has the
full length. TRL has its best known CPU settings: float32, no checkpointing, beta 0, one iteration,
micro-batches of 8, no logging. The first round is not counted. Figures are CPU seconds (wall seconds beside
them); ratios are medians over rounds, theirs over ours, but memory_ratio: our peak resident memory over
theirs.

The last line is one JSON object: step_ratio, rollout_ratio (transformers' generate with peft), update_ratio
(one padded row a response, with peft), trl_rollout_ratio and trl_update_ratio (the parts of TRL's step),
memory_ratio, decode_vs_gemm (the matrix products of a decode step over the whole of it), tricks (the time
without each over the time with it, in the last round), the seconds, and the settings. `--output FILE` writes
it too.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from throughput.rounds import Worker, summary, write_problems

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = yaml.safe_load((ROOT / "configs" / "smollm2_gsm8k.yaml").read_text())["model"]
    parser.add_argument("--model", default=known["base"], help="default: SmolLM2-135M")
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--new_tokens", type=int, default=64)
    parser.add_argument("--prompt_items", type=int, default=48, help="of a problem, three characters each")
    parser.add_argument("--micro_tokens", type=int, default=1024, help="of ours; TRL has 8 rows")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="2 prompts x 4 rollouts x 16 tokens, 2 repeats")
    parser.add_argument("--no_trl", action="store_true")
    parser.add_argument("--output", type=Path)
    o = parser.parse_args()
    sha256 = known["sha256"] if o.model == known["base"] else None
    if o.quick:
        o.prompts, o.group, o.new_tokens, o.repeats = 2, 4, 16, 2
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = folder / "settings.json"
        shared = {key: value for key, value in vars(o).items() if key != "output"}
        settings.write_text(
            json.dumps(shared | write_problems(folder, o) | {"folder": name, "sha256": sha256})
        )
        workers = [Worker(worker, settings) for worker in ("ours", "parts", *(() if o.no_trl else ("trl",)))]
        rounds: dict[str, list[dict[str, Any]]] = {worker.name: [] for worker in workers}
        try:
            for number in range(o.repeats + 1):
                which = "warm_up" if number == 0 else "last" if number == o.repeats else "round"
                for worker in workers:
                    answer = worker.ask(which)
                    print(
                        f"round {number} of {o.repeats} {worker.name}: {json.dumps(answer)}", file=sys.stderr
                    )
                    rounds[worker.name] += [answer] if number else []
        finally:
            for worker in workers:
                worker.end()
    result = summary(rounds) | {"settings": shared | {"model": Path(o.model).name}} | machine()
    if o.output:
        o.output.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


def machine() -> dict[str, Any]:
    import torch
    import transformers

    return {
        "threads": int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())),
        "cores": len(os.sched_getaffinity(0)),
        "load": [round(x, 1) for x in os.getloadavg()],
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


if __name__ == "__main__":
    main()
