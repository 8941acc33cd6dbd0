"""vLLM as a server, on this machine or another: `POST /v1/completions` with token ids, both ways.

The adapter goes over as a file in a folder that both see: each version is loaded under a name that no other
run and no earlier start of this one has, and the one before is unloaded. A server that is gone is waited for;
then it is given the adapter again and asked for the whole draw again, with the same seeds.
"""

from __future__ import annotations

import json
import logging
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from srl.engine.vllm_adapter import RANKS, AdapterFiles, Asked, Said
from srl.errors import ConfigError, ServerGone, few
from srl.model.sources import name_and_revision
from srl.server import Client, Passing, Refusal, at_once

if TYPE_CHECKING:
    from srl.engine.vllm_settings import VllmSettings

log = logging.getLogger(__name__)
AT_ONCE = 256
"""Requests under way, at most; vLLM itself decides how many it computes together."""
TRIES = 5
"""Draws that fail on a server which says between them that it is there."""
PAUSE, LONGEST_PAUSE = 1.0, 30.0
QUICK = 60.0
"""Seconds for what computes nothing."""
LARGEST = 1 << 28
"""Bytes of an answer, at most."""
ENDED = ("stop", "length")
PLAIN = {  # what a server would else take from the model's generation_config.json
    "top_p": 1.0, "top_k": 0, "min_p": 0.0,
    "presence_penalty": 0.0, "frequency_penalty": 0.0, "repetition_penalty": 1.0,
}  # fmt: skip
START = (
    "start it with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True vllm serve {base} --enable-lora "
    "--max-lora-rank {room} --generation-config vllm --logprobs-mode processed_logprobs"
)


