"""Rewards from worker processes: the same numbers in the same order, and no process left behind."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from conftest import fit
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from srl.rewards import similarity_pool as reward_pool
from srl.rewards.similarity import similarity
from srl.rewards.similarity_pool import chunks, similarities

ROOT = Path(__file__).resolve().parents[2]
TEXT = st.text(max_size=40) | st.text(alphabet="ab \n\ud800\U0001f600", max_size=60)


@pytest.fixture
def pool(monkeypatch):
    """Two workers, and every work is long."""
    monkeypatch.setattr(reward_pool, "LONG", 0)
    monkeypatch.setattr(reward_pool, "cores", lambda: 2)
    yield reward_pool
    reward_pool.close()


def texts(count, size, seed=0):
    """An expert's text and the same with a third of its words replaced."""
    rng = random.Random(seed)
    words = ["".join(rng.choices("etaoinshrdlu", k=rng.randint(2, 8))) for _ in range(300)]
    made = []
    for _ in range(count):
        expert = [rng.choice(words) for _ in range(size // 6)]
        action = [rng.choice(words) if rng.random() < 1 / 3 else word for word in expert]
        made.append((" ".join(action), " ".join(expert)))
    return made


def children() -> set[int]:
    """Reward workers that this process started and that are alive."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            command = (stat.parent / "cmdline").read_bytes()
        except OSError:  # it ended meanwhile
            continue
        if int(fields[1]) == os.getpid() and fields[0] != "Z" and b"srl.rewards.similarity_pool" in command:
            found.add(int(stat.parent.name))
    return found


def gone(pids, seconds=10.0):
    """True when all processes have ended within some seconds."""
    end = time.monotonic() + seconds
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


@given(pairs=st.lists(st.tuples(TEXT, TEXT), max_size=30), autojunk=st.booleans())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_workers_give_the_same_rewards_in_the_same_order(pool, pairs, autojunk):
    assert similarities(pairs, autojunk) == [similarity(a, b, autojunk) for a, b in pairs]
    assert len(children()) in (0, 2)


def test_long_texts_too_and_the_switch_reaches_the_workers(pool):
    pairs = texts(40, 600)
    plain = similarities(pairs)
    assert plain == [similarity(a, b) for a, b in pairs]
    assert plain != similarities(pairs, autojunk=True)
    assert len(set(plain)) == 40
    assert len(children()) == 2


def test_short_work_and_one_core_start_nothing(monkeypatch):
    monkeypatch.setattr(reward_pool, "cores", lambda: 2)
    pairs = texts(20, 300)
    assert sum(len(a) * len(b) for a, b in pairs) < reward_pool.LONG
    similarities(pairs)
    monkeypatch.setattr(reward_pool, "cores", lambda: 1)
    monkeypatch.setattr(reward_pool, "LONG", 0)
    similarities(pairs)
    assert not children()


def test_as_many_workers_as_the_process_may_use_cores():
    assert reward_pool.cores() == len(os.sched_getaffinity(0))


@given(work=st.lists(st.integers(0, 10**9), min_size=1, max_size=60), count=st.integers(1, 20))
def test_chunks_hold_every_pair_once_and_are_about_equal(work, count):
    found = chunks(work, count)
    assert [place for first, last in found for place in range(first, last)] == list(range(len(work)))
    if sum(work):
        assert len(found) <= count + 1
    assert all(sum(work[a : b - 1]) * count <= sum(work) for a, b in found)  # without its last pair


def test_a_killed_worker_loses_nothing(pool, caplog):
    pairs = texts(300, 1200)
    similarities(pairs[:4])  # starts them
    before = children()
    victim = min(before)
    timer = threading.Timer(0.05, os.kill, (victim, signal.SIGKILL))
    timer.start()
    with caplog.at_level("WARNING"):
        found = similarities(pairs)
    timer.join()
    assert found == [similarity(a, b) for a, b in pairs]
    assert [record.getMessage() for record in caplog.records] == [
        "1 reward workers died (exit status -9): their pairs are scored in the main process"
    ]
    similarities(pairs[:4])
    after = children()
    assert len(after) == 2, "another one takes its place"
    assert victim not in after


def test_all_workers_killed_while_idle(pool):
    pairs = texts(10, 100)
    similarities(pairs)
    for pid in children():
        os.kill(pid, signal.SIGKILL)
    assert similarities(pairs) == [similarity(a, b) for a, b in pairs]


def test_a_worker_that_cannot_start_is_no_loss(pool, monkeypatch, caplog):
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    pairs = texts(10, 100)
    assert similarities(pairs) == [similarity(a, b) for a, b in pairs]
    assert "a reward worker cannot start" in caplog.text


def test_ctrl_c_in_the_middle_leaves_nothing_running(pool):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    try:
        _ctrl_c_in_the_middle()
    finally:
        signal.signal(signal.SIGINT, before)


def _ctrl_c_in_the_middle():
    pairs = texts(400, 2000)
    similarities(pairs[:4])
    workers = children()
    timer = threading.Timer(0.2, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        similarities(pairs)
    assert gone(workers)
    assert similarities(pairs[:4]) == [similarity(a, b) for a, b in pairs[:4]]


PROGRAM = """
import signal, sys; sys.path[:0] = [{root!r}, {tests!r}]
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a job in the background starts without
from srl.rewards import similarity_pool as reward_pool
from test_reward_pool import children, texts
reward_pool.LONG, reward_pool.cores = 0, lambda: 2
reward_pool.similarities(texts(4, 100))
print(*children(), flush=True)
while {forever}:
    reward_pool.similarities(texts(400, 2000))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL, None])
