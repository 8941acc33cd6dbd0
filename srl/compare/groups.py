"""Runs -> groups of the same method with the same settings, one run a seed; and how the settings differ."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from srl.compare.runs import Run
from srl.renamed import renamed_key

# Settings that a seed or a place on disk brings with it, or that change no weights.
IGNORED = (
    "seed_everything", "rollout.seed", "data.benchmarks", "checkpoint.", "trainer.logger", "rollout_tables.",
    "tracking.", "model.test.", "trainer.enable_progress_bar", "trainer.callbacks", "config", "extends",
    "ckpt_path", "verbose", "weights_only", "return_predictions", "plan.", "trainer.default_root_dir",
    "trainer.log_every_n_steps", "rollout.vllm.adapters",
)  # fmt: skip
PATHS = ("data.path", "data.val_path", "model.base")  # compared by their last part
PHASE = re.compile(r"(curriculum\.phases\.\d+)\.")
GROUPS = re.compile(r"curriculum\.phases\.\d+\.(?:mix|until)")  # of settings that are read as one
GROUP = re.compile(rf"({GROUPS.pattern})\.(.+)")
UNSET = ("", "None")  # a phase that there is has keys without a value
Settings = dict[str, dict[str, str]]  # setting -> method -> value
NAMED, LONGEST = 2, 40  # settings named in a group's label, and characters of each value


@dataclass
class Group:
    """The runs of one method, by seed. label: the method, and what tells it from others of that method."""

    label: str
    runs: list[Run]

    @property
    def seeds(self) -> list[str]:
        return [run.seed for run in self.runs]

    @property
    def settings(self) -> dict[str, str]:
        return settings(self.runs[0])


def settings(run: Run) -> dict[str, str]:
    """The parameters that make a difference to what is learnt; files go by their names."""
    found = {}
    for key, value in ((renamed_key(key), value) for key, value in run.params.items()):
        if not key.startswith(IGNORED):
            found[key] = value.rstrip("/").rsplit("/", 1)[-1] if key in PATHS else value
    return found


def grouped(runs: list[Run]) -> tuple[list[Group], list[str]]:
    """Groups in order of their first runs, and notes on what was left out.

    Runs of a method with other settings are a group of their own. Of several with the same seed the newest
    that trained counts: an interval over repeats of a seed would not be one over seeds, and a run that only
    validates a checkpoint is no result of its own.
    """
    by_method: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        by_method[run.method].append(run)
    groups, notes = [], []
    for method, members in by_method.items():
        kinds: dict[tuple, list[Run]] = defaultdict(list)
        for run in members:
            kinds[tuple(sorted(settings(run).items()))].append(run)
        labels = _labels(method, [kind[0] for kind in kinds.values()])
        for label, kind in zip(labels, kinds.values(), strict=True):
            newest = {run.seed: run for run in sorted(kind, key=lambda run: run.trained)}
            notes += [_left_out(run, newest[run.seed]) for run in kind if newest[run.seed] is not run]
            groups.append(Group(label, sorted(newest.values(), key=_by_seed)))
    return groups, notes


def other_data(groups: Sequence[Group]) -> list[str]:
    """Notes on runs that are pooled, or set against each other, though their data differ (tag data_hash)."""
    found = {group.label: _hashes(group.runs) for group in groups}
    notes = [
        f"{label}: its runs have different data (data_hash {', '.join(sorted(hashes))})"
        for label, hashes in found.items()
        if len(hashes) > 1
    ]
    for place, one in enumerate(groups):
        for other in groups[place + 1 :]:
            seeds = sorted(seed for seed in {*one.seeds} & {*other.seeds} if _differ(one, other, seed))
            if seeds:
                notes.append(f"{one.label} and {other.label}: different data at seed {', '.join(seeds)}")
    return notes


def _hashes(runs: Sequence[Run]) -> set[str]:
    return {run.tags["data_hash"][:10] for run in runs if run.tags.get("data_hash")}


def _differ(one: Group, other: Group, seed: str) -> bool:
    return len(_hashes([run for group in (one, other) for run in group.runs if run.seed == seed])) > 1


def _left_out(run: Run, other: Run) -> str:
    why = "has trained, as this one has not" if other.trained and not run.trained else "is newer"
    return (
        f"{run.name} ({run.run_id[:8]}) is left out: run {other.run_id[:8]} with the same method, settings "
        f"and seed {run.seed} {why}"
    )


def _by_seed(run: Run) -> tuple[int, str]:
    return (int(run.seed), "") if run.seed.isdigit() else (1 << 60, run.seed)


def _cut(value: str) -> str:
    """
    >>> _cut("one"), len(_cut("long " * 20))
    ('one', 40)
    """
    return value if len(value) <= LONGEST else f"{value[: LONGEST - 1]}…"


def _labels(method: str, runs: list[Run]) -> list[str]:
    """The method alone where its settings are the same in all runs; else with the first that differ."""
    if len(runs) == 1:
        return [method]
    found = [settings(run) for run in runs]
    keys = [
        key for key in dict.fromkeys(k for one in found for k in one) if len({o.get(key) for o in found}) > 1
    ]
    labels = []
    for place, one in enumerate(found):
        told = ", ".join(f"{key.rsplit('.', 1)[-1]} {_cut(one.get(key, 'not set'))}" for key in keys[:NAMED])
        label = f"{method} ({told}{', ...' if len(keys) > NAMED else ''})"
        labels.append(label if label not in labels else f"{label} {place + 1}")
    return labels


def differences(groups: list[Group]) -> dict[str, dict[str, str]]:
    """Setting -> group -> value, for settings that are not the same in all groups; "" where it is not set.

    >>> same = {"trainer.max_steps": "9"}
    >>> runs = [Run("1", "a", "", same | {"lr": "1"}, {}, {}), Run("2", "b", "", same | {"lr": "2"}, {}, {})]
    >>> differences([Group(run.name, [run]) for run in runs])
    {'lr': {'a': '1', 'b': '2'}}
    """
    values = {group.label: group.settings for group in groups}
    keys = sorted({key for one in values.values() for key in one})
    return {
        key: {label: one.get(key, "") for label, one in values.items()}
        for key in keys
        if len({one.get(key, "") for one in values.values()}) > 1
    }


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
