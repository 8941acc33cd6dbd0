"""Fuzz one reader of what others wrote: `python benchmarks/fuzz.py TARGET [--seconds 600] [--output FILE]`.

Targets: steps (step styles and response formats), agent (chat messages), data (files of every format),
verifier (the rules for answers), asked (answers by way of math-verify in worker processes), config (YAML).
Coverage-guided by atheris, which is no dependency of this project (`pip install atheris`); without it
(--random) mutations of the seeds are drawn blindly. What must hold stands in `targets.py`.

Every input is also held to a time: half a second of CPU for up to 4 kB, and two for 30,000 characters that
repeat a piece of the input, which makes quadratic work stand out. Prints one JSON object on the last line:
executions, executions a second, and each finding once, by its kind and place, with the smallest input.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import io
import json
import logging
import os
import random
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
MAX_BYTES, REPEATED = 4096, 30_000
SECONDS, SECONDS_REPEATED = 0.5, 2.0  # of CPU time, with the instrumentation
WORDS = {
    "steps": ["1. **", "2. **", "**:", "```", r"\begin{a}", r"\end{a}", "$$", r"\[", r"\]", "### Step 1:",
              "Step 2:", "<think>", "</think>", "<function=a>", "</function>", "<tool_call>", "<command>",
              "</command>", " ** ", "The answer is", "\n\n", '["a", ', '{"body": "', "#### "],
    "agent": ['{"role": "user", "content": "', "assistant", "tool_calls", "<function=a>", "</function>",
              "```bash", '"function": {"name": "f", "arguments": ', "is_demo", "tool_use", "[{"],
    "data": ['{"problem": "p", ', '"steps": [', '"solution": ', '"answer": ', '"uid": ', "null", "1e400",
             r"\ud800", "problem,solution,answer\n", "\ufeff", "[[", "PAR1", '"title": ', '"body": '],
    "verifier": [r"\boxed{", r"\frac{", r"\sqrt", r"\text{", r"\pi", "^{", "_{", "####", "answer is", r"\%",
                 "</think>", r"\left(", r"\right)", r"\times 10^", "1,000", r"\{", r"\}", r"\circ", "°"],
    "config": ["model:", "data:", "curriculum:", "phases:", "extends:", "trainer:", "class_path:", "until:",
               "init_args:", "mix:", "!!python/object/apply:os.system", "&a", "*a", "<<:", ".nan", "lora:",
               "methods:", "seeds:"],
}  # fmt: skip
WORDS["asked"] = WORDS["verifier"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("target", choices=sorted(WORDS))
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--output", type=Path, default=None, help="the JSON also into this file, by target")
    parser.add_argument("--random", action="store_true", help="blind mutations instead of atheris")
    arguments = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HF_DATASETS_CACHE"] = folder
        session = Session(arguments, Path(folder))
        (session.blind if arguments.random else session.guided)()


class Session:
    """One target under fuzzing, and what was found."""

    def __init__(self, arguments: argparse.Namespace, folder: Path) -> None:
        self.arguments, self.folder = arguments, folder
        self.executions = 0
        self.slowest = 0.0
        self.findings: dict[str, dict[str, Any]] = {}
        self.check: Callable[[bytes], None] = lambda content: None
        self.begin = 0.0

    def guided(self) -> None:
        import atheris

        with atheris.instrument_imports(include=["srl", "datamodules", "fuzz"]):
            self.prepare()
        corpus = self.folder / "corpus"
        corpus.mkdir()
        for number, seed in enumerate(seeds(self.arguments.target)):
            (corpus / str(number)).write_bytes(seed)
        words = self.folder / "words"
        quoted = (
            "".join(f"\\x{byte:02x}" for byte in word.encode()) for word in WORDS[self.arguments.target]
        )
        words.write_text("".join(f'"{word}"\n' for word in quoted))
        self.begin = time.monotonic()
        flags = [f"-max_len={MAX_BYTES}", f"-dict={words}", "-rss_limit_mb=0", "-verbosity=0", "-timeout=600"]
        atheris.Setup([sys.argv[0], *flags, str(corpus)], self.one)
        atheris.Fuzz()

    def blind(self) -> None:
        self.prepare()
        self.begin = time.monotonic()
        draw, known = random.Random(0), seeds(self.arguments.target)
        words = [word.encode() for word in WORDS[self.arguments.target]]
        while True:
            content = bytearray(draw.choice(known))
            for _ in range(draw.randint(1, 8)):
                place = draw.randint(0, len(content))
                piece = draw.choice([draw.choice(words), draw.randbytes(2), content[:place][-40:], b""])
                content[place : place + draw.choice([0, 0, 1, 30])] = piece
            self.one(bytes(content[:MAX_BYTES]))

    def prepare(self) -> None:
        """Import all that the target needs, by running the seeds: their first time would count as slow."""
        self.check = target(self.arguments.target, self.folder)
        for seed in seeds(self.arguments.target):
            with contextlib.suppress(Exception):  # found again when the clock runs
                self.check(seed)

    def one(self, content: bytes) -> None:
        """One input; what it breaks is kept, and the fuzzing goes on.

        Of the inputs that begin with the byte 255 one in eight is repeated.
        """
        repeats = self.arguments.target in ("steps", "agent", "verifier") and self.executions % 8 == 0
        repeat = repeats and content[:1] == b"\xff"
        limit = SECONDS_REPEATED if repeat else SECONDS
        if repeat:
            content = content[2:] and repeated(content[1], content[2:])
        cpu = time.process_time()
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                self.check(content)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever a reader lets through is the finding
            self.keep(place_of(error), f"{type(error).__name__}: {error}", content)
        cpu = time.process_time() - cpu
        self.executions += 1
        self.slowest = max(self.slowest, cpu)
        if cpu > limit:
            self.keep("slow", f"{cpu:.1f} s of CPU", content)
        if time.monotonic() - self.begin > self.arguments.seconds:
            self.finish()

    def keep(self, place: str, message: str, content: bytes) -> None:
        known = self.findings.setdefault(place, {"times": 0, "size": len(content) + 1})
        known["times"] += 1
        if len(content) < known["size"]:
            text = base64.b64encode(content[:MAX_BYTES]).decode()
            known |= {"size": len(content), "message": message[:300], "input_base64": text}

    def finish(self) -> None:
        """Print, and leave at once: the fuzzer returns to nobody."""
        seconds = time.monotonic() - self.begin
        found = {
            "target": self.arguments.target,
            "by": "blind mutation" if self.arguments.random else "atheris",
            "seconds": round(seconds),
            "executions": self.executions,
            "executions_per_second": round(self.executions / seconds, 1),
            "slowest_cpu_seconds": round(self.slowest, 3),
            "findings": [{"place": place, **about} for place, about in sorted(self.findings.items())],
        }
        if self.arguments.output is not None:
            path = self.arguments.output
            every = json.loads(path.read_text()) if path.exists() else {}
            path.write_text(json.dumps({**every, self.arguments.target: found}, indent=1) + "\n")
        print(json.dumps(found), flush=True)
        os._exit(0)


def repeated(where: int, content: bytes) -> bytes:
    """A head, then a piece of the input again and again, up to `REPEATED` bytes, then the rest."""
    cut = where * len(content) // 256
    head, piece, tail = content[:cut], content[cut : cut + 40], content[cut + 40 :]
    return head + piece * (REPEATED // max(1, len(piece))) + tail


def place_of(error: BaseException) -> str:
    """The kind of the error and where it came from: the last frame of this project."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [
        frame
        for frame in frames
        if str(ROOT) in frame.filename and "benchmarks/fuzz.py" not in frame.filename
    ]
    last = (ours or frames)[-1]
    return f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}"


