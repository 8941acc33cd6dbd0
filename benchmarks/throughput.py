"""Our training step against TRL's, and its parts: `python benchmarks/throughput.py [--quick] [--model M]`.

Three processes take turns, so that whatever else the machine does falls on all: `srl fit`, TRL's GRPOTrainer
(`pip install '.[bench]'`; `--no_trl` leaves it out) and the parts of our step in one process. Both trainers
get the same model, prompts, G, response length, reward, LoRA, threads and seed; every response has the
full length. Each is measured in float32, and in bfloat16 too where the processor multiplies it; the faster of
the two counts, and `precision` says which. The parts are of float32. TRL has its best known CPU settings: no
checkpointing, beta 0, one iteration, micro-batches of 8, no logging. The first round is not counted. Figures
are CPU seconds (wall seconds beside them); ratios are medians over rounds, theirs over ours, but
memory_ratio: our peak resident memory over theirs.

`--nested` compares our step on all steps of a problem in one draw with steps at random instead.

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
from throughput.rounds import Worker, nested, summary, write_problems

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from srl.model.precision import cpu_instructions  # noqa: E402


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
    parser.add_argument("--nested", action="store_true", help="instead: problems of five steps, by data.draw")
    parser.add_argument("--output", type=Path)
    o = parser.parse_args()
    sha256 = known["sha256"] if o.model == known["base"] else None
    if o.quick:
        o.prompts, o.group, o.new_tokens, o.repeats = 2, 4, 16, 2
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shared = {key: value for key, value in vars(o).items() if key != "output"}
        common = shared | write_problems(folder, o) | {"folder": name, "sha256": sha256}
        workers = [
            Worker(worker, written(folder / f"{label}.json", common | more | {"run": label}), label)
            for worker, label, more in sides(o)
        ]
        rounds: dict[str, list[dict[str, Any]]] = {worker.label: [] for worker in workers}
        try:
            for number in range(o.repeats + 1):
                which = "warm_up" if number == 0 else "last" if number == o.repeats else "round"
                for worker in workers:
                    answer = worker.ask(which)
                    print(
                        f"round {number} of {o.repeats} {worker.label}: {json.dumps(answer)}", file=sys.stderr
                    )
                    rounds[worker.label] += [answer] if number else []
        finally:
            for worker in workers:
                worker.end()
    result = (
        (nested if o.nested else summary)(rounds)
        | {"settings": shared | {"model": Path(o.model).name}}
        | machine()
    )
    if o.output:
        o.output.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


def sides(o: argparse.Namespace) -> list[tuple[str, str, dict[str, str]]]:
    """Worker, label and settings: each trainer in float32, and in bfloat16 where the processor has it."""
    plain = {"draw": "step", "precision": "32-true"}
    if o.nested:
        return [("ours", f"ours {draw}", plain | {"draw": draw}) for draw in ("problem", "step")]
    precisions = ["32-true", *(["bf16-mixed"] if cpu_instructions() else [])]
    names = ["ours", *([] if o.no_trl else ["trl"])]
    both = [(name, f"{name} {kind}", plain | {"precision": kind}) for name in names for kind in precisions]
    return [*both, ("parts", "parts", plain)]


def written(file: Path, settings: dict[str, Any]) -> Path:
    file.write_text(json.dumps(settings))
    return file


def machine() -> dict[str, Any]:
    import torch
    import transformers

    return {
        "threads": int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())),
        "instructions": [torch.backends.cpu.get_cpu_capability(), *cpu_instructions()],
        "cores": len(os.sched_getaffinity(0)),
        "load": [round(x, 1) for x in os.getloadavg()],
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


if __name__ == "__main__":
    main()
