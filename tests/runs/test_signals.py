"""Ctrl-C and SIGTERM, sent to real processes: the checkpoint, the exit status, the way on.

The processes are forked from one server that has Lightning imported, which saves ten seconds each.
"""

import os
import signal
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from conftest import expert_rows, fit, tracking_uri, write_rows
from resumed import equal, what_counts


def child(model_folder, data, folder, marks, arguments):
    """One run in a process of its own, its output in a file; leaves a mark where the test waits for one."""
    output = os.open(folder.parent / "output", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))  # noqa: SIM115
    signal.signal(signal.SIGINT, signal.default_int_handler)
    watch(marks)
    sys.exit(fit(model_folder, data, folder, "--trainer.logger", "false", *arguments))


def watch(marks):
    """Touch marks/HOOK when the run is first inside that hook, and stay while marks/HOOK.stay is there."""
    from modules.policy import PolicyModule

    def marked(name):
        hook = getattr(PolicyModule, name)

        def run(module, *arguments):
            fn = module.trainer.state.fn.value
            mark = marks / f"{fn}-{name}"
            if (module.global_step >= 2 or fn == "validate") and not mark.exists():
                mark.touch()
                while mark.with_suffix(".stay").exists():
                    time.sleep(0.01)
            return hook(module, *arguments)

        setattr(PolicyModule, name, run)

    marked("training_step")
    marked("validation_step")


@pytest.fixture
def start(server, model_folder, tmp_path):
    """Start a run, wait until it is inside a hook, send it signals: exit status, output, its folder."""
    data = write_rows(tmp_path / "expert.jsonl", expert_rows(24))
    marks = tmp_path / "marks"
    marks.mkdir()

    def run(mark, *signals, more=()):
        arguments = ["--trainer.max_steps", "100000", "--model.validation.attempts", "0", *more]
        folder = tmp_path / "run"
        process = server.Process(target=child, args=(model_folder, data, folder, marks, arguments))
        stay, output = marks / f"{mark}.stay", tmp_path / "output"
        stay.touch()
        tracking_uri(tmp_path)  # made here, once a session
        process.start()
        deadline = time.monotonic() + 600
        while mark and not (marks / mark).exists() and process.is_alive() and time.monotonic() < deadline:
            time.sleep(0.02)
        for place, number in enumerate(signals, 1):
            os.kill(process.pid, number)
            heard = f"{signal.Signals(number).name}: "
            while place < len(signals) and heard not in output.read_text() and time.monotonic() < deadline:
                time.sleep(0.02)  # two that wait together would be one
        stay.unlink()
        process.join(600)
        text = output.read_text()
        if process.is_alive():
            process.kill()
            pytest.fail(f"still running: {text}")
        return SimpleNamespace(status=process.exitcode, text=text, folder=folder)

    return run


def test_a_signal_in_training_saves_and_the_run_goes_on(start):
    every_draw = ["--dynamic_sampling.enabled", "false"]  # makes an update
    ended = start("fit-training_step", signal.SIGINT, more=every_draw)
    assert ended.status == 130, ended.text
    # The update under way when the signal came, the third, was finished.
    assert torch.load(ended.folder / "last.ckpt", weights_only=True)["global_step"] == 3
    assert "stopped by SIGINT after update 3; go on with --ckpt_path last" in ended.text
    assert "Traceback" not in ended.text
    again = start(None, more=["--ckpt_path", "last", "--trainer.max_steps", "5", *every_draw])
    assert again.status == 0, again.text
    assert "going on after update 3" in again.text
    assert torch.load(ended.folder / "last.ckpt", weights_only=True)["global_step"] == 5


def test_a_signal_in_a_validation_loses_no_update(start):
    more = ["--trainer.val_check_interval", "3", "--data.validation.batch_size", "1"]
    ended = start("fit-validation_step", signal.SIGTERM, more=more)
    assert ended.status == 143, ended.text
    assert torch.load(ended.folder / "last.ckpt", weights_only=True)["global_step"] == 3
    assert not (ended.folder / "best.ckpt").exists()  # the validation did not end
    assert "stopped by SIGTERM after update 3; go on with --ckpt_path last" in ended.text
    assert "Traceback" not in ended.text
    again = start(None, more=["--ckpt_path", "last", "--trainer.max_steps", "4", *more])
    assert again.status == 0, again.text
    assert (ended.folder / "best.ckpt").exists()


def test_a_killed_run_goes_on_as_if_it_had_not_been(start, model_folder, tmp_path):
    """SIGKILL in update 3, with a checkpoint of update 2; benchmarks/kill.py kills at many more moments."""
    more = ["--dynamic_sampling.enabled", "false", "--checkpoint.every_n_updates", "2"]
    killed = start("fit-training_step", signal.SIGKILL, more=more)
    assert killed.status == -signal.SIGKILL
    assert torch.load(killed.folder / "last.ckpt", weights_only=True)["global_step"] == 2
    more += ["--trainer.max_steps", "4"]
    again = start(None, more=["--ckpt_path", "last", *more])
    assert again.status == 0, again.text
    assert "going on after update 2" in again.text
    alone = ["--model.validation.attempts", "0", "--trainer.logger", "false", *more]
    assert fit(model_folder, tmp_path / "expert.jsonl", tmp_path / "alone", *alone) == 0
    equal(what_counts(tmp_path / "alone" / "last.ckpt"), what_counts(killed.folder / "last.ckpt"))


def test_a_signal_before_the_first_update_says_that_nothing_was_lost(start):
    ended = start("validate-validation_step", signal.SIGTERM, more=["--data.validation.batch_size", "1"])
    assert ended.status == 143, ended.text
    assert "stopped by SIGTERM during a validation; no update was under way" in ended.text
    assert not (ended.folder / "last.ckpt").exists()
    assert "Traceback" not in ended.text


def test_a_second_ctrl_c_ends_at_once(start):
    """Inside the hook, which sleeps before it makes the update: the first signal alone would save."""
    ended = start("fit-training_step", signal.SIGINT, signal.SIGINT)
    assert ended.status == 130, ended.text
    assert "Ctrl-C again ends at once" in ended.text
    assert "ended at once by Ctrl-C" in ended.text
    assert not (ended.folder / "last.ckpt").exists()
    assert "Traceback" not in ended.text
