"""What is asked of a server over HTTP: an address without secrets, a key that stands in the environment
alone, no redirects (they would take the key along), and answers that are whole and in time."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Sequence
from http.client import HTTPException, HTTPResponse, IncompleteRead
from threading import Event, Thread
from typing import Any, TypeVar
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, Request, build_opener

from srl.errors import ConfigError, ServerGone

In = TypeVar("In")
Out = TypeVar("Out")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def check_address(key: str, url: str, variable: str, such_as: str) -> None:
    """ConfigError: url, the value of `key`, is no address, or holds what may be a secret; it is not shown.

    variable: the setting that names where the server's key stands. such_as: an address, to write instead.
    """
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        good = good and re.fullmatch(r"[!-~]+", url) is not None
        str(parts.hostname).encode("idna")
    except ValueError:  # its text may hold the key
        good = False
    if not good:
        raise ConfigError(f"{key} is no address; write one such as {such_as}")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise ConfigError(
            f"{key} holds more than host and path; a key belongs into {variable}, where nothing logs it"
        )


def check_variable(key: str, name: str) -> None:
    """ConfigError: name, the value of `key`, names no environment variable. It may be the key: not shown."""
    if not _VARIABLE.fullmatch(name):
        raise ConfigError(
            f"{key} is no name of an environment variable; write the name, and the key "
            "into the variable: a key in a config would be logged"
        )


def headers(variable: str) -> dict[str, str]:
    """Of a request with JSON; the key is that of the environment variable, if set. ServerGone: it is none."""
    key = os.environ.get(variable, "").strip()
    if not re.fullmatch(r"[!-~]*", key):  # an error of the header would show it
        raise ServerGone(f"the key in {variable} has signs that no key has")
    return {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})


def opener() -> OpenerDirector:
    return build_opener(_NoRedirect)


class _NoRedirect(HTTPRedirectHandler):
    def redirect_request(self, *args: Any) -> None:
        return None


def whole(answer: HTTPResponse, end: float, largest: int) -> bytes | None:
    """All of it, None for more than `largest` bytes. IncompleteRead: the server went away in the middle.

    TimeoutError: not before `end`, as a server that sends byte by byte is late, too.
    """
    parts, size, promised = [], 0, answer.length or 0
    while part := answer.read1(1 << 16):
        parts.append(part)
        size += len(part)
        if size > largest:
            return None
        if time.monotonic() > end:
            raise TimeoutError
    if size < promised:  # `read1` does not say so
        raise IncompleteRead(b"", promised - size)
    return b"".join(parts)


def at_once(work: Callable[[In], Out], items: Sequence[In], most: int) -> list[Out]:
    """What work makes of each item, in order, by `most` threads. The first fault ends the rest and is raised.

    None of the threads outlives the process: a second Ctrl-C waits for no answer.
    """
    places, ended = iter(range(len(items))), Event()
    found: dict[int, Out] = {}
    faults: list[Exception] = []

    def take() -> None:
        for place in places:
            if ended.is_set():
                return
            try:
                found[place] = work(items[place])
            except Exception as fault:
                faults.append(fault)
                ended.set()

    threads = [Thread(target=take, daemon=True) for _ in range(min(len(items), most))]
    try:
        for one in threads:
            one.start()
        for one in threads:
            one.join()
    finally:
        ended.set()
    if faults:
        raise faults[0]
    return [found[place] for place in range(len(items))]


class Passing(Exception):
    """What may be better the next time: no connection, no answer in time, HTTP 408, 429 and 5xx."""


class Refusal(Exception):
    """The server answers, and would answer so again. code: of HTTP. message: its own words, if any."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"HTTP {code}" + (f": {message}" if message else ""))
        self.code, self.message = code, message


class Client:
    """JSON to an OpenAI-compatible server, and what it answers. Each call: Passing, Refusal."""

    def __init__(self, url: str, variable: str, largest: int) -> None:
        self.url, self.variable, self.largest = url, variable, largest
        self._opener = opener()

    def get(self, path: str, seconds: float) -> bytes:
        return self._ask(Request(self.url + path, headers=headers(self.variable)), seconds)

    def post(self, path: str, body: dict[str, Any], seconds: float) -> bytes:
        return self._ask(Request(self.url + path, json.dumps(body).encode(), headers(self.variable)), seconds)

    def _ask(self, request: Request, seconds: float) -> bytes:
        late = f"no answer within {seconds:.0f} s"
        try:
            with self._opener.open(request, timeout=seconds) as answer:
                found = whole(answer, time.monotonic() + seconds, self.largest)
        except HTTPError as error:
            refusal = Refusal(error.code, self._message(error))
            passing = error.code in (408, 429) or error.code >= 500
            raise (Passing(str(refusal)) if passing else refusal) from None
        except TimeoutError:
            raise Passing(late) from None
        except (OSError, HTTPException) as error:  # URLError is an OSError
            reason = getattr(error, "reason", error)
            said = late if isinstance(reason, TimeoutError) else f"no connection ({type(reason).__name__})"
            raise Passing(said) from None
        if found is None:
            raise Refusal(200, f"an answer of more than {self.largest >> 20} MiB")
        return found

    def _message(self, error: HTTPError) -> str:
        """What the server says of it, on one line, without the key."""
        try:
            with error:
                found = json.loads(error.read(1 << 16))
            said = " ".join(str(found["error"]["message"]).split())
        except (OSError, HTTPException, ValueError, LookupError, TypeError):
            return ""
        key = os.environ.get(self.variable, "").strip()
        return (said.replace(key, "***") if key else said)[:300]