class VllmServer:
    """A `Sampler`. Nothing is sent before `connect`.

    base: the policy's, as the config names it. rank: of its adapter. owner: what no other run is called; one
    that was killed left files and names, which the next of the same owner removes. stops: whether the run is
    to end, while a server is waited for.
    """

    def __init__(
        self,
        settings: VllmSettings,
        base: str,
        rank: int,
        owner: str = "",
        stops: Callable[[], bool] = lambda: False,
    ) -> None:
        self.settings, self.base, self.rank, self.stops = settings, base, rank, stops
        self.url = str(settings.server).rstrip("/").removesuffix("/v1")
        self.most_tokens: int | None = None
        self.pause = PAUSE
        self._owner = f"srl-{owner}-" if owner else ""
        self._run = f"{self._owner or 'srl-'}{secrets.token_hex(4)}"
        self._client = Client(self.url, settings.key_variable, LARGEST)
        self._files: AdapterFiles | None = None
        self._end_ids: list[int] = []
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._loaded = ""  # the adapter's name that the server has, as far as is known
        self._newest = ""  # that of the last one that it was given, whatever became of it
        self._old: set[str] = set()  # names to unload

    # -- before training ---------------------------------------------------------------------------------

    def connect(self) -> None:
        """ConfigError: no server, another model, a server whose adapters cannot be changed."""
        where = f"rollout.vllm.server {self.url}"
        try:
            cards = self._cards()
            self._check_base([one for one in cards if not one.get("parent")], where)
            self._old |= {name for one in cards if self._is_left(name := str(one.get("id")))}
            self._client.post("/v1/load_lora_adapter", {"lora_name": "", "lora_path": ""}, QUICK)
        except Passing as fault:
            raise ConfigError(f"{where}: {fault}; {self._start()}") from fault
        except Refusal as refusal:
            if refusal.code in (401, 403):
                raise ConfigError(self._unkeyed(refusal)) from refusal
            if refusal.code in (404, 405):
                raise ConfigError(f"{where} cannot change adapters ({refusal}): {self._start()}") from refusal
            if refusal.code != 400:  # so an empty name is refused, by a server that takes another one
                raise ConfigError(f"{where}: {refusal}; {self._start()}") from refusal

    def _is_left(self, name: str) -> bool:
        """Whether an adapter is of a start of this run that was killed."""
        mine = bool(self._owner) and name.startswith(self._owner)
        return mine and not name.startswith(self._run)

    def _check_base(self, cards: list[dict[str, Any]], where: str) -> None:
        names = [str(one[key]) for one in cards for key in ("root", "id") if one.get(key)]
        if _last(self.base) not in map(_last, names):
            raise ConfigError(
                f"{where} serves {few(sorted(set(names)))}, but model.base is {self.base}: {self._start()}; "
                f"where it is the same model under another name, add --served-model-name {_last(self.base)}"
            )
        sizes = [one.get("max_model_len") for one in cards] + [self.settings.max_tokens]
        self.most_tokens = min((size for size in sizes if size), default=None)

    def begin(self, model: Any, end_ids: Sequence[int]) -> None:
        """Hand over the adapter as it is. ConfigError: the server does not see it, or has no room for it."""
        self._end_ids = sorted(end_ids)
        self._files = AdapterFiles(model, self._folder())
        try:
            self._hand_over()
        except (Passing, Refusal) as fault:
            raise ConfigError(self._unloadable(str(fault))) from fault

    def _folder(self) -> Path:
        """Of this start of the run alone, and absolute, as vLLM takes others for names on the hub."""
        wanted = self.settings.adapters
        if wanted is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="srl-adapters-")
            Path(self._temporary.name).chmod(0o755)  # the server may be another user's
            return Path(self._temporary.name)
        folder = Path(wanted).expanduser().absolute()
        for left in folder.glob(f"{self._owner}*") if self._owner else ():
            shutil.rmtree(left, ignore_errors=True)
        try:
            (folder / self._run).mkdir(parents=True)
        except OSError as error:
            raise ConfigError(
                f"rollout.vllm.adapters {wanted}: cannot be written ({error.strerror}); name a folder that "
                "this machine and the server's see under one path"
            ) from error
        return folder / self._run

    def _unloadable(self, said: str) -> str:
        where = f"rollout.vllm.server {self.url}"
        if "max_lora_rank" in said:
            return f"{where} has no room for model.lora.r {self.rank} ({said}): {self._start()}"
        if "LoRA is not enabled" in said or "no attribute 'lora" in said:
            return f"{where} has adapters switched off ({said}): {self._start()}"
        if "Permission denied" in said:
            return (
                f"{where} may not read the adapter's files ({said}): set rollout.vllm.adapters to a folder "
                "that its user may read"
            )
        if "HTTP 404" in said or "No such file" in said or "No adapter found" in said:
            return (
                f"{where} does not see the adapter's files ({said}): set rollout.vllm.adapters to a folder "
                "that both machines see under one path"
            )
        return f"{where} does not load the adapter: {said}"

    def _start(self) -> str:
        name, revision = name_and_revision(self.base)
        base = f"{name} --revision {revision}" if revision else name
        return START.format(base=base, room=next((size for size in RANKS if size >= self.rank), RANKS[-1]))

    # -- draws -------------------------------------------------------------------------------------------

    def sample(self, asked: Sequence[Asked], n: int, temperature: float) -> list[list[Said]]:
        """ServerGone: nothing comes for rollout.vllm.patience seconds, or what no run can be trained on."""
        failed = 0
        while True:
            try:
                self._hand_over()
                return self._draw(asked, n, temperature)
            except Refusal as refusal:
                if refusal.code in (401, 403):
                    raise ServerGone(self._unkeyed(refusal)) from refusal
                if refusal.code != 404:
                    raise ServerGone(f"vLLM's server {self.url} refuses a request: {refusal}") from refusal
                fault: Exception = refusal  # it has forgotten the adapter: another process than before
            except Passing as passing:
                fault = passing
            failed += 1
            self._loaded = ""
            if failed == TRIES:
                raise ServerGone(
                    f"vLLM's server {self.url} is there, but {TRIES} times in a row a draw failed: {fault}"
                ) from fault
            self._wait(str(fault), failed)

    def end(self) -> None:
        """Unload the adapter and remove its files; a server that is gone is no matter."""
        self._old.add(self._newest)
        with suppress(Passing, ServerGone):
            self._unload_old()
        if self._temporary is not None:
            self._temporary.cleanup()
        elif self._files is not None:
            shutil.rmtree(self._files.folder, ignore_errors=True)
        self._files = None

    def _hand_over(self) -> None:
        """The server has today's adapter, under a name of its own, and none of this run's before it."""
        assert self._files is not None
        number, folder = self._files.newest()
        name = f"{self._run}-{number}"
        if name == self._loaded:
            return
        if self._loaded:
            self._old.add(self._loaded)
        self._newest = name
        try:
            body = {"lora_name": name, "lora_path": str(folder)}
            self._client.post("/v1/load_lora_adapter", body, self.settings.time_limit)
        except Refusal as refusal:
            if "already been loaded" not in refusal.message:  # it was gone for us, and lost nothing
                raise
        self._loaded = name
        self._unload_old()

    def _unload_old(self) -> None:
        for name in sorted(self._old - {""}):
            with suppress(Refusal):  # it has forgotten it by itself
                self._client.post("/v1/unload_lora_adapter", {"lora_name": name}, QUICK)
            self._old.discard(name)

    def _draw(self, asked: Sequence[Asked], n: int, temperature: float) -> list[list[Said]]:
        end = time.monotonic() + self.settings.time_limit
        return at_once(lambda one: self._one(one, n, temperature, end), asked, AT_ONCE)

    def _one(self, asked: Asked, n: int, temperature: float, end: float) -> list[Said]:
        body = {
            "model": self._loaded, "prompt": list(asked.prompt_ids), "max_tokens": asked.max_tokens,
            "n": n, "temperature": temperature, "seed": asked.seed, "stop_token_ids": self._end_ids,
            "logprobs": 0, "return_token_ids": True, "return_tokens_as_token_ids": True, **PLAIN,
        }  # fmt: skip
        left = max(end - time.monotonic(), 0.001)
        return said_of(self._client.post("/v1/completions", body, left), asked, n, self.url)

    def _wait(self, fault: str, failed: int) -> None:
        """Until the server answers what it answered in the beginning."""
        patience, since, pause = self.settings.patience, time.monotonic(), self.pause
        log.warning(
            "vLLM's server %s: %s; waiting for it, %.0f s at most; then the draw is taken again, as it was",
            self.url, fault, patience,
        )  # fmt: skip
        self._rest(min(self.pause * 2 ** (failed - 1), patience / 2), since, fault)
        while True:
            try:
                self.connect()
            except ConfigError as error:
                last = str(error)
            else:
                log.warning("vLLM's server is there again after %.0f s", time.monotonic() - since)
                return
            self._rest(pause, since, last)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _rest(self, seconds: float, since: float, last: str) -> None:
        end = time.monotonic() + seconds
        while (now := time.monotonic()) < end:
            if self.stops() or now - since > self.settings.patience:
                raise ServerGone(
                    f"vLLM's server {self.url} has not been there for {now - since:.0f} s "
                    f"(rollout.vllm.patience is {self.settings.patience:g}): {last}"
                )
            time.sleep(min(0.2, end - now))

    def _cards(self) -> list[dict[str, Any]]:
        """What the server serves: bases, and adapters, which have a parent."""
        try:
            found = json.loads(self._client.get("/v1/models", QUICK))["data"]
            return [one for one in found if isinstance(one, dict)]
        except (ValueError, LookupError, TypeError, RecursionError):
            raise Refusal(200, "/v1/models is not answered as vLLM's server does") from None

    def _unkeyed(self, refusal: Refusal) -> str:
        return (
            f"vLLM's server {self.url} answers HTTP {refusal.code}, so it wants its key in the environment "
            f"variable {self.settings.key_variable}"
        )


