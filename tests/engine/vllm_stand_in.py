"""A server that speaks vLLM's API (as 0.32 does) and samples by our own engine from the adapter's files.

`life` is that of one process. It kills itself at a completion of `die_at`, counted over the lives of a
server, and `Served` lets another follow after `down` seconds, which has forgotten all adapters. What it is
told goes into `log`, a line of JSON each.
"""

import json
import os
import signal
import socket
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import torch
from make import plain_logprobs
from peft import PeftModel

from srl.engine.engine import RolloutEngine
from srl.model.loading import load_base, load_tokenizer
from srl.model.sources import resolve
from srl.types import Example, Sampling

WAIT = 300.0

OPTIONS = {
    "die_at": [], "down": 0.3, "log": None, "rank": 16, "updating": True, "enabled": True, "context": 512,
    "raw": False, "name": None, "fault": None, "key": None, "fail": 0,
}  # fmt: skip


class Refused(Exception):
    def __init__(self, code, message):
        self.code, self.message = code, message


class StandIn:
    """vLLM's engine with its adapters; one request at a time."""

    def __init__(self, model, options):
        self.options, self.files, self.model = options, resolve(model), model
        self.adapters, self.lock, self.completions, self.failed = {}, threading.Lock(), 0, 0

    def load(self, name, path):
        if not name or not path:
            raise Refused(400, "Both 'lora_name' and 'lora_path' must be provided.")
        if not self.options["enabled"]:
            raise Refused(500, "LoRA is not enabled. Use --enable-lora to enable LoRA.")
        if name in self.adapters:
            raise Refused(400, f"The lora adapter '{name}' has already been loaded.")
        config = Path(path) / "adapter_config.json"
        if not config.is_file() or self.options["fault"] == "blind":
            raise Refused(404, f"Loading lora {name} failed: No adapter found for {path}")
        rank, most = json.loads(config.read_text())["r"], self.options["rank"]
        if rank > most:
            raise Refused(500, f"LoRA rank {rank} is greater than max_lora_rank {most}.")
        base = load_base(self.files, quantization="none", device=torch.device("cpu"), dtype=torch.float32)
        engine = RolloutEngine(PeftModel.from_pretrained(base, path), load_tokenizer(self.files), (1,))
        if self.options["fault"] == "weights":
            with torch.no_grad():
                engine.decoder.head.weight.neg_()
        self.adapters[name] = engine

    def unload(self, name):
        if name not in self.adapters:
            raise Refused(404, f"The lora adapter '{name}' cannot be found.")
        del self.adapters[name]

    def models(self):
        name = self.options["name"]
        base = {"id": name or self.model, "root": name or self.model, "parent": None}
        base["max_model_len"] = self.options["context"]
        return [base, *({"id": one, "parent": base["id"]} for one in self.adapters)]

    def complete(self, body):
        if body["model"] not in self.adapters:
            raise Refused(404, f"The model `{body['model']}` does not exist.")
        if self.failed < self.options["fail"]:
            self.failed += 1
            raise Refused(503, "busy")
        engine, prompt = self.adapters[body["model"]], tuple(body["prompt"])
        engine.end_ids = frozenset(body["stop_token_ids"])
        asked = Example("x", "srl", 1, prompt, "t", think=False, max_new_tokens=body["max_tokens"])
        draw, temperature = torch.Generator().manual_seed(body["seed"]), body["temperature"]
        (found,) = engine.generate([asked], body["n"], Sampling(temperature), draw)
        choices = []
        for one in found:
            logprobs = one.logprobs
            if self.options["raw"]:
                logprobs = plain_logprobs(engine.decoder.model, prompt, one.ids)
            choices.append({
                "index": len(choices), "text": "", "token_ids": list(one.ids),
                "prompt_token_ids": list(prompt), "logprobs": {"token_logprobs": logprobs.tolist()},
                "finish_reason": "stop" if one.ids[-1] in engine.end_ids else "length",
            })  # fmt: skip
        return choices


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.answered(lambda body: {"data": self.server.engine.models()})

    def do_POST(self):
        self.answered(self.posted)

    def posted(self, body):
        engine = self.server.engine
        if self.path == "/v1/completions":
            engine.completions += 1
            if self.server.before + engine.completions in engine.options["die_at"]:
                os.kill(os.getpid(), signal.SIGKILL)
            return {"model": body["model"], "choices": engine.complete(body)}
        if not engine.options["updating"] or not self.path.endswith("load_lora_adapter"):
            raise Refused(404, "")
        if "unload" in self.path:
            return engine.unload(body["lora_name"])
        return engine.load(body["lora_name"], body["lora_path"])

    def answered(self, how):
        engine = self.server.engine
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "{}")
        code = 200
        with engine.lock:
            try:
                if engine.options["key"] not in (None, self.headers.get("Authorization")):
                    raise Refused(401, "Unauthorized")
                said = how(body)
            except Refused as refused:
                code, said = refused.code, {"error": {"message": refused.message}}
            if engine.options["log"]:
                body = {name: body[name] for name in body if name not in ("prompt", "stop_token_ids")}
                with open(engine.options["log"], "a") as log:
                    log.write(json.dumps({"path": self.path, "code": code, **body}) + "\n")
        text = json.dumps(said).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args):
        pass


def life(port, model, options, before):
    """Serves until it is killed. before: completions that the lives before this one were asked for."""
    torch.set_num_threads(1)
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads, server.before = True, before
    server.engine = StandIn(model, options)
    server.serve_forever(poll_interval=0.05)


class Served:
    """The server as a test sees it: one process after the other on one port."""

    def __init__(self, processes, model, folder, options):
        with socket.socket() as place:
            place.bind(("127.0.0.1", 0))
            self.port = place.getsockname()[1]
        self.url, self.log = f"http://127.0.0.1:{self.port}", folder / f"served-{self.port}.jsonl"
        self.options = OPTIONS | {"log": str(self.log)} | options
        self.processes, self.model, self.ending, self.process = processes, str(model), threading.Event(), None
        self.thread = threading.Thread(target=self.live)

    def live(self):
        before = 0
        while not self.ending.is_set():
            arguments = (self.port, self.model, self.options, before)
            self.process = self.processes.Process(target=life, args=arguments, daemon=True)
            self.process.start()
            self.process.join()
            before = min((count for count in self.options["die_at"] if count > before), default=before)
            self.ending.wait(self.options["down"])

    def end(self):
        self.ending.set()
        if self.process is not None:
            self.process.kill()
        self.thread.join()

    def said(self, part):
        """What the server was told at the paths with this part."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [one for one in map(json.loads, lines) if part in one["path"]]

    def names(self, part):
        return [one["lora_name"] for one in self.said(part) if one["code"] == 200]


@contextmanager
def serving(processes, model, folder, **options):
    server = Served(processes, model, folder, options)
    server.thread.start()
    try:
        end = time.monotonic() + WAIT
        while time.monotonic() < end:
            try:
                urlopen(f"{server.url}/v1/models", timeout=5).close()
                break
            except HTTPError:
                break
            except OSError:
                time.sleep(0.05)
        yield server
    finally:
        server.end()
