"""Games of Microsoft's TextWorld: `textworld:rooms=2,objects=4,length=3,seed=17`.

length: actions of the quest. A seed is one game everywhere (textworld is pinned), made once, in about 0.1 s,
and kept in `$SRL_CACHE/textworld`. Rules, quest, admissible commands and expert are TextWorld's; the text is
ours, of few tokens (`srl.worlds.textworld_text`). `text=game` takes TextWorld's own prose: the game is
compiled once, in about 4 s, and kept there, too. `file=GAME.z8` plays one that `tw-make` made, its .json
beside it.

The objective names the last action of the quest alone, so that it does not tell the route. A command counts
as written, white space and case aside; one that is not admissible is answered, and changes nothing.

Source: TextWorld (arXiv 1806.11532). It imports jericho, which is GPL: an optional extra, imported here only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from srl.errors import ConfigError, DataError, first_line
from srl.files import default_cache, fresh_folder, whole_file
from srl.worlds.textworld_text import short_text
from srl.worlds.world import Observation

REFUSED = "That does not work here."
_SIZES = {"rooms": 2, "objects": 4, "length": 3}
_GREETING = re.compile(r".*!|Your task for today is to|Your objective is to|Please|you can")
_PROMPT = re.compile(r"\n>\s*(-=.*)?$")


class TextWorld:
    """One game. expert: TextWorld's winning policy from the present state, which is followed as play goes."""

    def __init__(self) -> None:
        import textworld  # noqa: F401  # whether it is there is said when the world is made

    def reset(self, task: str) -> Observation:
        """Begin. ConfigError: an option that does not exist; DataError: a file that is no whole game."""
        import textworld
        from textworld.generator.game import GameProgression
        from textworld.generator.inform7 import Inform7Game

        options = parsed(task)
        self.game, story = _from_file(options["file"]) if "file" in options else _made(options)
        self.progress = GameProgression(self.game)
        self.language = Inform7Game(self.game)
        self._tell: Callable[[Any, str], str]
        if story is None:
            self._tell = lambda action, command: short_text(self.game, self.progress.state, action, command)
            beginning = f"{objective(self.game)} {short_text(self.game, self.progress.state, None, '')}"
        else:
            self.story = textworld.start(str(story))
            first = _plain(self.story.reset().feedback)
            self._tell = lambda action, command: _plain(self.story.step(command)[0].feedback)
            beginning = first[first.find(self.game.objective) :] if self.game.objective in first else first
        return self._seen(beginning)

    def step(self, action: str) -> Observation:
        command = " ".join(action.split()).casefold()
        found = next((known for known in self.actions if known.casefold() == command), None)
        if found is None:
            return self._seen(REFUSED)
        self.progress.update(self.actions[found])
        text = self._tell(self.actions[found], found)
        return self._seen(text)

    def expert(self) -> str | None:
        return next(iter(self.policy), None)

    def remaining(self) -> int | None:
        return len(self.policy) or None

    def close(self) -> None:
        if hasattr(self, "story"):
            self.story.close()

    def _seen(self, text: str) -> Observation:
        progress = self.progress
        actions = progress.valid_actions
        commands = self.language.gen_commands_from_actions(actions)
        self.actions = dict(sorted(zip(commands, actions, strict=True), key=lambda pair: pair[0]))
        self.policy = self.language.gen_commands_from_actions(progress.winning_policy or ())
        won, lost = bool(progress.completed), bool(progress.failed)
        if lost and not won:
            text += " The task cannot be done any more."
        score = progress.score / max(1, self.game.max_score)
        return Observation(text, tuple(self.actions), score, won or lost, won)


