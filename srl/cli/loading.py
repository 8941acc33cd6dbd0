"""A checkpoint -> the policy that it holds, by the config of its MLflow run or by `--config`."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from callbacks.run_info import run_of_checkpoint
from modules.policy import PolicyModule
from srl.cli.lightning import instantiated
from srl.errors import ConfigError
from srl.model.checkpoint import read_checkpoint, read_trained, resolve_checkpoint

if TYPE_CHECKING:
    from srl.engine.engine import RolloutEngine


@dataclass
class Trained:
    """A checkpoint with all that says what it is. client, run: of MLflow, where the run is known.

    quantization: as trained. update: optimizer steps that it had made, once it is loaded.
    """

    path: Path
    model: PolicyModule
    data: Any
    client: Any
    run: Any
    quantization: str
    update: int = 0

    def policy(self, device: str = "cpu", dequantised: bool = False) -> Any:
        """The base with the checkpoint's weights. dequantised: 4-bit weights as the numbers they stand for.

        ConfigError: a checkpoint of another base or adapter.
        """
        import torch

        from srl.model.adapters import attach_lora
        from srl.model.loading import load_base
        from srl.model.logit_head import check_head
        from srl.model.texts import check_vocabulary

        model = self.model
        base: Any = load_base(
            model.files,
            quantization=self.quantization,  # type: ignore[arg-type]
            device=torch.device(device),
            dtype=None if model.lora is not None else torch.float32,
            trust_remote_code=model.trust_remote_code,
        )
        check_head(base)
        check_vocabulary(model.tokenizer, base)
        if dequantised and getattr(base, "is_quantized", False):
            base = base.dequantize().float()
        policy = base if model.lora is None else attach_lora(base, model.lora, seed=0)
        checkpoint = read_checkpoint(self.path)
        read_trained(checkpoint, policy, model.identity)
        self.update = int(checkpoint["global_step"])
        return policy.eval()

    def metrics(self, prefixes: tuple[str, ...]) -> dict[str, float]:
        """What the run measured at this very update, by name."""
        if self.run is None:
            return {}
        run_id = self.run.info.run_id
        found: dict[str, float] = {}
        for name in self.run.data.metrics:
            if name.startswith(prefixes):
                for point in self.client.get_metric_history(run_id, name):
                    if point.step == self.update:
                        found[name] = point.value
        return found


def base_engine(config: Any) -> RolloutEngine:
    """Rollouts of the base of a config, without adapter, on the GPU where there is one."""
    import torch

    from srl.model.loading import load_base
    from srl.model.logit_head import check_head

    model: PolicyModule = config.model
    base: Any = load_base(
        model.files,
        quantization=model.quantization,
        device=torch.device("cuda" if torch.cuda.is_available() else "cpu"),
        trust_remote_code=model.trust_remote_code,
    )
    check_head(base)
    return _engine_over(base, model)


def trained_engine(trained: Trained) -> RolloutEngine:
    """Rollouts of a checkpoint, on the GPU where there is one."""
    import torch

    from srl.model.merged_lora import merge_lora_forward

    policy = trained.policy("cuda" if torch.cuda.is_available() else "cpu")
    merge_lora_forward(policy)
    return _engine_over(policy, trained.model)


def _engine_over(policy: Any, model: PolicyModule) -> RolloutEngine:
    """The engine that `fit` and `test` make of the same config, rollout.engine with it."""
    model.policy = policy
    return model.engine


def given_engine(config: Any) -> RolloutEngine:
    """Rollouts of the checkpoint that a config names (--ckpt_path), or of its base."""
    if config.ckpt_path is None:
        return base_engine(config)
    path, model = Path(config.ckpt_path), config.model
    return trained_engine(Trained(path, model, config.data, None, None, _quantization(model, None)))


def load_trained(ckpt_path: str, tracking_uri: str, rest: list[str]) -> Trained:
    """rest: further arguments of `fit`, such as --config or --model.base.

    ConfigError: no such file, not a checkpoint, or neither a run of it in MLflow nor --config.
    """
    given = any(argument.startswith(("--config", "-c")) for argument in rest)
    if not given and ckpt_path in ("last", "best"):
        raise ConfigError(f"--ckpt_path {ckpt_path}: name the file, or give --config with the run's config")
    path = Path(ckpt_path) if given else Path(resolve_checkpoint(ckpt_path, ""))
    client: Any = None
    run: Any = None
    if path.is_file():
        client, run = find_run(str(path), tracking_uri)
    with tempfile.TemporaryDirectory() as folder:
        if not given:
            if run is None:
                raise ConfigError(
                    f"--ckpt_path {path}: its MLflow run is not at {tracking_uri}; give --config with the "
                    "config that wrote it, or another --tracking_uri"
                )
            rest = ["--config", client.download_artifacts(run.info.run_id, "config.yaml", folder), *rest]
        config = instantiated([*rest, "--ckpt_path", ckpt_path])
    path = Path(config.ckpt_path)
    if run is None:
        client, run = find_run(str(path), tracking_uri)
    return Trained(path, config.model, config.data, client, run, _quantization(config.model, run))


def find_run(path: str, tracking_uri: str) -> tuple[Any, Any]:
    """A client and the run that wrote a checkpoint; (None, None) where the tracking server knows none."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    from srl.runs import store

    run_id = run_of_checkpoint(resolve_checkpoint(path, ""))
    if run_id is None:
        return None, None
    try:
        client: MlflowClient = store.open_store(tracking_uri)
        found = store.find_run(client, run_id)
        return (client, client.get_run(found)) if found else (None, None)
    except (MlflowException, ConfigError):
        return None, None


def _quantization(model: PolicyModule, run: Any) -> str:
    """`auto` is what it was when the run was made; without the run, what it is here."""
    if model.quantization != "auto":
        return model.quantization
    tagged = run.data.tags.get("quantization") if run is not None else None
    if tagged:
        return str(tagged)
    import torch

    return "nf4" if torch.cuda.is_available() else "none"