def test_workers_end_with_their_parent_however_it_ends(number):
    """Without a main guard: the worker does not import the user's program again."""
    code = PROGRAM.format(root=str(ROOT), tests=str(ROOT / "tests"), forever=number is not None)
    program = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        workers = {int(pid) for pid in program.stdout.readline().split()}
        assert len(workers) == 2
        if number == signal.SIGINT:
            os.killpg(program.pid, number)  # as a terminal does
        elif number is not None:
            program.send_signal(number)
        program.wait(30)
    finally:
        program.kill()
        program.wait()
        program.stdout.close()
    assert gone(workers)


def test_a_worker_loads_no_torch():
    code = (
        "import srl.rewards.similarity_pool, sys\n"
        "sys.exit(' '.join({'torch', 'numpy', 'lightning'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert not run.stderr.strip()


def test_a_run_with_workers_equals_one_without_and_leaves_none(
    pool, model_folder, expert_file, tmp_path, monkeypatch
):
    started, start = [], reward_pool._Worker.start
    monkeypatch.setattr(reward_pool._Worker, "start", lambda: started.append(1) or start())
    quiet = ["--trainer.logger", "false", "--model.validation.samples", "0"]
    assert fit(model_folder, expert_file, tmp_path / "pool", *quiet) == 0
    assert len(started) == 2
    assert not children()
    monkeypatch.setattr(reward_pool, "LONG", 10**12)
    assert fit(model_folder, expert_file, tmp_path / "direct", *quiet) == 0
    assert len(started) == 2
    a, b = (
        torch.load(tmp_path / name / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("pool", "direct")
    )
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_run_that_fails_leaves_none_either(pool, model_folder, expert_file, tmp_path, monkeypatch):
    from modules.policy import PolicyModule

    def failing(module, batch, batch_idx):
        assert len(children()) == 2
        raise RuntimeError("no such luck")

    monkeypatch.setattr(PolicyModule, "training_step", failing)
    with pytest.raises(RuntimeError, match="no such luck"):
        fit(model_folder, expert_file, tmp_path / "run", "--trainer.logger", "false")
    assert not children()