def target(name: str, folder: Path) -> Callable[[bytes], None]:
    """What to call with an input; everything that it needs is imported, and built, here."""
    from fuzz import targets

    logging.disable(logging.CRITICAL)

    def text_of(content: bytes) -> str:
        return content.decode("utf-8", errors="replace")

    def pair(content: bytes) -> tuple[str, str]:
        gold, _, found = text_of(content).partition("\x00")
        return gold, found

    def data(content: bytes) -> None:
        from srl.data.styles.split import STYLES

        ending, style, *_ = (*content[:2], 0, 0)
        targets.data(
            content[2:],
            targets.ENDINGS[ending % len(targets.ENDINGS)],
            sorted(STYLES)[style % len(STYLES)],
            folder,
        )

    if name == "config":
        parser, keys = targets.fit_parser()
        return lambda content: targets.config(content, folder, parser, keys)
    if name == "steps":
        return lambda content: targets.steps(text_of(content))
    if name == "agent":
        return lambda content: targets.agent(text_of(content))
    if name == "verifier":
        return lambda content: targets.verifier(*pair(content))
    if name == "asked":
        return lambda content: targets.asked([pair(content)])
    return data


def seeds(name: str) -> list[bytes]:
    """Inputs to begin with: files of this repository, and examples of each form."""
    if name == "config":
        return [path.read_bytes() for path in sorted(ROOT.glob("configs/**/*.yaml"))][:40]
    if name in ("verifier", "asked"):
        return [f"{gold}\x00{found}".encode() for gold, found in PAIRS]
    if name == "steps":
        return [text.encode() for text in TEXTS]
    if name == "agent":
        turns = [{"role": "user", "content": "task"}, {"role": "assistant", "content": TEXTS[4]}]
        turns += [{"role": "tool", "content": "out"}, {"role": "assistant", "action": "ls", "thought": "t"}]
        return [json.dumps(turns).encode(), *(text.encode() for text in TEXTS)]
    given = {"uid": "a", "problem": "p", "steps": ["x", {"title": "t", "body": "y"}], "answer": 5.0}
    rows = [given, {"problem": "q", "solution": TEXTS[0], "answer": "4"}]
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    csv = b'problem,solution,answer\np,"1. **A**: a\n2. **B**: b",4\n'
    found = [bytes([0, 0]) + lines, bytes([1, 0]) + json.dumps(rows).encode(), bytes([2, 0]) + csv]
    torn = b"PAR1" + bytes(40) + b"PAR1"
    return [*found, bytes([0, 255]) + lines, bytes([3, 1]) + lines, bytes([5, 0]) + torn]


TEXTS = (
    "Let us.\n1. **Add**:\n   1+1\n2. **Double**: 4\n\nSo 4.",
    "### Step 1: a\nb\n\n### Step 2: c\nd",
    "a ** b\nc ** d\n#### 4",
    "x\n```bash\nls\n```\ny",
    "<function=bash>\n<parameter=c>ls</parameter>\n</function>",
    '["a", {"title": "t", "body": "b"}]',
    "<think>a</think>b",
    "p\n\nq\n\nThe final answer is 4.",
)
PAIRS = (
    ("1/2", "0.5"), ("\\frac{\\pi}{2}", "\\pi"), ("5", "So \\boxed{5 cm}."), ("12.5\\%", "12.5"),
    ("(1,2)", "\\left(1, 2\\right)"), ("x=1,000", "1000"), ("\\text{Paris}", "paris"), ("101_2", "101"),
    ("1e5", "100000"), ("72", "so\n#### 72"), ("\\{1,2\\}", "\\{2,1\\}"),
    ("2\\sqrt{3}", "The answer is $2\\sqrt{3}$."),
)  # fmt: skip


if __name__ == "__main__":
    main()
