"""A server that judges: late, rubbish, too many requests, out of order, gone; its key is shown nowhere."""

import json
import threading
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from conftest import fit

from srl.errors import ConfigError
from srl.evaluation import judge_server
from srl.evaluation.judge_server import ServerGone, ServerVoter
from srl.rewards.judge import JudgeSettings

KEY = "sk-very-secret"
FAULTS = {
    "late": (200, None),
    "garbage": (200, b"<html>"),
    "no choice": (200, b'{"choices": []}'),
    "a list": (200, b"[" * 100_000),
    "429": (429, b""),
    "500": (500, KEY.encode()),
    "nothing": (0, b""),
}


class Server(ThreadingHTTPServer):
    """Fails as `plan` says, in turn, or `always` of the text; else gives a verdict. seen: what was asked."""

    daemon_threads = True

    def __init__(self, plan=(), always=lambda text: None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.plan, self.always, self.seen, self.release = list(plan), always, [], threading.Event()
        self.lock = threading.Lock()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = body["messages"][-1]["content"]
        with self.server.lock:
            self.server.seen.append((self.path, dict(self.headers), body))
            fault = self.server.always(text) or (self.server.plan.pop(0) if self.server.plan else None)
        code, said = FAULTS.get(fault, (fault, b"")) if fault else (200, answer(text))
        if said is None:
            self.server.release.wait(5)
            return
        if code == 0:
            return
        self.send_response(code)
        if code == 302:
            self.send_header("Location", self.server.url + "/elsewhere")
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *args):
        pass


def answer(text):
    verdict = r"So \\boxed{Positive}." if "right" in text else "hm"
    if "opened" in text:  # by the server's template
        verdict = r"\\boxed{Positive} or \\boxed{Negative}?</think>" + verdict
    choice = f'[{{"message": {{"content": "{verdict}"}}}}]'
    return f'{{"choices": {choice}, "usage": {{"completion_tokens": 7}}}}'.encode()


