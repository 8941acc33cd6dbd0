"""Checkpoint files on the disk: whole or not at all, the one before kept, damage seen."""

import os
from types import SimpleNamespace

import pytest
import torch

from srl.errors import ConfigError
from srl.evaluation.validation import ValidationSettings
from srl.files import fault, put
from srl.model.checkpoint import resolve_checkpoint


def saved(path, value):
    """A checkpoint with one tensor of 4,000 bytes, all of them `value`."""
    torch.save({"weights": torch.full((1000,), value)}, path)
    return path


def value_of(path):
    return float(torch.load(path, weights_only=True)["weights"][0])


def renewed(folder, value, previous=True):
    put(
        saved(folder / "last.tmp", value),
        folder / "last.ckpt",
        folder / "previous.ckpt" if previous else None,
    )


@pytest.mark.parametrize("links", [True, False], ids=["hard links", "no hard links"])
def test_the_file_before_stays_as_previous(tmp_path, monkeypatch, links):
    if not links:

        def refused(*_):
            raise PermissionError("no links here")

        monkeypatch.setattr(os, "link", refused)
    renewed(tmp_path, 1.0)
    assert sorted(os.listdir(tmp_path)) == ["last.ckpt"]
    for value in (2.0, 3.0):
        renewed(tmp_path, value)
        assert sorted(os.listdir(tmp_path)) == ["last.ckpt", "previous.ckpt"]
        assert value_of(tmp_path / "last.ckpt") == value
        assert value_of(tmp_path / "previous.ckpt") == value - 1
    renewed(tmp_path, 4.0, previous=False)
    assert value_of(tmp_path / "previous.ckpt") == 2.0


@pytest.mark.parametrize("call", ["fsync", "link", "replace"])
@pytest.mark.parametrize("nth", [1, 2])
def test_cut_short_anywhere_a_whole_file_is_there(tmp_path, monkeypatch, call, nth):
    """Each of the calls that `put` makes is the last: what a process killed there leaves behind."""
    renewed(tmp_path, 1.0)
    real, calls = getattr(os, call), []

    def cut(*arguments):
        calls.append(arguments)
        if len(calls) == nth:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(os, call, cut)
    try:
        renewed(tmp_path, 2.0)
    except KeyboardInterrupt:
        pass
    else:
        assert call == "link", "one link, but two of the others"
        return
    monkeypatch.undo()
    assert value_of(tmp_path / "last.ckpt") == (2.0 if (call, nth) == ("fsync", 2) else 1.0)
    renewed(tmp_path, 3.0)  # whatever was left behind is in no one's way
    assert sorted(os.listdir(tmp_path)) == ["last.ckpt", "previous.ckpt"]
    assert value_of(tmp_path / "last.ckpt") == 3.0


def test_only_a_last_that_is_of_this_run_and_whole_becomes_previous(tmp_path):
    from callbacks.checkpoint import Checkpoint

    last, previous, draft = (tmp_path / name for name in ("last.ckpt", "previous.ckpt", "last.tmp"))
    for keeps, kept in [(True, 2.0), (False, 1.0)]:
        saved(last, 2.0)
        saved(previous, 1.0)
        checkpoints = Checkpoint(str(tmp_path))
        checkpoints._keeps = keeps  # as on_train_start finds it
        checkpoints._put(saved(draft, 3.0), last)
        assert value_of(previous) == kept
        checkpoints._put(saved(draft, 4.0), last)
        assert (value_of(last), value_of(previous)) == (4.0, 3.0)


ACCURACY, REWARD = "val/outcome/accuracy", "val/steps/reward"


def chooses(monkeypatch, folder, *validations, state=None, monitor=ACCURACY):
    """Which of the validations, each its figures, write best.ckpt."""
    from callbacks.checkpoint import Checkpoint

    checkpoints, written = Checkpoint(str(folder), monitor), []
    monkeypatch.setattr(
        checkpoints, "_save", lambda trainer, path: written.append((path.name, trainer.place))
    )
    module = SimpleNamespace(unmeasured=set(), validation_settings=ValidationSettings(full_every=2))
    if state is not None:
        checkpoints.load_state_dict(state)
    trainer = SimpleNamespace(
        ckpt_path=None, state=SimpleNamespace(fn="fit"), sanity_checking=False, loggers=[]
    )
    checkpoints.on_fit_start(trainer, module)
    for place, figures in enumerate(validations):
        trainer.place, trainer.global_step, trainer.callback_metrics = place, place, figures
        checkpoints.on_validation_end(trainer, module)
    return [place for name, place in written if name == "best.ckpt"]


def test_the_best_is_of_one_metric(monkeypatch, tmp_path):
    def chosen(*validations, **named):
        return chooses(monkeypatch, tmp_path, *validations, **named)

    assert chosen({REWARD: 0.6}, {REWARD: 0.5}, {ACCURACY: 0.1}, {REWARD: 0.9}, {ACCURACY: 0.2}) == [0, 2, 4]
    attempts = "val/outcome/avg_at_8"
    given = [{REWARD: 0.6, attempts: 0.1}, {REWARD: 0.7}, {REWARD: 0.6, attempts: 0.2}]
    assert chosen(*given, monitor=attempts) == [0, 2]
    with pytest.raises(
        ConfigError, match=r"monitor is val/steps/rewards, which .* are val/outcome/accuracy, val"
    ):
        chosen({REWARD: 0.6, ACCURACY: 0.1}, monitor="val/steps/rewards")


def test_the_best_of_another_folder_is_not_this_runs(monkeypatch, tmp_path):
    state = {"best": 0.9, "best_step": 3}  # as the version before wrote it
    assert chooses(monkeypatch, tmp_path, {ACCURACY: 0.8}, state=state) == [0]
    (tmp_path / "best.ckpt").touch()
    for more in ({}, {"best_name": ACCURACY}):
        assert chooses(monkeypatch, tmp_path, {ACCURACY: 0.8}, {ACCURACY: 1.0}, state=state | more) == [1]


def torn(path, how):
    data = bytearray(path.read_bytes())
    if how == "cut":
        data = data[: len(data) // 2]
    elif how == "empty":
        data = bytearray()
    else:  # one bit inside the tensor, whose bytes are the same four over and over
        data[data.index(bytes(torch.tensor([1.0]).numpy().tobytes()) * 8)] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("how", "said"),
    [("cut", "is not a checkpoint, or a torn one"), ("empty", "is not a checkpoint"), ("bit", "is torn: ")],
)
def test_damage_is_seen_and_the_one_before_is_taken_saying_so(tmp_path, caplog, how, said):
    renewed(tmp_path, 0.5)
    renewed(tmp_path, 1.0)
    last, previous = tmp_path / "last.ckpt", tmp_path / "previous.ckpt"
    assert fault(last) is None
    assert resolve_checkpoint("last", str(tmp_path)) == str(last)
    torn(last, how)
    assert said in fault(last)
    with caplog.at_level("WARNING"):
        assert resolve_checkpoint("last", str(tmp_path)) == str(previous)
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{last} is ")
    assert record.getMessage().endswith(f"going on with {previous}, the one before it")
    with pytest.raises(ConfigError, match=f"{last} {said}.*give another file"):
        resolve_checkpoint(str(last), str(tmp_path))  # named, so that no other is meant
    torn(previous, "cut")
    with pytest.raises(ConfigError, match=said):
        resolve_checkpoint("last", str(tmp_path))
