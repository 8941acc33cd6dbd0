"""How the settings of each method differ from those that methods most often have."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from srl.compare.groups import Group

PHASE = re.compile(r"(curriculum\.phases\.\d+)\.")
GROUPS = re.compile(r"curriculum\.phases\.\d+\.(?:mix|until)")  # of settings that are read as one
GROUP = re.compile(rf"({GROUPS.pattern})\.(.+)")
UNSET = ("", "None")  # a phase that there is has keys without a value
Settings = dict[str, dict[str, str]]  # setting -> method -> value


def deviations(groups: Sequence[Group]) -> dict[str, list[tuple[str, str, str]]]:
    """Method -> (setting, its value here, the most frequent one; where two are, the first method's).

    What a phase mixes and what ends it is one setting each. A phase that others do not have is one row, and
    so is one that is missing here.
    """
    labels = [group.label for group in groups]
    keys = sorted({key for group in groups for key in group.settings})
    every = {key: {group.label: group.settings.get(key, "") for group in groups} for key in keys}
    settings = merged(every, labels)
    usual = {key: Counter(values.values()).most_common(1)[0][0] for key, values in settings.items()}
    return {label: _of(settings, label, usual) for label in labels}


def merged(settings: Settings, labels: Sequence[str]) -> Settings:
    """What a phase mixes, and what ends it, as one setting each; "" for none.

    >>> merged({"curriculum.phases.0.mix.srl": {"a": "1.0", "b": ""}}, ["a", "b"])
    {'curriculum.phases.0.mix': {'a': 'srl 1.0', 'b': ''}}
    """
    found: Settings = {}
    for key, values in settings.items():
        group = GROUP.fullmatch(key)
        if group is None:
            found[key] = {label: values[label] for label in labels}
            if GROUPS.fullmatch(key):
                found[key] = {label: "" if one in UNSET else one for label, one in found[key].items()}
            continue
        one = found.setdefault(group[1], dict.fromkeys(labels, ""))
        for label in labels:
            if values[label] not in UNSET:
                one[label] += f"{', ' if one[label] else ''}{group[2]} {values[label]}"
    return found


def _of(settings: Settings, label: str, usual: dict[str, str]) -> list[tuple[str, str, str]]:
    ours = {key: values[label] for key, values in settings.items()}
    rows, done = [], set()
    for key, here in ours.items():
        phase = PHASE.match(key)
        if here == usual[key] or (here in UNSET and usual[key] in UNSET) or (phase and phase[1] in done):
            continue
        keys = [one for one in ours if phase and one.startswith(phase[0])]
        both = [_phase(values, keys) for values in (ours, usual)]
        if phase and not all(both):
            done.add(phase[1])
            rows.append((phase[1], both[0], both[1]))
        else:
            rows.append((key, here, usual[key]))
    return rows


def _phase(values: dict[str, str], keys: Sequence[str]) -> str:
    """The settings that have a value in one line, the name first."""
    shown = [key for key in keys if values[key] not in UNSET]
    shown.sort(key=lambda key: not key.endswith(".name"))
    return ", ".join(f"{key.split('.', 3)[3]} {values[key]}" for key in shown)
