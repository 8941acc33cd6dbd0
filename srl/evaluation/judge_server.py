"""A judge on a server: OpenAI-compatible chat completions, one request a vote.

What may pass (no connection, no answer in time, 408, 429, 5xx, no chat completion) is asked again after a
pause that doubles. What fails TRIES times and for GRACE seconds, while the server still answers what it has
answered before, is no vote. What it refuses (any other 4xx) is no vote at once. A server that answers nothing
for `patience` seconds, or has refused all, is gone. Redirects are not followed: the key would go along.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.request import OpenerDirector, Request

from srl.errors import ServerGone
from srl.evaluation.votes import Voter, Votes, own_voter
from srl.model.texts import ids_of
from srl.response import CLOSE, OPEN
from srl.rewards.judge import JudgeSettings
from srl.rewards.verdict import verdict
from srl.server import at_once, headers, opener, whole

if TYPE_CHECKING:
    from srl.engine.engine import RolloutEngine
    from srl.examples.builder import ExampleBuilder

log = logging.getLogger(__name__)
AT_ONCE = 32
"""Requests under way, at most."""
TRIES, GRACE = 4, 60.0
LONGEST_PAUSE = 60.0
LARGEST = 8 << 20
"""Bytes of an answer, at most."""
NO_COMPLETION = "an answer that is no chat completion"


@dataclass
class _Vote:
    """One request on its way. fault: why it failed last."""

    text: str
    tries: int = 0
    fault: str = ""
    read: str | None = None
    tokens: int = 0
    done: bool = False
    refused: bool = False


@dataclass
class ServerVoter:
    """count: tokens of a text, where the server does not say. stops: whether to give up at once. pause: the
    first, in seconds. _answered: what the server has answered last."""

    settings: JudgeSettings
    count: Callable[[str], int]
    stops: Callable[[], bool] = lambda: False
    pause: float = 1.0
    _opener: OpenerDirector = field(default_factory=opener)
    _answered: str | None = None

    def ask(self, requests: Sequence[str]) -> dict[str, Votes]:
        """ServerGone: see there; also where the run is to stop while it is waited for."""
        votes = [_Vote(text) for text in dict.fromkeys(requests) for _ in range(self.settings.votes)]
        since, pause = time.monotonic(), self.pause
        while open_votes := [vote for vote in votes if not vote.done]:
            round_ = _Round(self, headers(self.settings.key_variable))
            at_once(round_.take, open_votes, AT_ONCE)
            if round_.answered is not None:
                self._answered = round_.answered
                since, pause = time.monotonic(), self.pause
            self._refusals(votes)
            if self._give_up(votes, time.monotonic() - since):
                since, pause = time.monotonic(), self.pause
            if any(not vote.done for vote in votes):
                self._wait(max(pause, round_.asked_for), since, round_.last)
                pause = min(2 * pause, LONGEST_PAUSE)
        found: dict[str, list[_Vote]] = {}
        for vote in votes:
            found.setdefault(vote.text, []).append(vote)
        return {
            text: Votes(tuple(one.read for one in mine), sum(one.tokens for one in mine))
            for text, mine in found.items()
        }

    def _refusals(self, votes: Sequence[_Vote]) -> None:
        refused = [vote for vote in votes if vote.refused and not vote.done]
        for vote in refused:
            vote.done = True
        if refused and self._answered is None and all(vote.refused for vote in votes):
            raise ServerGone(
                f"the judge's server {self.settings.url} answers {refused[0].fault} to all requests: see "
                "judge.url, judge.model and judge.tokens"
            )
        if refused:
            log.warning("the judge's server: %s: %d are no votes", refused[0].fault, len(refused))

    def _give_up(self, votes: Sequence[_Vote], seconds: float) -> bool:
        """On requests that keep failing, if the server answers meanwhile what it has answered before: else
        it may be down. Whether it did."""
        lost = [vote for vote in votes if not vote.done and vote.tries >= TRIES]
        if not lost or self._answered is None or seconds < min(GRACE, self.settings.patience / 2):
            return False
        probe = _Vote(self._answered)
        _Round(self, headers(self.settings.key_variable)).take(probe)
        if not probe.done:
            return False
        for vote in lost:
            vote.done = True
        log.warning("the judge's server: %s, again and again: %d are no votes", lost[0].fault, len(lost))
        return True

    def _wait(self, seconds: float, since: float, last: str) -> None:
        end = time.monotonic() + seconds
        log.warning("the judge's server: %s; asked again in %.0f s", last, seconds)
        while (now := time.monotonic()) < end:
            if self.stops() or now - since > self.settings.patience:
                raise ServerGone(
                    f"the judge's server {self.settings.url} has answered nothing for {now - since:.0f} s "
                    f"(judge.patience is {self.settings.patience:g}): {last}"
                )
            time.sleep(min(0.2, end - now))


class _Round:
    """Each open vote asked once. answered: a text that was; asked_for: seconds that the server wants to
    rest."""

    def __init__(self, voter: ServerVoter, headers: dict[str, str]) -> None:
        self.voter, self.headers = voter, headers
        self.answered: str | None = None
        self.in_a_row, self.asked_for, self.last = 0, 0.0, ""

    def take(self, vote: _Vote) -> None:
        if self.in_a_row >= AT_ONCE:  # the server is down: no use to wait for each
            return
        vote.tries += 1
        try:
            said = self._said(vote.text)
            vote.read, vote.tokens = self._read(said)
        except _Refusal as refusal:
            vote.fault, vote.refused = str(refusal), True
            return
        except _Passing as passing:
            vote.fault = self.last = str(passing)
            self.in_a_row += 1
            return
        self.answered, self.in_a_row, vote.done = vote.text, 0, True

    def _said(self, text: str) -> bytes:
        settings = self.voter.settings
        body = {
            "model": settings.model,
            "messages": [
                *([{"role": "system", "content": settings.system}] if settings.system else []),
                {"role": "user", "content": text},
            ],
            "temperature": settings.temperature,
            "max_tokens": settings.tokens,
        }
        url = str(settings.url).rstrip("/").removesuffix("/chat/completions") + "/chat/completions"
        request = Request(url, json.dumps(body).encode(), self.headers)
        end = time.monotonic() + settings.time_limit
        try:
            with self.voter._opener.open(request, timeout=settings.time_limit) as answer:
                said = whole(answer, end, LARGEST)
        except HTTPError as error:
            error.close()
            raise self._refused(error) from None
        except TimeoutError as error:
            raise _Passing(f"no answer within {settings.time_limit:g} s") from error
        except (OSError, HTTPException) as error:  # URLError is an OSError
            reason = getattr(error, "reason", error)
            if isinstance(reason, TimeoutError):
                raise _Passing(f"no answer within {settings.time_limit:g} s") from error
            raise _Passing(f"no connection ({type(reason).__name__})") from error
        if said is None:
            raise _Passing(NO_COMPLETION)
        return said

    def _refused(self, error: HTTPError) -> Exception:
        """Of a body nothing is shown: some servers repeat the key."""
        settings, said = self.voter.settings, f"HTTP {error.code}"
        if error.code in (401, 403):
            said += f", so it wants its key in the environment variable {settings.key_variable}"
        elif error.code < 400 or error.code in (404, 405):
            said += f": see judge.url and judge.model {settings.model!r}"
        elif error.code < 500 and error.code not in (408, 429):
            return _Refusal(said)
        else:
            wanted = error.headers.get("Retry-After", "")
            if wanted.isdigit():
                self.asked_for = max(self.asked_for, min(float(wanted), LONGEST_PAUSE))
            return _Passing(said)
        return ServerGone(f"the judge's server {settings.url} answers {said}")

    def _read(self, said: bytes) -> tuple[str | None, int]:
        """The verdict, None for none, and the tokens that it took."""
        try:
            found: dict[str, Any] = json.loads(said)
            text = found["choices"][0]["message"]["content"] or ""
            usage = found.get("usage") or {}
            tokens = usage.get("completion_tokens")
            if OPEN not in text.partition(CLOSE)[0] and CLOSE in text:  # opened by the server's template
                text = OPEN + text
            known = verdict(text, self.voter.settings.words)
            spent = tokens if isinstance(tokens, int) else self.voter.count(text)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise _Passing(NO_COMPLETION) from error
        return known, spent


class _Passing(Exception):
    """What may be better the next time."""


class _Refusal(Exception):
    """Of one request, such as one that is too long: it would be the same the next time."""


def voter_of(
    settings: JudgeSettings,
    engine: RolloutEngine,
    builder: ExampleBuilder,
    identity: Mapping[str, Any],
    seed: int,
    stops: Callable[[], bool] = lambda: False,
) -> Voter:
    """Who judges. ConfigError: `srl.evaluation.votes.judge_state`."""
    if settings.url is None:
        return own_voter(engine, builder, settings, identity, seed)
    return ServerVoter(settings, lambda text: len(ids_of(engine.tokenizer, text, strict=False)), stops)
