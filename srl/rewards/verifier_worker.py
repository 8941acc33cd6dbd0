r"""What runs in a worker process of `srl.rewards.verifier`: math-verify.

A process of its own because sympy can hang, or fill the memory, on a few characters (`9^{9^9}`), where no
thread and no Python signal handler stops it; a process can be killed. The lines spoken over the pipes:

    to the worker     [index, seconds, kind, text, ...]     kind: "equal" gold found, "find" text,
                                                            "own" class response answer problem,
                                                            "made" class
    from the worker   ["ready"] or ["broken", why] once, then [index, result] for each, in order
"""

import contextlib
import resource
import sys
from collections.abc import Callable
from typing import Any

from srl.line_process import limited, lines_told
from srl.rewards.own_rule import judged, made
from srl.rewards.verifier import MAKING


def equal(gold: str, found: str) -> bool:
    """Say whether math-verify reads both answers and finds them equal; False for all that raises.

    >>> equal("(x+1)^2", "x^2+2x+1"), equal("(x+1)^2", "x^2+1"), equal("}{", "}{")
    (True, False, False)
    """
    from math_verify import verify

    try:
        expected = _parse(gold)
        return bool(expected) and bool(verify(expected, _parse(found), timeout_seconds=None))
    except Exception:  # what trips sympy is not right
        return False


def find(text: str) -> str | None:
    """Return the last expression that math-verify finds in prose, as text.

    >>> find("So we get 72 clips.")
    '72'
    """
    from math_verify import parse

    try:
        parsed = parse(text, fallback_mode="first_match", parsing_timeout=None)  # type: ignore[arg-type]
    except Exception:  # never raise on what a model wrote
        return None
    return next((part.strip() for part in parsed[::-1] if isinstance(part, str) and part.strip()), None)


def main() -> None:
    """Answer lines from stdin until it ends. A question that takes too much processor time kills the
    worker."""
    answers: dict[str, Callable[..., Any]] = {"equal": equal, "find": find, "own": judged, "made": made}
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _limit_memory(int(sys.argv[1]))
    for told, answer in lines_told():
        if told is None:
            try:
                _prepare()
            except Exception as error:  # said to the parent, which raises it as ConfigError
                answer(["broken", f"{type(error).__name__}: {error}"])
                return
            answer(["ready"])
        else:
            index, seconds, kind, *texts = told
            if kind == "own":
                with limited(MAKING):
                    made(texts[0])  # so that what it imports costs no response its time
            with limited(MAKING if kind == "made" else seconds):
                result = answers[kind](*texts)
            answer([index, result])


def _limit_memory(size: int) -> None:
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    soft = size if hard == resource.RLIM_INFINITY else min(size, hard)
    with contextlib.suppress(ValueError, OSError):  # not every system has this limit
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _prepare() -> None:
    """Import the heavy packages and silence them."""
    import logging

    import math_verify  # noqa: F401

    logging.disable(logging.CRITICAL)
    for formula in (r"\frac{x}{2}", "x^2+3x+2", "(1,2)", r"2\sqrt{3}"):  # the parser learns as it reads:
        _parse(formula)  # else the first question may take a second


def _parse(answer: str) -> list[Any]:
    from math_verify import parse

    return parse(f"\\boxed{{{answer}}}", fallback_mode="no_fallback", parsing_timeout=None)  # type: ignore
