"""Two machines that train one model: processes that know each other by an address and their number alone.

Each has a folder of its own for data and checkpoints, as another disk would be. Both run here, by Gloo.
"""

import os
import signal
import socket
import sys
from types import SimpleNamespace

import pytest
import torch
from conftest import QUIET, expert_rows, fit, write_rows

from srl.cli.commands import launched_rank

UPDATES = ["--trainer.max_steps", "2", "--rollout.temperature", "1.5"]


def machine(number, port, model_folder, folder, arguments, dump):
    """What the user starts on each: only NODE_RANK differs."""
    output = os.open(folder / "output", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout, sys.stderr = (open(place, "w", buffering=1, closefd=False) for place in (1, 2))  # noqa: SIM115
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        os.environ.pop(name, None)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": str(number)}
    keep_weights(dump)
    several = ["--trainer.num_nodes", "2", "--trainer.devices", "1", *QUIET]
    sys.exit(fit(model_folder, folder / "expert.jsonl", folder / "run", *several, *arguments))


def keep_weights(path):
    """Checkpoints are written by the first machine; what each has trained is kept here."""
    from modules.policy import PolicyModule
    from srl.model.adapters import adapter_state

    def ended(module):
        torch.save({"step": module.global_step, "adapter": adapter_state(module.policy)}, path)

    PolicyModule.on_train_end = ended


@pytest.fixture
def machines(server, model_folder, tmp_path):
    """Start both: statuses, outputs and trained weights. rows: of each machine's data."""

    def start(rows=(24, 24), more=((), ())):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        folders = [tmp_path / name for name in ("first", "second")]
        processes = []
        for number, folder in enumerate(folders):
            folder.mkdir()
            write_rows(folder / "expert.jsonl", expert_rows(rows[number]))
            given = (number, port, model_folder, folder, [*UPDATES, *more[number]], folder / "weights")
            processes.append(server.Process(target=machine, args=given))
        for process in processes:
            process.start()
        for process in processes:
            process.join(600)
        texts = [(folder / "output").read_text() for folder in folders]
        if any(process.is_alive() for process in processes):
            for process in processes:
                process.kill()
            pytest.fail("still running: " + "\n---\n".join(texts))
        return SimpleNamespace(status=[one.exitcode for one in processes], texts=texts, folders=folders)

    return start


def test_after_two_updates_both_have_the_same_adapter_and_the_first_has_written_it(machines):
    found = machines()
    assert found.status == [0, 0], "\n---\n".join(found.texts)
    first, second = (torch.load(folder / "weights", weights_only=True) for folder in found.folders)
    assert first["step"] == second["step"] == 2
    assert first["adapter"].keys() == second["adapter"].keys()
    assert all(torch.equal(value, second["adapter"][name]) for name, value in first["adapter"].items())
    assert any(bool(value.any()) for name, value in first["adapter"].items() if "lora_B" in name)
    saved = torch.load(found.folders[0] / "run" / "last.ckpt", weights_only=True)["state_dict"]
    assert sum(torch.equal(value, first["adapter"][name.removeprefix("policy.")]) for name, value in
               saved.items()) == len(first["adapter"])  # fmt: skip
    assert not list((found.folders[1] / "run").glob("*.ckpt"))
    assert "Data: " in found.texts[0]
    assert "Data: " not in found.texts[1]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rows": (24, 23)}, "process 1 has SHA-256 of the data: "),
        ({"more": ((), ("--model.loss.clip_low", "0.1"))}, "process 1 has model.loss.clip_low: 0.1"),
    ],
    ids=["data", "config"],
)
def test_machines_with_other_data_or_settings_end_at_once_and_say_it(machines, changes, said):
    found = machines(**changes)
    assert found.status == [2, 2], "\n---\n".join(found.texts)
    assert said in found.texts[0], "\n---\n".join(found.texts)
    assert "start every machine with the same config, data and base" in found.texts[0]


@pytest.mark.parametrize(
    ("given", "number"),
    [({}, 0), ({"LOCAL_RANK": "1"}, 1), ({"NODE_RANK": "1"}, 1), ({"RANK": "0", "NODE_RANK": "3"}, 0)],
)
def test_one_process_of_all_machines_speaks(monkeypatch, given, number):
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert launched_rank() == number
