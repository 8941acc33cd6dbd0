"""Rollout: fills a draw with groups, G completions for each prompt."""

from __future__ import annotations

import hashlib
import logging
import platform
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from uuid import getnode

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from modules.longest import LOOKED_AT, Draws, longest, try_longest
from srl import ranks
from srl.curriculum.stream import Draw
from srl.engine.settings import Path as EnginePath
from srl.engine.vllm import VllmEngine, check_sampling, check_vllm
from srl.engine.vllm_settings import VllmSettings
from srl.errors import ConfigError, ServerGone
from srl.evaluation.gap import LITTLE, gap, measurable
from srl.examples.own_thinking import OwnThinking
from srl.objectives.table import objectives
from srl.play.player import Sample
from srl.types import Completion, Example, Group, Sampling, run_seed

if TYPE_CHECKING:
    from srl.engine.engine import RolloutEngine


log = logging.getLogger(__name__)
ELSEWHERE = -1  # sampled_at of another engine's rollouts: never today's weights, so the ratio counts
SEED_STEP = 1_000_003  # between the generators of two devices


class Rollout(Callback):
    """Samples G rollouts of every prompt from the weights that train.

    Args:
        num_generations: Rollouts of each prompt (G), which make one group; at least 2.
        temperature: Sampling temperature; 1 samples from the model as it is.
        top_p: Only the likeliest tokens up to this total probability are sampled; 1 cuts nothing. A cut
            biases the ratio of the update.
        top_k: Only so many of the likeliest tokens are sampled; 0 cuts nothing.
        min_p: Tokens below this share of the likeliest one's probability are not sampled; 0 cuts nothing.
        seed: Seed of the sampling noise; null is the run's seed.
        engine: auto samples with the very weights that train, by our own engine, and the architectures that
            it does not know by transformers, which is slow: no prompt is shared, in rollouts or updates. own
            refuses these, and transformers takes that path with any model. vllm hands the adapter to vLLM,
            which may be faster on large models; its log-probabilities are not quite the trainer's, so every
            update weighs by their ratio (see model.loss.truncated_ratio). No GPU has run vllm here. What is
            no rollout of fit (validation, test, label, judge, soft, chat) is sampled with vllm as with auto.
        vllm: Settings of vLLM, in this process or on a server, where engine is vllm.
        own_thinking: Share of the earlier steps in a prompt that the policy takes again: where it takes one
            as the expert did, its own thinking is shown before it. 0, as in the paper, shows the expert's
            steps alone.
    """

    def __init__(
        self,
        num_generations: int = 8,
        temperature: float = 1.0,
        top_p: float = 1.0,
        top_k: int = 0,
        min_p: float = 0.0,
        seed: int | None = None,
        engine: Literal["auto", "own", "transformers", "vllm"] = "auto",
        vllm: VllmSettings = VllmSettings(),  # noqa: B008 - frozen
        own_thinking: float = 0.0,
    ) -> None:
        if num_generations < 2:
            raise ConfigError(
                f"rollout.num_generations is {num_generations}: a group of fewer than 2 has no advantage"
            )
        if temperature <= 0:
            raise ConfigError(f"rollout.temperature is {temperature}: training needs a positive temperature")
        if not 0 <= own_thinking <= 1:
            raise ConfigError(f"rollout.own_thinking is {own_thinking}: it is a share, from 0 to 1")
        self.num_generations, self.own_thinking = num_generations, own_thinking
        self.sampling = Sampling(temperature, top_p, top_k, min_p)
        self.seed, self.engine, self.vllm = seed, engine, vllm
        self._vllm: VllmEngine | None = None
        self.prepares_fit = False  # set before the validation of step 0, so that a wrong engine fails first
        self._thinking: OwnThinking | None = None
        self._samples = {name: one.samples for name, one in objectives().items()}
        self._plays = {name: one.plays for name, one in objectives().items()}
        self._generator: torch.Generator | None = None
        self._restored: torch.Tensor | None = None
        self._lost: Counter[str] = Counter()  # by kind

    @property
    def path(self) -> EnginePath:
        """Of our own engine, which samples all that is no rollout, too."""
        return "auto" if self.engine == "vllm" else self.engine

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """ConfigError, before weights are loaded, where vLLM is wanted and cannot be had."""
        if self.engine == "vllm" and (stage == "fit" or self.prepares_fit):
            if trainer.world_size > 1:
                raise ConfigError("rollout.engine is vllm: on one device only; set trainer.devices: 1")
            policy: Any = pl_module
            check_sampling(self.sampling)
            check_vllm(self.vllm, policy.base, policy.lora.r if policy.lora else None)
        if self.own_thinking and stage == "fit":
            self._thinking = self._own_thinking(trainer.datamodule)  # type: ignore[attr-defined]

    def _own_thinking(self, data: Any) -> OwnThinking:
        if not data.think:
            raise ConfigError(
                f"rollout.own_thinking is {self.own_thinking}, but data.think is false: leave it at 0"
            )
        return OwnThinking(data.builder, data.train, self.own_thinking)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        seed = run_seed() if self.seed is None else self.seed
        self._generator = torch.Generator(pl_module.device).manual_seed(seed + SEED_STEP * ranks.rank())
        if self._restored is not None:
            self._go_on(self._generator, self._restored)
        self._check(trainer, pl_module)
        self._measure_gaps(trainer, pl_module)
        self._try_longest(trainer, pl_module)
        if self.engine == "vllm":
            self._begin_vllm(trainer, pl_module)

    def _begin_vllm(self, trainer: Trainer, pl_module: Any) -> None:
        last: Any = trainer.checkpoint_callback
        place = f"{platform.node()} {getnode()} {Path(getattr(last, 'dirpath', '.')).resolve()}"
        owner = hashlib.sha256(place.encode()).hexdigest()[:12]  # one run at a time has the folder
        stops = partial(getattr, last, "signalled", False)
        trusted = pl_module.trust_remote_code
        self._vllm = VllmEngine(pl_module.engine, pl_module.files, self.vllm, owner, stops, trusted)
        sources = trainer.datamodule.stream.sources  # type: ignore[attr-defined]
        asked = [
            one
            for name, examples in sources.items()
            if self._samples[name]
            for one in longest(examples, LOOKED_AT)  # not all: prompts of large data are made when drawn
        ]
        with trainer.precision_plugin.forward_context():
            self._vllm.begin(asked, self.sampling.temperature)

    def _go_on(self, generator: torch.Generator, state: torch.Tensor) -> None:
        if state.shape == generator.get_state().shape:
            generator.set_state(state)
        else:  # a CPU's generator and a GPU's keep states of their own kinds
            log.warning(
                "The checkpoint's random numbers are those of another kind of device than %s: from here on "
                "the run draws others, and does not equal one that was not stopped", generator.device,
            )  # fmt: skip

    def _check(self, trainer: Trainer, pl_module: Any) -> None:
        """The engine against the model's own forward on the first prompt of a fresh run's data."""
        sources = trainer.datamodule.stream.sources.values()  # type: ignore[attr-defined]
        first = next((examples[0] for examples in sources if examples and examples[0].prompt_ids), None)
        if first is not None and not trainer.global_step:
            with trainer.precision_plugin.forward_context():
                pl_module.engine.check(first.prompt_ids)

    def _measure_gaps(self, trainer: Trainer, pl_module: Any) -> None:
        """What the teachers of this run know that the policy does not, said and logged before it begins."""
        if trainer.global_step:
            return
        for name, examples in trainer.datamodule.stream.sources.items():  # type: ignore[attr-defined]
            objective = objectives()[name]
            if not measurable(objective, examples):
                continue
            with trainer.precision_plugin.forward_context():
                found = gap(pl_module.engine, objective, examples)
            enough = found.knowing - found.without >= LITTLE
            log.log(logging.INFO if enough else logging.WARNING, "%s", found.said(name))
            figures = {f"gap/{name}/without": found.without, f"gap/{name}/knowing": found.knowing}
            for logger in trainer.loggers:
                logger.log_metrics(figures, step=0)

    def _try_longest(self, trainer: Trainer, pl_module: Any) -> None:
        """Before the first update of a fresh run on one device."""
        setting = pl_module.update_settings.try_longest
        wanted = setting is True or (setting == "auto" and pl_module.device.type == "cuda")
        if not wanted or trainer.global_step or trainer.world_size > 1:
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        played = frozenset(name for name in data.stream.sources if self._plays[name] == "episode")
        draws = Draws(
            data.stream.largest_draw, self.num_generations, self.sampling, played,
            data.limits.max_prompt_tokens, pl_module.engine.most_tokens, here=self.engine != "vllm",
        )  # fmt: skip
        with trainer.precision_plugin.forward_context():
            try_longest(pl_module, data.stream.sources, draws)

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Draw, batch_idx: int) -> None:
        assert self._generator is not None
        start = time.perf_counter()
        batch.examples = [replace(one) for one in batch.examples]  # one drawn twice is sampled twice
        examples = ranks.share(batch.examples)  # of several devices each samples its part
        sampled_at = ELSEWHERE if self.engine == "vllm" else trainer.global_step
        state = self._generator.get_state()
        try:
            with trainer.precision_plugin.forward_context():
                batch.groups = self._fill(examples, trainer, pl_module, batch)
        except ServerGone as error:  # nothing of this draw counts; the checkpoint ends the run
            batch.stop = str(error)
            self._generator.set_state(state)
        for group in batch.groups:
            group.sampled_at = sampled_at
        batch.temperature = self.sampling.temperature
        batch.metrics["rollouts/rows_in_flight"] = float(pl_module.engine.rows_in_flight)
        batch.cost.rollout_seconds = max(ranks.gathered(time.perf_counter() - start))

    def _fill(self, examples: list[Example], trainer: Trainer, pl_module: Any, batch: Draw) -> list[Group]:
        """The groups of this device's examples; they are shown thinking, and played to a state, before."""
        if self._thinking is not None and any(map(self._has_history, batch.examples)):
            examples = self._with_thinking(self._thinking, examples, pl_module, batch)
            batch.examples = ranks.all_examples(examples, batch.examples)
        if any(self._plays[one.objective] == "state" for one in batch.examples):
            examples = self._played_to(examples, trainer, pl_module, batch)
            batch.examples = ranks.all_examples(examples, batch.examples)
        return self._groups(examples, trainer, pl_module, batch)

    def _groups(
        self, examples: Sequence[Example], trainer: Trainer, pl_module: Any, batch: Draw
    ) -> list[Group]:
        """A group of each example: imitation has no completions, and neither has what could not be played."""
        played = [one for one in examples if self._plays[one.objective] == "episode"]
        sampled = [
            one
            for one in examples
            if self._samples[one.objective] and self._plays[one.objective] != "episode" and one.prompt_ids
        ]
        found = self._generate(pl_module, sampled, self.num_generations) if sampled else []
        empty = torch.empty(0)
        groups = {id(one): Group(one, made, empty) for one, made in zip(sampled, found, strict=True)}
        if any(self._plays[one.objective] == "episode" for one in batch.examples):
            player = trainer.datamodule.player  # type: ignore[attr-defined]
            before, room = Counter(player.worlds.lost), self._sampler(pl_module).most_tokens
            made = player.groups(played, self.num_generations, self._turns(pl_module), room)
            groups |= {id(one): group for one, group in zip(played, made.groups, strict=True)}
            self._count_lost(player.worlds.lost - before, batch)
            batch.cost.history_tokens += ranks.total(made.lost_tokens)
        return [groups.get(id(one)) or Group(one, [], empty) for one in examples]

    def _played_to(
        self, examples: list[Example], trainer: Trainer, pl_module: Any, batch: Draw
    ) -> list[Example]:
        """The same examples, some with the prompt and the target of a state of the policy's own play."""
        player = trainer.datamodule.player  # type: ignore[attr-defined]
        wanted = [one for one in examples if self._plays[one.objective] == "state"]
        before, room = Counter(player.worlds.lost), self._sampler(pl_module).most_tokens
        states, tokens = player.states(wanted, self._turns(pl_module), room)
        self._count_lost(player.worlds.lost - before, batch)
        batch.cost.history_tokens += ranks.total(tokens)
        batch.metrics["rollouts/history_tokens"] = batch.cost.history_tokens
        found = {
            id(one): state or replace(one, prompt_ids=()) for one, state in zip(wanted, states, strict=True)
        }
        return [found.get(id(one), one) for one in examples]

    def _count_lost(self, more: Counter[str], batch: Draw) -> None:
        """Plays that the worlds lost, of all rollouts of the run so far, and of each kind of these."""
        for part in ranks.gathered(dict(more)):
            self._lost.update(part)
        batch.metrics["rollouts/episodes/lost"] = float(self._lost.total())
        for kind, plays in self._lost.items():
            batch.metrics[f"rollouts/episodes/lost_{kind.replace(' ', '_')}"] = float(plays)

    def _one_each(self, pl_module: Any) -> Sample:
        return lambda prompts: [one for (one,) in self._generate(pl_module, prompts, 1)]

    def _turns(self, pl_module: Any) -> Sample:
        """As `_one_each`, for the plays of one draw: vLLM keeps what prompts share by itself."""
        if self.engine == "vllm":
            return self._one_each(pl_module)
        assert self._generator is not None
        own: RolloutEngine = pl_module.engine
        return own.turns(self.sampling, self._generator)

    def _with_thinking(
        self, thinking: OwnThinking, examples: list[Example], pl_module: Any, batch: Draw
    ) -> list[Example]:
        """The same examples, some of which show the policy's thinking before the earlier steps."""
        assert self._generator is not None
        wanted = [one for one in examples if self._has_history(one)]
        room = self._sampler(pl_module).most_tokens
        drawn = thinking.draw(wanted, self._one_each(pl_module), self._generator, room)
        batch.metrics |= drawn.metrics()
        batch.cost.history_tokens += batch.metrics["rollouts/history_tokens"]
        found = {id(before): after for before, after in zip(wanted, drawn.examples, strict=True)}
        return [found.get(id(example), example) for example in examples]

    def _has_history(self, example: Example) -> bool:
        """Of recorded steps; a play has the policy's own."""
        recorded = self._samples[example.objective] and self._plays[example.objective] == "nothing"
        return recorded and example.step > 1

    def _generate(self, pl_module: Any, examples: Sequence[Example], n: int) -> list[list[Completion]]:
        assert self._generator is not None
        return self._sampler(pl_module).generate(examples, n, self.sampling, self._generator)

    def _sampler(self, pl_module: Any) -> RolloutEngine | VllmEngine:
        if self.engine != "vllm":
            own: RolloutEngine = pl_module.engine
            return own
        assert self._vllm is not None
        return self._vllm

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._end_vllm()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end_vllm()

    def _end_vllm(self) -> None:
        if self._vllm is not None:
            self._vllm.end()

    def state_dict(self) -> dict[str, Any]:
        if self._generator is None:
            return {}
        mine, *others = ranks.gathered(self._generator.get_state())
        return {"generator": mine, "lost": dict(self._lost), **({"others": others} if others else {})}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        lost = state_dict.get("lost", {})
        older = not isinstance(lost, dict)  # checkpoints of the version before have the sum alone
        self._lost = Counter({"unknown": int(lost)} if older else lost)
        self._restored = ranks.by_rank(state_dict.get("generator"), state_dict.get("others", []))
