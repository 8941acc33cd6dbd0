"""How long the data of the paper's agent run takes to load, and how much memory; prints JSON.

    python benchmarks/data.py [--trajectories 5000] [--steps 26.8]

Makes agent trajectories of random words (5,000 with 134,000 targets, as in arXiv 2510.25992, appendix A;
tasks of 4,000 characters, observations of 1,500 on average, 4,000 at most), writes them as expert JSONL, and
in a process of its own reads them, splits by problem, builds the stream and draws a batch.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

LOAD = """
import json, sys, time
begun = time.perf_counter()
sys.path.insert(0, "ROOT")
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast
from datamodules.expert import ExpertDataModule, Validation
from srl.examples.builder import ResponseLimits
from srl.examples.prompts import PromptFormat
bpe = Tokenizer(models.BPE())
bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(False), decoders.ByteLevel()
alphabet = pre_tokenizers.ByteLevel.alphabet()
trainer = trainers.BpeTrainer(
    vocab_size=2000, special_tokens=["<eos>"], initial_alphabet=alphabet, show_progress=False)
bpe.train_from_iterator([open(sys.argv[1]).read(1_000_000)], trainer)
tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<eos>")
data = ExpertDataModule(
    sys.argv[1], prompt=PromptFormat("plain", context_turns=2),
    limits=ResponseLimits(max_prompt_tokens=int(sys.argv[2])),
    validation=Validation(problems=30, max_examples=650),
)
imported, cpu = time.perf_counter(), time.process_time()
data.prepare(tokenizer)
stream = data.build_stream(["srl"], 512)
loaded, cpu = time.perf_counter(), time.process_time() - cpu
stream.set_mix({"srl": 1.0}, 512)
batch = stream.draw()
drawn = time.perf_counter()
said = open("/proc/self/status").read()
megabytes = lambda name: int(said.partition(name + ":")[2].split()[0]) // 1024
print(json.dumps({
    "examples": len(stream.sources["srl"]), "validation_steps": data.report.counts["examples/val_steps"],
    "import_seconds": round(imported - begun, 2), "load_seconds": round(loaded - imported, 2),
    "load_cpu_seconds": round(cpu, 2),
    "draw_512_seconds": round(drawn - loaded, 2), "peak_mb": megabytes("VmHWM"),
    "anonymous_mb": megabytes("RssAnon"), "mapped_mb": megabytes("RssFile"),
    "tokens_of_the_draw": sum(len(e.prompt_ids) for e in batch.examples),
    "passed_over": int(stream.metrics().get("curriculum/srl_prompts_too_long", 0)),
}))
"""


def text(rng: random.Random, words: list[str], length: int) -> str:
    """About so many characters of random words."""
    return " ".join(rng.choices(words, k=max(1, length // 7)))


def write(path: Path, trajectories: int, steps: float) -> None:
    rng = random.Random(0)
    words = ["".join(rng.choices("etaoinshrdlu_./", k=rng.randint(3, 9))) for _ in range(5000)]
    with path.open("w") as file:
        for t in range(trajectories):
            made = []
            for _ in range(round(steps + 1 + rng.uniform(-12, 12))):
                call = f"<function=bash>\n<parameter=command>{text(rng, words, 250)}</parameter>\n</function>"
                seen = text(rng, words, min(4000, int(rng.expovariate(1 / 1700))))[:4000]
                made.append(
                    {"title": "", "body": call, "thinking": text(rng, words, 150), "observation": seen}
                )
            row = {"uid": f"t{t}", "problem": text(rng, words, 4000), "steps": made, "answer": None}
            file.write(json.dumps(row) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trajectories", type=int, default=5000)
    parser.add_argument("--steps", type=float, default=26.95, help="targets a trajectory")
    parser.add_argument("--max_prompt_tokens", type=int, default=8192)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "agents.jsonl"
        write(path, options.trajectories, options.steps)
        size = path.stat().st_size // 2**20
        code = LOAD.replace("ROOT", str(ROOT))
        command = [sys.executable, "-c", code, str(path), str(options.max_prompt_tokens)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
        if done.returncode:
            sys.exit(done.stderr)
    print(json.dumps({"file_mb": size, **json.loads(done.stdout.splitlines()[-1])}, indent=1))


if __name__ == "__main__":
    main()
