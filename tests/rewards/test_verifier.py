"""The verifier's worker processes: hangs, deaths, threads, forks, hostile answers; what the shortcuts say."""

import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from srl.errors import ConfigError
from srl.rewards import formulas, verifier
from srl.rewards.answer_forms import plain, quickly
from srl.rewards.answers import are_correct, are_equal, is_correct
from srl.rewards.verifier import ask

ROOT = Path(__file__).resolve().parents[2]
HANG = "9^{9^{9^{9}}}"  # sympy computes it until it is killed
needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc")
LIMIT = 1.5  # seconds: longer than an honest question takes on a busy machine
_fresh = iter(range(10**9))


def fresh(n: int = 1) -> list[tuple[str, str, str]]:
    """Questions never asked before, so that no cache answers them; all are to be answered True."""
    return [("equal", f"y+{i}", f"{i}+y") for i in itertools.islice(_fresh, n)]


@pytest.fixture
def one_worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(verifier, "WORKERS", 1)
    verifier.close()
    yield
    verifier.close()


def test_answers_come_in_the_order_of_the_questions() -> None:
    questions = [("equal", "x", "x" if i % 3 else f"{i}x+1") for i in range(40)]
    questions[7:7] = [("find", "It is 12."), ("find", "no idea")]
    expected = [bool(i % 3) for i in range(40)]
    assert ask(questions) == [*expected[:7], "12", None, *expected[7:]]


def test_an_answer_is_kept() -> None:
    questions = fresh(3)
    ask(questions)
    asked = verifier.counts.asked
    assert ask(questions * 2) == [True] * 6
    assert verifier.counts.asked == asked


def test_the_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifier, "_cache", {})
    monkeypatch.setattr(verifier, "CACHE_SIZE", 4)
    assert ask(fresh(9)) == [True] * 9
    assert len(verifier._cache) == 4


@pytest.mark.parametrize("workers", [1, 2])
def test_a_hang_costs_only_the_question_that_hangs(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifier, "TIME_LIMIT", LIMIT)
    monkeypatch.setattr(verifier, "WORKERS", workers)
    ask(fresh())  # a worker is there
    questions = [*fresh(5), ("equal", f"{HANG}+{next(_fresh)}", "5"), *fresh(20)]
    timeouts, begin = verifier.counts.timeouts, time.monotonic()
    assert ask(questions) == [True] * 5 + [False] + [True] * 20
    assert verifier.counts.timeouts == timeouts + 1
    assert time.monotonic() - begin < 15.0  # one limit and a new worker, on a busy machine
    assert ask(fresh(3)) == [True] * 3


def test_a_timeout_is_not_kept(one_worker: None, monkeypatch: pytest.MonkeyPatch) -> None:
    question = ("equal", f"y+{next(_fresh)}", "y+1")
    monkeypatch.setattr(verifier, "TIME_LIMIT", 1e-4)  # less than any question takes of the processor
    timeouts = verifier.counts.timeouts
    ask([question])
    assert verifier.counts.timeouts == timeouts + 1
    assert question not in verifier._cache
    monkeypatch.setattr(verifier, "TIME_LIMIT", LIMIT)
    verifier.close()
    assert ask([("equal", f"y+{HANG}", "5"), *fresh()])[1] is True
    assert ask([question]) == [False]
    assert question in verifier._cache


def test_a_stopped_worker_is_replaced(one_worker: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifier, "TIME_LIMIT", LIMIT)
    ask(fresh())
    stopped = verifier._idle[0].line.process
    os.kill(stopped.pid, signal.SIGSTOP)
    assert ask(fresh(4)) == [False] + [True] * 3  # it hangs on the first
    assert stopped.poll() == -signal.SIGKILL
    assert verifier._idle[0].line.process.pid != stopped.pid