def parsed(task: str) -> dict[str, Any]:
    """The options of a task. ConfigError: one that does not exist, or a value that it cannot have.

    >>> parsed("rooms=1,seed=7")
    {'rooms': 1, 'objects': 4, 'length': 3, 'text': 'short', 'seed': 7}
    >>> parsed("file=games/a,b.z8")
    {'file': 'games/a,b.z8'}
    """
    if task.strip().startswith("file="):  # a path may have commas
        return {"file": task.strip().removeprefix("file=")}
    given = dict(part.strip().partition("=")[::2] for part in task.split(",") if part.strip())
    known = ("rooms", "objects", "length", "text", "seed")
    for name, value in given.items():
        if name not in known:
            raise ConfigError(
                f"textworld:{task}: no option {name!r}; there are {', '.join(known)}, or file alone"
            )
        if name != "text" and not (value.isascii() and value.isdigit() and (name == "seed" or int(value))):
            raise ConfigError(f"textworld:{task}: {name} is {value!r}; write a whole number, as {name}=3")
    if "seed" not in given:
        raise ConfigError(f"textworld:{task}: it has no seed; write seed=17, another game for each number")
    if given.setdefault("text", "short") not in ("short", "game"):
        raise ConfigError(f"textworld:{task}: text is {given['text']!r}; write short or game")
    sizes = {name: int(given.get(name, size)) for name, size in _SIZES.items()}
    return {**sizes, "text": given["text"], "seed": int(given["seed"])}


def objective(game: Any) -> str:
    """The objective without the greeting before it: "Rest the teaspoon on the bowl."."""
    text = " ".join(game.objective.split())
    while found := _GREETING.match(text):
        text = text[found.end() :].strip()
    return text[:1].upper() + text[1:]


def _made(options: dict[str, Any]) -> tuple[Any, Path | None]:
    sizes = tuple(options[name] for name in (*_SIZES, "seed"))
    game, name = _game(*sizes), "-".join(map(str, sizes))
    return game, _compiled(game, name) if options["text"] == "game" else None


@lru_cache(maxsize=64)
def _game(*sizes: int) -> Any:
    """The game of these sizes and seed, from the cache or made; what cannot be written is only made."""
    from textworld.generator.game import Game

    path = _kept("-".join(map(str, sizes)) + ".json")
    try:
        return Game.load(str(path))
    except Exception:  # not there, or damaged: whatever that leads its reader to
        game = _generated(*sizes)
    with suppress(OSError), whole_file(path) as write:
        write(json.dumps(game.serialize()))
    return game


def _kept(name: str) -> Path:
    import textworld

    return default_cache() / "textworld" / textworld.__version__ / name


def _generated(rooms: int, objects: int, length: int, seed: int) -> Any:
    import textworld
    from textworld.generator.data import KnowledgeBase

    options = textworld.GameOptions()
    options.kb = KnowledgeBase.default()  # else its rules are parsed again, which takes longest
    options.nb_rooms, options.nb_objects, options.quest_length, options.seeds = rooms, objects, length, seed
    options.grammar.only_last_action = True
    return textworld.generator.make_game(options)


def _compiled(game: Any, name: str) -> Path:
    """The story file of a game, compiled by Inform 7 the first time."""
    import textworld

    folder = _kept(name)
    if not folder.exists():
        with fresh_folder(folder) as fresh:
            options = textworld.GameOptions()
            options.path = str(fresh / "game.z8")
            textworld.generator.compile_game(game, options)
    return folder / "game.z8"


def _from_file(name: str) -> tuple[Any, Path | None]:
    from textworld.generator.game import Game

    path = Path(name).expanduser()
    try:
        game = Game.load(str(path.with_suffix(".json")))
        if path.suffix != ".json":
            _check_story(path.read_bytes())
    except Exception as error:  # whatever a damaged file leads its reader to
        said = f"{type(error).__name__}: {first_line(error)[:200]}"
        raise DataError(f"{path}: no whole TextWorld game ({said}); make it again with tw-make") from error
    return game, None if path.suffix == ".json" else path


def _check_story(story: bytes) -> None:
    """ValueError: not whole. A torn one would take the process along that plays it.

    Source: the Z-machine standard 1.1, section 11: version, length in units of 4 or 8 bytes, sum of bytes.
    """
    if story[:1] not in (b"\x05", b"\x08"):
        raise ValueError("not a story file of version 5 or 8")
    said, length = story[28:30], int.from_bytes(story[26:28], "big") * (4 if story[0] == 5 else 8)
    if len(story) < max(length, 64):
        raise ValueError(f"{len(story)} bytes of {max(length, 64)}")
    if length and sum(story[64:length]) % 2**16 != int.from_bytes(said, "big"):
        raise ValueError("the sum of its bytes is not the one that it states")


def _plain(feedback: str) -> str:
    """Prose without the status line, runs of empty lines and signs of the prompt."""
    return re.sub(r"\n\s*\n+", "\n", _PROMPT.sub("", feedback)).strip()