@contextmanager
def serving(*plan, always=lambda text: None):
    server = Server(plan, always)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.release.set()
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(autouse=True)
def local(monkeypatch):
    """No proxy stands between."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv("SRL_JUDGE_KEY", raising=False)


def voter(server, **more):
    settings = {"votes": 2, "model": "m", "time_limit": 60.0, "patience": 60.0} | more
    return ServerVoter(JudgeSettings(url=server.url, **settings), len, pause=0.001)


def test_each_vote_is_asked_with_the_key_and_its_tokens_are_counted(monkeypatch):
    monkeypatch.setenv("SRL_JUDGE_KEY", KEY)
    with serving() as server:
        found = voter(server).ask(["right?", "what?", "right?"])
    assert {text: (one.read, one.tokens) for text, one in found.items()} == {
        "right?": (("Positive",) * 2, 14), "what?": ((None, None), 14),
    }  # fmt: skip
    path, headers, body = server.seen[0]
    assert (path, headers["Authorization"]) == ("/v1/chat/completions", f"Bearer {KEY}")
    assert [one["role"] for one in body.pop("messages")] == ["system", "user"]
    assert body == {"model": "m", "temperature": 1.0, "max_tokens": 1024}
    assert len(server.seen) == 4


@pytest.mark.parametrize("fault", FAULTS)
def test_what_may_pass_is_asked_again(fault):
    with serving(fault, fault) as server:
        found = voter(server, votes=1, time_limit=0.3 if fault == "late" else 60.0).ask(["right?"])
    assert found["right?"].read == ("Positive",)
    assert len(server.seen) >= 3


def test_what_fails_again_and_again_where_others_are_answered_is_no_vote(caplog, monkeypatch):
    monkeypatch.setattr(judge_server, "GRACE", 0.02)
    with serving(always=lambda text: "500" if "what" in text else None) as server:
        found = voter(server).ask(["right?", "what?"])
    assert [one.read for one in found.values()] == [("Positive",) * 2, (None, None)]
    assert Counter(body["messages"][-1]["content"] for _, _, body in server.seen)["what?"] >= 2 * 4
    assert "HTTP 500, again and again: 2 are no votes" in caplog.text


def test_a_request_that_is_refused_where_others_are_answered_is_no_vote_at_once(caplog):
    with serving(always=lambda text: 413 if "what" in text else None) as server:
        found = voter(server).ask(["right?", "what?"])
    assert [one.read for one in found.values()] == [("Positive",) * 2, (None, None)]
    assert len(server.seen) == 4
    assert "HTTP 413: 2 are no votes" in caplog.text


def test_a_request_that_is_refused_alone_is_no_vote_where_the_server_has_answered_before():
    with serving(always=lambda text: 413 if "what" in text else None) as server:
        asked = voter(server, votes=1)
        asked.ask(["right?"])
        assert asked.ask(["what?"])["what?"].read == (None,)


def test_no_vote_is_given_up_on_while_the_server_is_down(monkeypatch):
    monkeypatch.setattr(judge_server, "GRACE", 0.02)
    down = threading.Event()
    with serving(always=lambda text: "500" if down.is_set() else 413 if "what" in text else None) as server:
        asked = voter(server, votes=1, patience=0.4)
        asked.ask(["right?"])
        down.set()
        with pytest.raises(ServerGone, match="has answered nothing for"):
            asked.ask(["right too?", "what?"])


def test_thinking_that_the_servers_template_opened_is_no_part_of_the_verdict():
    with serving() as server:
        assert voter(server, votes=1).ask(["right, opened?"])["right, opened?"].read == ("Positive",)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("500", "HTTP 500"),
        ("garbage", "an answer that is no chat completion"),
        ("nothing", "no connection (RemoteDisconnected)"),
        ("late", "no answer within 0.1 s"),
    ],
)
def test_a_server_that_answers_nothing_is_gone_when_patience_ends(fault, said):
    with serving(always=lambda text: fault) as server, pytest.raises(ServerGone) as found:
        voter(server, patience=0.3, time_limit=0.1 if fault == "late" else 60.0).ask(["right?"])
    assert f"{server.url} has answered nothing for" in str(found.value)
    assert str(found.value).endswith(said)
    assert KEY not in str(found.value)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (401, "answers HTTP 401, so it wants its key in the environment variable SRL_JUDGE_KEY"),
        (404, "answers HTTP 404: see judge.url and judge.model 'm'"),
        (422, "answers HTTP 422 to all requests: see judge.url, judge.model and judge.tokens"),
        (302, "answers HTTP 302: see"),  # followed, it would take the key along
    ],
)
def test_a_server_that_refuses_is_not_asked_again(code, said):
    with serving(always=lambda text: code) as server, pytest.raises(ServerGone) as found:
        voter(server, votes=1).ask(["right?"])
    assert said in str(found.value)
    assert len(server.seen) == 1


def test_a_key_that_no_header_can_hold_is_not_shown(monkeypatch):
    monkeypatch.setenv("SRL_JUDGE_KEY", f"{KEY}\n{KEY}")
    with serving() as server, pytest.raises(ServerGone, match="the key in SRL_JUDGE_KEY has signs") as found:
        voter(server).ask(["right?"])
    assert KEY not in str(found.value)


def test_a_closed_port_is_gone_and_a_signal_ends_the_waiting():
    with serving() as server:
        pass
    with pytest.raises(ServerGone, match=r"no connection \(ConnectionRefusedError\)"):
        voter(server, patience=0.2).ask(["right?"])
    stopped = voter(server, patience=500.0)
    stopped.stops = lambda: True
    with pytest.raises(ServerGone, match="answered nothing for 0 s"):
        stopped.ask(["right?"])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"key_variable": KEY}, "key_variable is no name of an environment variable"),
        ({"url": f"http://me:{KEY}@host/v1"}, "url holds more than host and path"),
        ({"url": f"http://host/v1?key={KEY}"}, "url holds more than host and path"),
        ({"url": f"ftp://{KEY}"}, "url is no address"),
        ({"url": f"http://[::1/{KEY}"}, "url is no address"),
        ({"url": f"http://host:{KEY}/v1"}, "url is no address"),
        ({"url": f"http://a..b/{KEY}"}, "url is no address"),
        ({"url": f"http://host/\xe9{KEY}"}, "url is no address"),
        ({"url": "http://host/v1"}, "but not judge.model"),
        ({"url": "http://host/v1", "model": "m", "adapter": "a.ckpt"}, "are both given"),
        ({"patience": float("inf")}, "patience is inf"),
    ],
)
def test_settings_of_a_server_are_refused_without_their_secrets(settings, said):
    with pytest.raises(ConfigError) as found:
        JudgeSettings(**settings)
    assert said in str(found.value)
    assert KEY not in str(found.value)


def test_a_run_whose_server_dies_stops_with_its_last_checkpoint_and_without_its_key(
    logging_ready, model_folder, expert_file, tmp_path, monkeypatch, capsys
):
    """It dies behind the first update, which has a checkpoint."""
    monkeypatch.setenv("SRL_JUDGE_KEY", KEY)
    last = tmp_path / "run" / "last.ckpt"
    with serving(always=lambda text: "500" if last.exists() else None) as server:
        judge = f"{{url: '{server.url}', model: m, patience: 0.2, request: '{{problem}} right? {{step}}'}}"
        parts = f"[{{kind: objective}}, {{kind: judge, judge: {judge}}}]"
        more = ["--reward.parts", parts, "--checkpoint.every_n_updates", "1", "--trainer.max_steps", "9"]
        status = fit(
            model_folder, expert_file, tmp_path / "run", *more, "--data.validation.problems", "1",
            "--model.validation.attempts", "0",
        )  # fmt: skip
    err = capsys.readouterr().err
    assert status == 1, err
    line = err.splitlines()[-1]
    assert line.startswith(f"srl: error: the judge's server {server.url} has answered nothing")
    assert line.endswith(f"HTTP 500. {last} holds update 1: go on with --ckpt_path last")
    state = torch.load(last, weights_only=True)
    assert state["global_step"] == 1
    assert server.seen[0][1]["Authorization"] == f"Bearer {KEY}"
    assert KEY not in err
    for path in (tmp_path / "mlflow.db", *(p for p in tmp_path.rglob("*") if p.suffix in (".yaml", ".ckpt"))):
        assert KEY.encode() not in path.read_bytes()
