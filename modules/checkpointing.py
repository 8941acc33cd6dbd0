"""What a checkpoint of the policy holds: trained weights, counters, and what it must agree with."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from torch import nn

from srl.errors import ConfigError
from srl.models import LoraSettings

if TYPE_CHECKING:
    from modules.policy import PolicyModule


def identity_of(base: str, lora: LoraSettings | None) -> dict[str, Any]:
    """What a checkpoint must agree with. A local base may move, so it goes by its last name."""
    return {
        "base": base.rstrip("/").rsplit("/", 1)[-1],
        "lora": None if lora is None else asdict(lora),
    }


def counters_of(module: PolicyModule) -> dict[str, Any]:
    """Updates that were skipped, and the bounds that memory has set."""
    rows = {"set": module.rows_set, "now": module.engine.rows_in_flight}
    budget = module.token_budget.state_dict()
    return {**module.bad.state_dict(), "token_budget": budget, "rows_in_flight": rows}


def restore_counters(module: PolicyModule, saved: dict[str, Any]) -> None:
    """The bounds are not in checkpoints of earlier versions; one that the user has changed counts anew."""
    module.bad.load_state_dict(saved)
    if "token_budget" in saved:
        module.token_budget.load_state_dict(saved["token_budget"])
    rows = saved.get("rows_in_flight", {})
    if rows.get("set") == module.rows_set:
        module.rows_in_flight = int(rows["now"])


def write_trained(
    checkpoint: dict[str, Any], policy: nn.Module, identity: dict[str, Any], counters: dict[str, Any]
) -> None:
    """Trained weights only, in built-in types and tensors, so that it loads with weights_only=True."""
    from srl.models import adapter_state

    checkpoint["state_dict"] = adapter_state(policy)
    checkpoint["srl"] = {"identity": identity, **counters}


def read_trained(checkpoint: dict[str, Any], policy: nn.Module, identity: dict[str, Any]) -> dict[str, Any]:
    """Load the weights and return the counters.

    ConfigError: a checkpoint of another base or adapter, or with weights of other names or shapes.
    """
    from srl.models import load_adapter_state

    saved = checkpoint.get("srl")
    if saved is None:
        raise ConfigError("this checkpoint was not written by srl: it has no `srl` entry")
    if saved["identity"] != identity:
        raise ConfigError(
            f"the checkpoint was made with {saved['identity']}, the config says {identity}: "
            "resume with the config that wrote it"
        )
    load_adapter_state(policy, checkpoint["state_dict"])
    checkpoint["state_dict"] = {}
    return {name: value for name, value in saved.items() if name != "identity"}
