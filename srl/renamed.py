"""Names of an older version: they still work for one version, each with a line that says what to write.

Config keys in files and on the command line, parameters of older MLflow runs, state in older checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from srl.errors import ConfigError

KEYS = {
    "sampling": "dynamic_sampling",
    "samples": "rollout_tables",
    "curriculum.phases.until.steps": "updates",
    "data.validation.max_steps": "max_examples",
    "model.test.samples": "attempts",
    "model.validation.samples": "attempts",
    "rollout.history_thinking": "own_thinking",
}
"""Old key, without places in lists -> the new name of its last part."""

GONE = {
    "tracking.spool": "a run is logged to the local store, and copied to the server of tracking.mirror",
    "tracking.drain": "nothing waits for a server any more; see tracking.mirror",
}
"""Keys that do nothing any more -> why, or what to write."""

CALLBACKS = {
    "Checkpoints": "Checkpoint",
    "CurriculumCallback": "Curriculum",
    "DynamicSamplingCallback": "DynamicSampling",
    "RolloutCallback": "Rollout",
    "RolloutTable": "RolloutTables",
    "StepRewardCallback": "Reward",
    "ValidationByUpdates": "ValidationDue",
}
"""Classes whose state lies under the old name in checkpoints."""

Said = Callable[[str, str], None]  # is told the old key and the new one


def renamed_config(value: Any, said: Said, path: tuple[str, ...] = ()) -> Any:
    """A config, or the value of the key `path`, with today's names, and without keys that are gone.

    ConfigError: an old name beside its new one.

    >>> renamed_config({"sampling": {"epsilon": 0}, "model": {"test": {"samples": 2}}}, lambda old, new: None)
    {'dynamic_sampling': {'epsilon': 0}, 'model': {'test': {'attempts': 2}}}
    """
    if isinstance(value, list):
        return [renamed_config(one, said, path) for one in value]
    if not isinstance(value, dict):
        return value
    found: dict[Any, Any] = {}
    for name, inner in value.items():
        old = (*path, str(name))
        if ".".join(old) in GONE:
            said(".".join(old), GONE[".".join(old)])
            continue
        new = KEYS.get(".".join(old))
        if new is not None:
            said(".".join(old), ".".join((*path, new)))
            if new in value:
                raise ConfigError(
                    f"{'.'.join(old)} is the old name of {new}, and both are given: take it out"
                )
        found[new or name] = renamed_config(inner, said, old)
    return found


def renamed_key(key: str) -> str:
    """A dotted key with today's names; places in lists stay.

    >>> renamed_key("sampling.epsilon"), renamed_key("curriculum.phases.0.until.steps")
    ('dynamic_sampling.epsilon', 'curriculum.phases.0.until.updates')
    """
    found: list[str] = []
    path: list[str] = []
    for part in key.split("."):
        if not part.isdigit():
            path.append(part)
        found.append(KEYS.get(".".join(path), part) if not part.isdigit() else part)
    return ".".join(found)


def renamed_states(checkpoint: dict[str, Any]) -> None:
    """Give the state of callbacks and of the data module in a checkpoint today's names, in place."""
    if "StepDataModule" in checkpoint:
        checkpoint["ExpertDataModule"] = checkpoint.pop("StepDataModule")
    states = checkpoint.get("callbacks", {})
    for old, new in CALLBACKS.items():
        if old in states:
            states[new] = states.pop(old)