def said_of(answer: bytes, asked: Asked, n: int, url: str) -> list[Said]:
    """The n responses of an answer. ServerGone: others, or without what training needs. Passing: the server
    broke off, as vLLM does with all that it computes when it is told to end.
    """
    try:
        choices = json.loads(answer)["choices"]
        found = [_read(one) for one in choices]
        prompts = [one.get("prompt_token_ids") for one in choices]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ServerGone(
            f"vLLM's server {url} answers without token ids or log-probabilities: this version cannot be used"
        ) from error
    if len(found) != n:
        raise ServerGone(f"vLLM's server {url} gave {len(found)} completions where {n} were asked for")
    if any(one.reason == "abort" for one in found):
        raise Passing("a response was broken off")
    if any(prompt != list(asked.prompt_ids) for prompt in prompts):
        raise ServerGone(f"vLLM's server {url} answers another prompt than it was asked")
    if any(len(one.ids) > asked.max_tokens or one.reason not in ENDED for one in found):
        raise ServerGone(f"vLLM's server {url} ended a response otherwise than at an end token or its limit")
    return found


def _read(choice: dict[str, Any]) -> Said:
    ids, logprobs = choice["token_ids"], choice["logprobs"]["token_logprobs"]
    if not all(type(one) is int for one in ids) or not all(isinstance(one, float | int) for one in logprobs):
        raise TypeError
    return Said(ids, logprobs, choice["finish_reason"])


def _last(name: str) -> str:
    """A model by its last name: on another machine its folder may lie elsewhere."""
    return name.rstrip("/").rsplit("/", 1)[-1].partition("@")[0]
