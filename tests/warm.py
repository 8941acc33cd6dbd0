"""What a run imports, for a server whose forked children run it: a new process takes ten seconds more."""

import importlib

from conftest import spare_imports

for name in (
    "srl.cli.lightning", "srl.engine.engine", "srl.update.update", "modules.policy", "datamodules",
    "callbacks",
    "peft", "torchmetrics", "matplotlib", "git", "pygments", "alembic.config", "cryptography.x509",
    "mlflow.store.tracking.sqlalchemy_store", "mlflow.tracking",
    "transformers.models.llama.modeling_llama", "transformers.models.bloom.modeling_bloom",
):  # fmt: skip
    importlib.import_module(name)
spare_imports()
