"""Runs and recordings that are stopped in the middle of plays: what goes on, what is said, who is left."""

import atexit
import json
import os
import signal
import sys
import time
from types import SimpleNamespace

import psutil
import pytest
import torch
from conftest import fit, write_rows
from letters import HELPED, rows
from resumed import equal, what_counts

PHASES = """[
 {name: copy, mix: {sft_step: 1.0}, lr: 0.03, batch_groups: 24, until: {updates: 5}},
 {name: play, mix: {episode: 1.0, progress: 1.0, srl_own: 1.0}, lr: 0.003, batch_groups: 4}
]"""
ARGUMENTS = [
    "--curriculum.phases", PHASES, "--data.prompt.context_turns", "9", "--data.limits.max_turns", "4",
    "--data.limits.step_tokens", "3", "--data.worlds.own", json.dumps([HELPED]),
    "--dynamic_sampling.enabled", "false", "--model.validation.attempts", "0",
    "--trainer.max_steps", "8", "--checkpoint.every_n_updates", "1", "--trainer.logger", "false",
]  # fmt: skip


def child(model_folder, data, folder, marks, arguments):
    """One command in a process of its own, which ends as those of Python's do."""
    os.setpgid(0, 0)  # as a shell does: Ctrl-C goes to the whole group
    output = os.open(folder.parent / "output", os.O_WRONLY | os.O_CREAT)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))  # noqa: SIM115
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ["PLAY_MARKS"] = str(marks)
    try:
        if arguments:
            from srl.cli.main import main

            (marks / "armed").touch()
            sys.exit(main(arguments))
        arm_in_update_seven(marks)
        sys.exit(fit(model_folder, data, folder, *ARGUMENTS))
    finally:
        atexit._run_exitfuncs()


def arm_in_update_seven(marks):
    """The second that plays: before it the generators have moved on."""
    from callbacks.rollout import Rollout

    begin = Rollout.on_train_batch_start

    def marked(rollout, trainer, *given):
        if trainer.global_step == 6:
            (marks / "armed").touch()
        begin(rollout, trainer, *given)

    Rollout.on_train_batch_start = marked


def lives(process):
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def stopped(server, model_folder, tmp_path):
    """Start a run or this command, wait until it is in the middle of plays, send it signals: exit status and
    output. All the processes below it must have ended then.

    waited: text of its output behind each signal. A run that gets one goes on with its plays then.
    """
    data = write_rows(tmp_path / "plays.jsonl", rows(["aa", "ab"] * 8, HELPED))
    folder, marks, output = tmp_path / "run", tmp_path / "marks", tmp_path / "output"
    marks.mkdir()
    (marks / "stay").touch()
    family = []

    def run(*signals, waited=None, arguments=()):
        process = server.Process(target=child, args=(model_folder, data, folder, marks, list(arguments)))
        process.start()

        def wait(there, seconds=300.0):
            until = time.monotonic() + seconds
            while not there() and time.monotonic() < until:
                time.sleep(0.02)

        wait(lambda: (marks / "here").exists() or not process.is_alive())
        assert process.is_alive(), output.read_text()
        family.extend(psutil.Process(process.pid).children(recursive=True))
        assert "sleep" in [one.name() for one in family], "no play has a process of its own"
        for number in signals:
            os.killpg(process.pid, number)
            wait(lambda: not waited or waited in output.read_text() or not process.is_alive())
        if waited and len(signals) == 1:
            (marks / "stay").unlink()
        process.join(300)
        (marks / "stay").unlink(missing_ok=True)
        assert process.exitcode is not None, f"still running: {output.read_text()}"
        wait(lambda: not any(map(lives, family)), 60)
        assert [one.name() for one in family if lives(one)] == [], "processes are left"
        return SimpleNamespace(status=process.exitcode, text=output.read_text(), data=data, folder=folder)

    yield run
    for one in filter(lives, family):
        one.kill()


@pytest.fixture(scope="module")
def whole(model_folder, tmp_path_factory):
    """What counts of the run that nobody stops."""
    folder = tmp_path_factory.mktemp("whole")
    data = write_rows(folder / "plays.jsonl", rows(["aa", "ab"] * 8, HELPED))
    assert fit(model_folder, data, folder / "run", *ARGUMENTS) == 0
    return what_counts(folder / "run" / "last.ckpt")


@pytest.mark.parametrize(
    ("signals", "status", "saved", "said"),
    [
        ((signal.SIGINT,), 130, 7, "stopped by SIGINT after update 7; go on with --ckpt_path last"),
        ((signal.SIGTERM, signal.SIGINT), 130, 6, "ended at once by Ctrl-C; go on with --ckpt_path last"),
        ((signal.SIGKILL,), -signal.SIGKILL, 6, ""),
    ],
    ids=["ctrl-c", "sigterm-and-ctrl-c", "kill"],
)
def test_a_run_stopped_in_the_middle_of_plays_goes_on_as_if_it_had_not_been(
    whole, stopped, model_folder, signals, status, saved, said
):
    """The plays of the draw are finished, or thrown away and made again from the checkpoint's generators."""
    waited = None if signals == (signal.SIGKILL,) else "Ctrl-C again ends at once"
    ended = stopped(*signals, waited=waited)
    assert ended.status == status, ended.text
    assert "Traceback" not in ended.text
    assert ended.text.splitlines()[-1].startswith(said)
    last = ended.folder / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == saved
    assert fit(model_folder, ended.data, ended.folder, *ARGUMENTS, "--ckpt_path", "last") == 0
    equal(whole, what_counts(last))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_recording_stopped_in_the_middle_of_plays_is_one_line_and_leaves_nothing(stopped, tmp_path, number):
    output = tmp_path / "recorded" / "expert.jsonl"
    output.parent.mkdir()
    ended = stopped(number, arguments=["prepare", HELPED, "--games", "6", "-o", str(output)])
    assert ended.status == 130
    assert ended.text.strip().splitlines() == [f"interrupted after 0 rows: nothing was written to {output}"]
    assert list(output.parent.iterdir()) == []
