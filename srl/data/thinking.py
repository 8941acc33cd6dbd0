"""Thinking that stands inside a solution, in tags: it is taken out, and no step may hold a tag."""

from __future__ import annotations

import re

from srl.errors import DataError

_TAG = re.compile(
    r"[<◁](?P<close>/?)(?P<name>(?:seed:)?think|thinking|thought)[>▷]|(?-i:\[(?P<mark>/?)THINK\])"
    r"|<\|(?P<end>begin|end)_of_(?P<part>thought|solution)\|>",
    re.IGNORECASE,
)


def take_out(text: str, name: str, where: str) -> tuple[str, str]:
    r"""The thinking of a text, and the text without it; several pieces of thinking are joined.

    Tags: `<think>`, `<thinking>`, `<thought>`, `<seed:think>`, `[THINK]`, `◁think▷` and
    `<|begin_of_thought|>`, which is followed by `<|begin_of_solution|>`. A first tag that closes ends
    thinking that the prompt opened. DataError: a tag without its partner, as where the answer was cut off, or
    one inside another.

    >>> take_out("<think>\n2 + 2\n</think>\n\nIt is 4.", "solution", "f:1")
    ('2 + 2', 'It is 4.')
    """
    if not _TAG.search(text):
        return "", text
    thinking, rest = [], []
    place, opened = 0, ""
    for number, tag in enumerate(_TAG.finditer(text)):
        kind = "[think]" if tag["mark"] is not None else (tag["name"] or f"|{tag['part']}|").lower()
        closes = bool(tag["close"] or tag["mark"]) or (tag["end"] or "").lower() == "end"
        before, place = text[place : tag.start()], tag.end()
        if kind == "|solution|" and not opened:
            rest.append(before)
        elif closes and (opened == kind or (number == 0 and not opened)):
            thinking.append(before)
            opened = ""
        elif not closes and not opened:
            rest.append(before)
            opened = kind
        else:
            raise DataError(_without_partner(name, where, tag[0]))
    if opened:
        raise DataError(_without_partner(name, where, f"{opened!r}"))
    rest.append(text[place:])
    joined = "\n".join(part.strip("\n") for part in rest if part.strip())
    return "\n\n".join(part.strip() for part in thinking if part.strip()), joined.strip()


def is_whole(text: str) -> bool:
    """Whether every tag of thinking in the text has its partner."""
    try:
        take_out(text, "", "")
    except DataError:
        return False
    return True


def has_tag(text: str) -> bool:
    """Whether a text holds a tag of thinking.

    >>> has_tag("a </think> b"), has_tag("I think < b")
    (True, False)
    """
    return _TAG.search(text) is not None


def refuse_tag(text: str, name: str, where: str) -> None:
    """DataError: the text, a part of the solution, holds a tag of thinking."""
    tag = _TAG.search(text)
    if tag:
        raise DataError(
            f"{where}: {name} holds {tag[0]}, and thinking is no part of a solution; write it in the row's "
            "field reasoning, or in the step's field thinking"
        )


def _without_partner(name: str, where: str, tag: str) -> str:
    return (
        f'{where}: field "{name}" has a tag of thinking without its partner ({tag}), so that thinking cannot '
        "be told from solution; mend the row or leave it out"
    )
