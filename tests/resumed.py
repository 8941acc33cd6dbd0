"""A run that is stopped and gone on with, and what of its checkpoints must be equal."""

import shutil

import torch
from conftest import fit

PHASES = """[
 {name: srl, mix: {srl: 1.0}, batch_groups: 3, until: {updates: 3}},
 {name: both, mix: {srl: 1.0, rlvr: 1.0, sft_step: 1.0}, lr: 0.01, batch_groups: 4}
]"""


JUDGE = "judge: {adapter: off, votes: 8, tokens: 1, request: '{problem}{step}', positive: a, negative: b}"
TAUGHT = [  # a teacher by the mean of the weights reads in both phases, a judge judges in both, and outcomes
    # are shaped by confidence
    "--curriculum.phases", PHASES.replace("srl: 1.0", "srl: 1.0, distil_step: 1.0"),
    "--model.teacher.weights", "ema",
    "--reward.parts", f"[{{kind: objective}}, {{kind: judge, weight: 0.5, {JUDGE}}}]",
    "--reward.confidence.eta", "1e13",  # a random model is hardly ever sure of a letter, less of two
]  # fmt: skip
UNLOGGED = ["--trainer.logger", "false"]  # where nothing is read in MLflow: a third of a short run's time


def run(model_folder, expert_file, folder, *more):
    """A draw gives more groups than an update takes, or fewer: epsilon drops some. The buffer is in use."""
    arguments = [
        "--curriculum.phases", PHASES, "--curriculum.draw_prompts", "5", "--dynamic_sampling.epsilon", "0.02",
        "--dynamic_sampling.max_draws", "9", "--dynamic_sampling.patience", "1000",
        "--trainer.max_steps", "7", "--trainer.val_check_interval", "3",
        "--checkpoint.every_n_updates", "1", *more,
    ]  # fmt: skip
    return fit(model_folder, expert_file, folder, *arguments)


class Keep:
    """Copies last.ckpt each time it is written; at: the update of each copy."""

    def __init__(self, monkeypatch, folder):
        from callbacks.checkpoint import Checkpoint

        self.copies = []
        self.at = {}
        save = Checkpoint._save

        def saving(callback, trainer, path):
            save(callback, trainer, path)
            if path.name == "last.ckpt":
                copy = folder / f"copy{len(self.copies)}.ckpt"
                shutil.copy(path, copy)
                self.copies.append(copy)
                self.at[copy] = trainer.global_step

        monkeypatch.setattr(Checkpoint, "_save", saving)


def equal(a, b, where=""):
    """Deep equality with exact tensors; says where the first difference is."""
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            equal(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for index, (x, y) in enumerate(zip(a, b, strict=True)):
            equal(x, y, f"{where}/{index}")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    else:
        assert a == b, where


def what_counts(path):
    """The state that decides everything to come. Timing and Lightning's progress counters are left out."""
    state = torch.load(path, weights_only=True)
    callbacks = {name.split("{")[0]: value for name, value in state["callbacks"].items()}
    sampling = callbacks["DynamicSampling"]
    sampling["sums"] = {k: v for k, v in sampling["sums"].items() if "seconds" not in k}
    return {
        "weights": state["state_dict"],
        "averaged": state["srl"].get("averaged"),
        "optimizer": state["optimizer_states"],
        "global_step": state["global_step"],
        "loader": state["loops"]["fit_loop"]["state_dict"]["combined_loader"],
        "callbacks": {
            name: callbacks[name]
            for name in (
                "Curriculum", "DynamicSampling", "Rollout", "RandomState",
                "Reward",
            )
        },
    }  # fmt: skip