def test_a_worker_killed_while_idle_costs_nothing(one_worker: None) -> None:
    ask(fresh())
    deaths = verifier.counts.deaths
    killed = verifier._idle[0].line.process
    killed.kill()
    killed.wait()
    assert ask(fresh(4)) == [True] * 4
    assert verifier.counts.deaths == deaths + 1


def test_a_worker_killed_at_work_is_replaced_and_its_question_tried_again(one_worker: None) -> None:
    ask(fresh())
    process = verifier._idle[0].line.process
    os.kill(process.pid, signal.SIGSTOP)  # so that it is surely at work when it is killed
    threading.Timer(0.3, process.kill).start()
    assert ask(fresh(4)) == [True] * 4


def test_a_question_that_kills_its_worker_twice_is_wrong(
    one_worker: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killing(self: verifier._Worker, lines: list[bytes], indices: list[int], makes: bool) -> None:
        send(self, lines, indices, makes)
        if b"cursed" in lines[0]:
            self.line.process.kill()

    send = verifier._Worker.send
    monkeypatch.setattr(verifier._Worker, "send", killing)
    assert ask([("equal", "cursed", "cursed"), *fresh(3)]) == [False, True, True, True]
    monkeypatch.undo()
    assert ask([("equal", "cursed", "cursed")]) == [True]  # not kept: perhaps it was not its fault


def test_works_in_other_threads_at_once() -> None:
    found: dict[int, list[bool]] = {}

    def work(i: int, questions: list[tuple[str, str, str]]) -> None:
        found[i] = ask(questions)

    threads = [threading.Thread(target=work, args=(i, fresh(6))) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {i: [True] * 6 for i in range(4)}


@needs_proc
def test_memory_is_limited() -> None:
    ask(fresh())
    limits = Path(f"/proc/{verifier._idle[0].line.process.pid}/limits").read_text()
    assert f"Max address space         {verifier.MEMORY_LIMIT} " in limits


def python(code: str, **kwargs: object) -> "subprocess.Popen[str]":
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True, **kwargs
    )  # type: ignore[call-overload, no-any-return]


def test_importing_starts_nothing_and_numbers_and_exact_checks_start_nothing() -> None:
    code = """
import sys, threading
from srl import line_process
from srl.rewards import verifier
from srl.rewards.answers import are_correct
assert are_correct([("a", "a", "exact"), ("#### 7", "7.0", "math"), ("#### 8", "9", "math")]) == [1, 1, 0]
assert line_process.living == [] and threading.active_count() == 1
assert not {"sympy", "math_verify", "torch"} & set(sys.modules)
"""
    process = python(code)
    assert process.wait(60) == 0


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pids: list[int], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while any(alive(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(0.05)
    return not any(alive(pid) for pid in pids)


@needs_proc
@pytest.mark.parametrize("busy", [False, True])
def test_no_worker_outlives_a_killed_parent(busy: bool) -> None:
    code = f"""
import sys, threading, time
from srl import line_process
from srl.rewards import verifier
verifier.WORKERS = 1
verifier.ask([("equal", "x", "x+y")])
pids = [worker.process.pid for worker in line_process.living]
if {busy}:
    verifier.TIME_LIMIT = 1.0  # the worker's own alarm rings after 2 * 1 + 1 s
    threading.Thread(target=verifier.ask, args=([("equal", "{HANG}", "5")],)).start()
    time.sleep(0.3)
print(*pids, flush=True)
time.sleep(60)
"""
    parent = python(code)
    assert parent.stdout is not None
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 1
    assert alive(pids[0])
    parent.kill()
    parent.wait()
    assert gone(pids, 20)


@needs_proc
def test_a_normal_end_leaves_no_worker() -> None:
    process = python("""
from srl import line_process
from srl.rewards import verifier
verifier.ask([("equal", "x", "x+y")])
print(*[worker.process.pid for worker in line_process.living])
""")
    pids = [int(pid) for pid in process.communicate(timeout=60)[0].split()]
    assert pids
    assert process.returncode == 0
    assert gone(pids, 5)


@needs_proc
def test_a_forked_child_has_a_pool_of_its_own_and_keeps_no_pipe_of_its_parent() -> None:
    process = python("""
import os, time
from srl import line_process
from srl.rewards import verifier
verifier.WORKERS = 1
ours = verifier.ask([("equal", "x", "x+y")])
before = line_process.living[0].process.pid
child = os.fork()
if not child:
    assert not line_process.living and not verifier._idle
    assert verifier.ask([("equal", "x", "x+z"), ("equal", "(x+1)^2", "x^2+2x+1")]) == [False, True]
    verifier.close()
    os._exit(0)
assert verifier.ask([("equal", "(x+2)^2", "x^2+4x+4")]) == [True]  # while the child asks its own
assert line_process.living[0].process.pid == before
assert os.waitpid(child, 0)[1] == 0
if not os.fork():  # a child that outlives its parent must not hold the worker's pipe open
    time.sleep(40)
    os._exit(0)
print(before, flush=True)
os.kill(os.getpid(), 9)
""")
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    process.wait(60)
    assert gone([pid], 30.0)  # before that child


def test_ctrl_c_does_not_end_the_workers(one_worker: None) -> None:
    ask(fresh())
    pid = verifier._idle[0].line.process.pid
    os.kill(pid, signal.SIGINT)
    assert ask(fresh(2)) == [True, True]
    assert verifier._idle[0].line.process.pid == pid


def test_a_worker_finds_srl_from_any_folder_and_not_what_lies_there(tmp_path: Path) -> None:
    for name in ("sympy.py", "json.py", "srl.py"):
        (tmp_path / name).write_text("raise SystemExit(3)")
    code = f"""
import sys
sys.path[:] = [{str(ROOT)!r}, *filter(None, sys.path)]
from srl.rewards.verifier import ask
print(ask([("equal", "x+1", "1+x")]))
"""
    assert python(code, cwd=tmp_path).communicate(timeout=60)[0] == "[True]\n"


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("import sys; sys.modules['math_verify'] = None\n" + verifier._PROGRAM, "math_verify.*pip install"),
        ("raise SystemExit(3)", "exit status 3"),
        ("import time; time.sleep(60)", "did not start within 1 s"),
    ],
)
def test_a_verifier_that_cannot_start_is_one_clear_error(
    program: str, message: str, one_worker: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verifier, "_PROGRAM", program)
    monkeypatch.setattr(verifier, "START_LIMIT", 1.0 if "sleep" in program else 60.0)
    with pytest.raises(ConfigError, match=message):
        ask(fresh())
    monkeypatch.undo()
    verifier.close()
    assert ask(fresh()) == [True]


def test_what_a_library_prints_is_no_answer(one_worker: None, monkeypatch: pytest.MonkeyPatch) -> None:
    noisy = "import os, sys; os.write(1, b''); from srl.rewards import verifier_worker as w; real = w.equal\n"
    noisy += (
        "w.equal = lambda *texts: (print('[0, false]', flush=True), os.write(1, b'noise'), real(*texts))[2]\n"
    )
    program = verifier._PROGRAM.replace(
        "from srl.rewards.verifier_worker", noisy + "from srl.rewards.verifier_worker"
    )
    assert program != verifier._PROGRAM
    monkeypatch.setattr(verifier, "_PROGRAM", program)
    assert ask(fresh(3)) == [True] * 3


HOSTILE = {
    "braces": "{" * 10_000 + "}" * 10_000,
    "parentheses": "(" * 450 + "5" + ")" * 450,
    "fractions": r"\frac{1}{" * 12 + "2" + "}" * 12,
    "powers": "9^9^9^9",
    "tower": "9^{9^{9^{9^{9}}}}",
    "factorials": "((((9!)!)!)!)!",
    "long": r"\sqrt{2}+" * 11_000 + "1",
    "code": "__import__('os').system('touch pwned')",
    "lambda": "(lambda:exec('while 1:pass'))()",
    "null": "5\x00",
    "surrogate": "5\ud800",
    "integer": "7" * 900,
    "huge integer": "7" * 100_000,
    "regex": "(" + "a" * 90 + "+" * 90,
    "answers": "final answer is " * 60,
    "dollars": "$" * 900,
    "unicode digits": "\u0665",
    "braces open": "\\boxed{" * 1000,
    "newlines": "\n" * 900 + "6",
    "protocol": '5\n["ready"]\n[0, true]',
}


IN_PROSE = ["braces", "code", "null", "surrogate", "integer", "huge integer", "regex", "answers", "dollars"]


@pytest.fixture(scope="module")
def hostile_verdicts() -> tuple[list[bool], list[bool], float]:
    """All hostile answers at once, boxed and after a phrase; honest ones after them; the seconds taken."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verifier, "TIME_LIMIT", LIMIT)
        gold = "x+4"  # which no shortcut decides
        cases = [(f"\\boxed{{{text}}}", gold, "math") for text in HOSTILE.values()]
        cases += [(f"The answer is {HOSTILE[name]}", gold, "math") for name in IN_PROSE]
        begin = time.monotonic()
        verdicts = are_correct(cases)
        seconds = time.monotonic() - begin
        honest = ask(fresh(4))
    return verdicts, honest, seconds


@pytest.mark.parametrize(("at", "name"), enumerate([*HOSTILE, *IN_PROSE]))
def test_a_hostile_answer_is_wrong(at: int, name: str, hostile_verdicts: tuple) -> None:
    assert hostile_verdicts[0][at] is False


def test_after_hostile_answers_the_pool_still_works(hostile_verdicts: tuple) -> None:
    _, honest, seconds = hostile_verdicts
    assert honest == [True] * 4
    assert seconds < len(HOSTILE) * 2 * LIMIT  # not even if each of them hung, boxed and not
    assert not Path("pwned").exists()


@pytest.mark.parametrize("name", ["null", "surrogate", "code", "protocol"])
def test_a_hostile_gold_answer_is_harmless(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifier, "TIME_LIMIT", LIMIT)
    assert not is_correct(r"\boxed{5}", HOSTILE[name])
    assert ask(fresh()) == [True]


def test_hostile_responses_of_other_shapes() -> None:
    thousand = "".join(f"\\boxed{{{i}}}" for i in range(1000))
    assert are_correct([(thousand, "999", "math"), (thousand, "5", "math")]) == [True, False]
    assert not is_correct(r"<think>so \boxed{5}", "5")


def test_hostile_and_honest_answers_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifier, "TIME_LIMIT", LIMIT)
    monkeypatch.setattr(verifier, "WORKERS", 2)
    pairs = [(gold, found) for _, gold, found in fresh(30)]
    pairs[5:5] = pairs[20:20] = [(f"{HANG}+{next(_fresh)}", "y+1")]
    expected = [HANG not in gold for gold, _ in pairs]
    assert are_equal(pairs) == expected


def plain_math_verify(gold: str, found: str) -> bool:
    from math_verify import parse, verify

    one, other = (parse(f"\\boxed{{{text}}}", fallback_mode="no_fallback") for text in (gold, found))
    return bool(verify(one, other))


def some_number(rng: random.Random) -> str:
    a, b = rng.choice([rng.randint(0, 12), rng.randint(0, 2000), rng.randint(0, 10**7)]), rng.randint(1, 12)
    forms = [f"{a}", f"{a:,}", f"0{a}", f"\\frac{{{a}}}{{{b}}}", f"{a}/{b}", f"{a / b:.{rng.randint(1, 8)}f}"]
    forms += [f"\\${a}", f"{a}\\text{{ cm}}", f"{a}\\%", f"{a % 20}\\frac{{{a % 7 + 1}}}{{{b}}}"]
    return rng.choice(["", "-"]) + rng.choice(forms)


def varied(gold: str, rng: random.Random) -> str:
    """The same number in another form, or a neighbour near the rounding of math-verify."""
    from fractions import Fraction

    from srl.rewards.answer_forms import number_of

    value = (number_of(plain(gold)) or (Fraction(),))[0]
    near = float(value)
    forms = [f"{value}", f"{near:.5f}", f"{near:.7f}", f"{near + 1e-6:.6f}", f"{near + 3e-6:.7f}"]
    return rng.choice([*forms, some_number(rng), gold])


def test_the_shortcut_for_numbers_says_what_math_verify_says() -> None:
    rng = random.Random(7)
    decided = equal = 0
    for _ in range(200):
        gold = some_number(rng)
        found = varied(gold, rng)
        verdict = quickly(plain(gold), plain(found))
        percent = gold.endswith("%") or found.endswith("%")
        if verdict is None or (percent and not (gold[-2:] == found[-2:] == r"\%")):
            continue  # our own law of percent, see the cases
        decided, equal = decided + 1, equal + verdict
        assert plain_math_verify(gold, found) == verdict, (gold, found)
    assert decided > 120
    assert decided * 0.3 < equal < decided * 0.8


def some_formula(rng: random.Random, depth: int = 2) -> str:
    a, b, letter = rng.randint(1, 12), rng.randint(2, 12), rng.choice("xyznk")
    if not depth:
        forms = [f"{a}", letter, f"{a}{letter}", f"\\sqrt{{{b}}}", f"{a}\\pi", f"\\frac{{{a}}}{{{b}}}"]
        return rng.choice([*forms, f"{letter}^{{{b % 4 + 1}}}", f"{a}.{b}"])
    one, other = some_formula(rng, depth - 1), some_formula(rng, depth - 1)
    forms = [f"{one}+{other}", f"{one}-{other}", f"\\frac{{{one}}}{{{other}}}", f"({one})({other})"]
    forms += [f"{one}\\cdot {other}", f"\\sqrt{{{one}}}", f"({one})^2", f"-{one}", f"({one})/{b}"]
    return rng.choice([*forms, f"({one}, {other})", f"{letter}={one}"] if depth == 2 else forms)


def test_what_the_values_of_formulas_say_math_verify_says() -> None:
    """Verdicts of `formulas.compare` that math-verify can check: no decimals, whose law is our own."""
    rng = random.Random(7)
    differing = equal = 0
    for i in range(60):
        gold = some_formula(rng, i % 3)
        digits = [j for j, letter in enumerate(gold) if letter.isdigit()] or [0]
        at = rng.choice(digits)
        found = gold[:at] + str(rng.randint(1, 9)) + gold[at + 1 :] if i % 2 else some_formula(rng, i % 3)
        verdict = formulas.compare(gold, found)
        if verdict is None or "." in gold + found:
            continue
        differing, equal = differing + (not verdict), equal + verdict
        assert plain_math_verify(gold, found) == verdict, (gold, found)
    assert differing > 20
    assert equal > 3


@pytest.mark.parametrize(
    ("one", "other"),
    [("x^2", "x*x"), ("(x+1)^2", "x^2+2x+1"), (r"\sqrt{8}", r"2\sqrt{2}"), ("1/2x", "x/2"), ("2x", "x+x")]
    + [("(1,2)", "(1, 2)"), ("1,2", "2,1"), ("x=5", "5"), (r"\frac{x^2-1}{x-1}", "x+1"), ("1,234", "1234")]
    + [
        (r"2\frac{1}{2}", "2.5"),
        ("0.333333", r"\frac{1}{3}"),
        ("|x|", "x"),
        ("x^{1/2}y^{1/2}", "(xy)^{1/2}"),
    ],
)
def test_what_is_equal_or_unclear_is_not_said_to_differ(one: str, other: str) -> None:
    assert formulas.compare(one, other) is not False
    assert formulas.compare(other, one) is not False
