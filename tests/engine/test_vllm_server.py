"""rollout.vllm.server, without vLLM: a real server in a process of its own that speaks its API and samples by
our engine (vllm_stand_in.py), and that is killed in the middle."""

import json
import os
import signal
import socket
import time
from email.message import Message
from io import BytesIO
from threading import Timer
from urllib.error import HTTPError

import pytest
import torch
from conftest import QUIET, fit
from make import TEXTS, example, lora, plain_logprobs
from resumed import UNLOGGED, equal, what_counts
from vllm_stand_in import serving

from srl.engine.engine import RolloutEngine
from srl.engine.vllm import VllmEngine, VllmSettings
from srl.engine.vllm_adapter import AdapterFiles, Asked
from srl.engine.vllm_server import VllmServer, said_of
from srl.errors import ConfigError, ServerGone
from srl.model.loading import load_base, load_tokenizer
from srl.model.sources import resolve
from srl.server import Client, Passing
from srl.types import Sampling


@pytest.fixture(autouse=True)
def local(monkeypatch):
    """No proxy stands between."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv("SRL_VLLM_KEY", raising=False)


@pytest.fixture(scope="module")
def start(server, model_folder):
    """Starts a server of the tiny model in a process of its own: start(folder, **options of the stand-in)."""
    return lambda folder, **options: serving(server, model_folder, folder, **options)


def engine_of(model_folder, url, folder, patience=60.0, **more):
    files = resolve(str(model_folder))
    base = load_base(files, quantization="none", device=torch.device("cpu"), dtype=torch.float32)
    own = RolloutEngine(lora(base), load_tokenizer(files), (1, *range(10, 20)))
    made = VllmEngine(own, files, VllmSettings(server=url, adapters=str(folder), patience=patience), **more)
    assert made.server is not None
    made.server.pause = 0.05
    return made


def asked(engine, **more):
    return [
        example(text, engine.own.tokenizer, **{"max_new_tokens": 12 + i, **more})
        for i, text in enumerate(TEXTS)
    ]


def sampled(engine, examples, seed=0, temperature=1.3):
    return engine.generate(examples, 4, Sampling(temperature), torch.Generator().manual_seed(seed))


def ids_of(groups):
    return [completion.ids for group in groups for completion in group]


def test_each_adapter_has_a_name_of_its_own_and_none_stays_behind(start, model_folder, tmp_path):
    with start(tmp_path) as server:
        one, other, again = (
            engine_of(model_folder, server.url, tmp_path / "shared", owner=owner) for owner in "aba"
        )
        examples = asked(one)
        one.begin(examples, 1.3)
        other.begin(examples, 1.3)
        first = sampled(one, examples)
        with torch.no_grad():
            for name, parameter in one.own.decoder.model.named_parameters():
                if "lora_B" in name:
                    parameter.neg_()
        second = sampled(one, examples)
        sampled(one, examples)  # nothing has changed since
        for asked_one, group in zip(examples, second, strict=True):
            for completion in group:
                expected = plain_logprobs(one.own.decoder.model, asked_one.prompt_ids, completion.ids, 1.3)
                assert torch.allclose(completion.logprobs, expected, atol=1e-4)
        assert ids_of(first) != ids_of(second)
        assert ids_of(sampled(other, examples)) == ids_of(first), "one's adapters are not the other's"
        again.begin(examples, 1.3)  # as after a kill of one: what it left is gone
        names = server.names("/load")
        assert len(set(names)) == len(names) == 4
        assert names[0][:-1] == names[2][:-1]
        assert server.names("/unload") == [names[0], names[2]]
        assert len(list((tmp_path / "shared").iterdir())) == 2
        other.end()
        again.end()
        assert sorted(server.names("/unload")) == sorted(names)
    assert list((tmp_path / "shared").iterdir()) == []


def test_a_draw_on_a_killed_server_is_taken_again_and_is_the_same(start, model_folder, tmp_path, caplog):
    found = []
    for name, more in (("alone", {}), ("killed", {"die_at": [8 + 3, 8 + 3 + 4]}), ("busy", {"fail": 2})):
        folder = tmp_path / name
        folder.mkdir()
        with start(folder, **more) as server:
            engine = engine_of(model_folder, server.url, folder / "shared")
            engine.server.connect()
            engine.server.begin(engine.own.decoder.model, tuple(engine.own.end_ids))
            if name == "killed":
                for seed in range(8):
                    sampled(engine, asked(engine)[:1], seed=seed)
            caplog.clear()
            found.append(sampled(engine, asked(engine)))
            loads = server.names("/load")
        if name == "killed":
            assert len(loads) == 3
            assert len(set(loads)) == 1
            assert caplog.text.count("then the draw is taken again") == 2
            assert caplog.text.count("is there again") == 2
    for group, same, after in zip(*found, strict=True):
        for one, two, three in zip(group, same, after, strict=True):
            assert one.ids == two.ids == three.ids
            assert torch.equal(one.logprobs, two.logprobs)
            assert torch.equal(one.logprobs, three.logprobs)


RUN = [
    *QUIET, *UNLOGGED, "--rollout.engine", "vllm", "--model.loss.truncated_ratio", "2",
    "--trainer.limit_val_batches", "0", "--checkpoint.every_n_updates", "1", "--trainer.max_steps", "4",
]  # fmt: skip


def run(model_folder, expert_file, folder, server, *more):
    given = ["--rollout.vllm.server", server.url, "--rollout.vllm.adapters", str(folder / "shared")]
    return fit(model_folder, expert_file, folder / "run", *RUN, *given, *more)


@pytest.fixture(scope="module")
def alone(start, model_folder, tmp_path_factory):
    """The state after a run whose server lives on, and the lines of data that it read."""
    from conftest import expert_rows, write_rows

    folder = tmp_path_factory.mktemp("alone")
    data = write_rows(folder / "expert.jsonl", expert_rows(24))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("no_proxy", "*")
        with start(folder) as server:
            assert run(model_folder, data, folder, server) == 0
            asked_for = len(server.said("/v1/completions"))
    return what_counts(folder / "run" / "last.ckpt"), data, asked_for


def test_a_run_whose_server_is_killed_in_two_draws_is_the_run_left_alone(
    alone, start, model_folder, tmp_path
):
    state, data, asked_for = alone
    assert asked_for == 4 + 4 * 6  # the look at its log-probabilities, and six prompts a draw
    die_at = [4 + 6 + 3, 4 + 6 + 3 + 6 + 2]  # in the second draw, and in the one behind it
    with start(tmp_path, die_at=die_at) as server:
        assert run(model_folder, data, tmp_path, server) == 0
        assert len(server.names("/load")) == 4 + 2
    equal(what_counts(tmp_path / "run" / "last.ckpt"), state)
    assert list((tmp_path / "shared").iterdir()) == []


def test_a_run_whose_server_stays_away_stops_with_a_checkpoint_and_goes_on(
    alone, start, model_folder, tmp_path, capsys
):
    data = alone[1]
    with start(tmp_path, die_at=[4 + 6 + 3], down=1000) as server:
        status = run(model_folder, data, tmp_path, server, "--rollout.vllm.patience", "2")
    err = capsys.readouterr().err
    assert status == 1, err
    last = tmp_path / "run" / "last.ckpt"
    line = err.splitlines()[-1]
    assert line.startswith(f"srl: error: vLLM's server {server.url} has not been there for")
    assert "(rollout.vllm.patience is 2)" in line
    assert line.endswith(f"{last} holds update 1: go on with --ckpt_path last")
    assert torch.load(last, weights_only=True)["global_step"] == 1
    (tmp_path / "shared" / "srl-left").mkdir(parents=True)  # of somebody else
    with start(tmp_path) as server:
        assert run(model_folder, data, tmp_path, server, "--ckpt_path", "last") == 0
    assert torch.load(last, weights_only=True)["global_step"] == 4
    assert [one.name for one in (tmp_path / "shared").iterdir()] == ["srl-left"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"updating": False}, "cannot change adapters .*VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"),
        ({"name": "other/model"}, "serves other/model, but model.base is"),
        ({"key": "Bearer k"}, "wants its key in the environment variable SRL_VLLM_KEY"),
        ({"rank": 2}, r"no room for model\.lora\.r 4 .*--max-lora-rank 8 "),
        ({"enabled": False}, "adapters switched off .*--enable-lora"),
        ({"fault": "blind"}, "does not see the adapter's files .*set rollout.vllm.adapters"),
        ({"context": 20}, r"the server takes 20: start it with --max-model-len"),
        ({"raw": True}, "--logprobs-mode processed_logprobs"),
        ({"fault": "weights"}, "does not sample from the policy"),
    ],
)
def test_a_server_that_cannot_be_trained_with_is_refused_before(options, said, start, model_folder, tmp_path):
    with start(tmp_path, **options) as server:
        engine = engine_of(model_folder, server.url, tmp_path / "shared")
        with pytest.raises(ConfigError, match=said):
            engine.begin(asked(engine), 1.3)


@pytest.mark.parametrize(
    ("base", "rank", "said"),
    [
        ("org/model@abc", 24, "vllm serve org/model --revision abc --enable-lora --max-lora-rank 32 "),
        ("org/model", 8, "vllm serve org/model --enable-lora --max-lora-rank 8 "),
    ],
)
def test_the_command_that_is_named_is_one_that_vllm_takes(base, rank, said):
    with pytest.raises(ConfigError, match=said):
        VllmServer(VllmSettings(server="http://127.0.0.1:9"), base, rank).connect()


def test_the_adapters_files_can_be_read_by_a_server_of_another_user(model_folder, tmp_path):
    base = load_base(resolve(str(model_folder)), quantization="none", device=torch.device("cpu"))
    _, folder = AdapterFiles(lora(base), tmp_path).newest()
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o644}


def test_a_server_is_asked_again_before_patience_ends(monkeypatch):
    server = VllmServer(VllmSettings(server="http://127.0.0.1:9", patience=0.4), "base", 8)
    asked = []
    monkeypatch.setattr(server, "connect", lambda: asked.append(1))
    server._wait("no answer", 3)  # else it would rest for four seconds
    assert asked == [1]


def test_no_server_is_said_before_weights_are_loaded(refused):
    said = refused("--rollout.engine", "vllm", "--rollout.vllm.server", "http://127.0.0.1:9")
    assert (
        "rollout.vllm.server http://127.0.0.1:9: no connection (ConnectionRefusedError); start it with"
        in said
    )
    assert "vllm serve" in said


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"server": "10.0.0.2:8000"}, "server is no address; write one such as http://localhost:8000"),
        ({"server": "http://u:p@h:1"}, "holds more than host and path"),
        ({"server": "http://10.0.0.2:8000"}, "is another machine, and rollout.vllm.adapters is not set"),
        ({"max_tokens": 0}, r"rollout\.vllm\.max_tokens is 0: it must be at least 1"),
        ({"patience": 0}, "patience is 0: write seconds above 0"),
        ({"key_variable": "sk-1"}, "names? no|is no name of an environment variable"),
    ],
)
def test_settings_of_a_server_are_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        VllmSettings(**settings)


def choice(**more):
    logprobs = {"token_logprobs": [-0.5, -1]}
    plain = {"token_ids": [5, 6], "prompt_token_ids": [1, 2], "logprobs": logprobs, "finish_reason": "length"}
    return plain | more


def test_what_a_server_says_is_read_or_refused():
    one = Asked((1, 2), 2, 0)
    (read,) = said_of(json.dumps({"choices": [choice()]}).encode(), one, 1, "u")
    assert (read.ids, read.logprobs, read.reason) == ([5, 6], [-0.5, -1], "length")
    wrong = {
        "gave 2 completions where 1 were": [choice(), choice()],
        "another prompt than it was asked": [choice(prompt_token_ids=[1, 3])],
        "without token ids or log-probabilities": [choice(logprobs=None)],
        "without token ids": [choice(token_ids=None)],
        "token ids or log": [choice(logprobs={"token_logprobs": [None, -1.0]})],
        "otherwise than at an end token": [choice(finish_reason="error")],
        "or its limit": [choice(token_ids=[1, 2, 3])],
    }
    for said, choices in wrong.items():
        with pytest.raises(ServerGone, match=said):
            said_of(json.dumps({"choices": choices}).encode(), one, 1, "u")
    with pytest.raises(ServerGone, match="this version cannot be used"):
        said_of(b"<html>", one, 1, "u")
    with pytest.raises(Passing, match="broken off"):  # by a server that was told to end
        said_of(json.dumps({"choices": [choice(finish_reason="abort", token_ids=[5])]}).encode(), one, 1, "u")


def test_an_adapter_on_a_server_that_fails_every_draw_is_unloaded_in_the_end(start, model_folder, tmp_path):
    with start(tmp_path, fail=1000) as server:
        engine = engine_of(model_folder, server.url, tmp_path / "shared")
        engine.server.begin(engine.own.decoder.model, (1,))
        with pytest.raises(ServerGone, match=r"5 times in a row a draw failed: HTTP 503: busy"):
            sampled(engine, asked(engine))
        engine.end()
        assert set(server.names("/unload")) == set(server.names("/load")) != set()


def test_ctrl_c_does_not_wait_for_an_answer():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = f"http://127.0.0.1:{silent.getsockname()[1]}"
            server = VllmServer(VllmSettings(server=url, time_limit=30), "m", 4)
            Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
            start = time.monotonic()
            with pytest.raises(KeyboardInterrupt):
                server._draw([Asked((1,), 2, 0)] * 3, 1, 1.0)
            assert time.monotonic() - start < 15
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("before", [0, 140])
def test_a_key_that_a_server_repeats_is_not_shown_even_in_part(before, monkeypatch):
    monkeypatch.setenv("SRL_VLLM_KEY", key := "sk-" + 40 * "a")
    said = json.dumps({"error": {"message": before * "x " + f"bad key {key}"}}).encode()
    error = HTTPError("u", 400, "m", Message(), BytesIO(said))
    found = Client("http://h", "SRL_VLLM_KEY", 1)._message(error)
    assert found == before * "x " + "bad key ***"
