"""Start-up: what a run does not use yet is not loaded, and is all there once somebody uses it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
import sys
from srl.cli import deferred
deferred.install()
import srl.cli.lightning

heavy = ("matplotlib.pyplot", "torch._inductor", "torchmetrics.text", "scipy.optimize._optimize", "networkx",
         "datasets", "fastapi", "mlflow", "peft", "pandas")
print("loaded:", [name for name in heavy if name in sys.modules])

import torch
parameter = torch.nn.Parameter(torch.zeros(1))
parameter.sum().backward()
torch.optim.AdamW([parameter]).step()  # each of its methods asks torch._dynamo for `disable`
print("still put off:", type(sys.modules["torch._dynamo"]) is deferred.Deferred)

from lightning.fabric.wrappers import OptimizedModule  # a stand-in
import torch._dynamo.eval_frame
model = torch.compile(torch.nn.Linear(2, 2), backend="eager")
print("compiled:", isinstance(model, OptimizedModule), isinstance(torch.nn.Linear(2, 2), OptimizedModule))
print("runs:", tuple(model(torch.zeros(1, 2)).shape), type(sys.modules["torch._dynamo"]).__name__)

import torchmetrics.text
from torchmetrics import Accuracy, MeanMetric
from srl.evaluation import validation
print("one class:", validation.MeanMetric is MeanMetric is torchmetrics.aggregation.MeanMetric)
print("others:", Accuracy.__name__, torchmetrics.text.BLEUScore.__name__)

from scipy.optimize import linear_sum_assignment
import transformers.loss.loss_for_object_detection as loss
print("assigned:", loss.linear_sum_assignment([[2.0, 1.0], [1.0, 2.0]])[1].tolist())
print("real:", linear_sum_assignment([[2.0, 1.0], [1.0, 2.0]])[1].tolist())
"""

SAID = """loaded: []
still put off: True
compiled: True False
runs: (1, 2) module
one class: True
others: Accuracy BLEUScore
assigned: [1, 0]
real: [1, 0]
"""


def test_packages_wait_until_they_are_used_and_are_whole_then() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == (SAID, 0), done.stderr


def test_the_list_of_commands_loads_no_package() -> None:
    program = (
        "import sys; from srl.cli.main import main; main(['--help']); "
        "print([name for name in ('torch', 'lightning', 'transformers', 'mlflow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
