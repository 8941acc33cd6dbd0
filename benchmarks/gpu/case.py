"""One case of `gpu.py`: plan, policy, rollouts, update, and others beside them."""

from __future__ import annotations

import gc
import json
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from typing import Any

import torch

from gpu import trl_step
from gpu.model import random_policy
from srl.engine.engine import RolloutEngine
from srl.engine.settings import DecodeSettings
from srl.engine.verify import allowed, verify
from srl.errors import ConfigError
from srl.memory_plan.fake_model import Build, weigh
from srl.memory_plan.job import Job, Stage
from srl.memory_plan.live_bytes import LiveBytes
from srl.memory_plan.model_shapes import KNOWN
from srl.memory_plan.plan import make_plan
from srl.memory_plan.rollouts import Call
from srl.model.adapters import LoraSettings, inner_decoder, unwrapped
from srl.model.logit_head import logit_head
from srl.packing.attention import Attention, mask_work, siblings_work
from srl.packing.micro_batches import Row, micro_batches
from srl.types import Example, Sampling
from srl.update.loss import LossSettings, logprobs_of, loss_of

LORA = LoraSettings(16, 32)
GIB = 2**30


class Measured:
    """Runs a case part by part, and says what came of it in built-in types."""

    def __init__(self, case: Any, device: torch.device, clock: Any, copy_gb: float) -> None:
        self.case, self.device, self.clock, self.copy_gb = case, device, clock, copy_gb
        self.config = shape(case.base)
        self.cuda = device.type == "cuda"
        self.dtype = torch.bfloat16 if self.cuda else torch.float32
        self.found: dict[str, Any] = asdict(case)
        self.policy: Any = None
        self.optimizer: Any = None

    def everything(self, left_out: list[str]) -> dict[str, Any]:
        plan = self._plan()
        self.found["planned"] = {moment.name: moment.peak for moment in plan.moments}
        with self._peak("loading"):
            policy = random_policy(self.config, LORA, self.device, self.dtype)
        self.policy = policy
        self.engine = self._engine()
        self.generator = torch.Generator(self.device).manual_seed(0)
        self.optimizer = torch.optim.AdamW([p for p in policy.parameters() if p.requires_grad], lr=1e-5)
        self._generate(2)  # kernels are chosen, moments made
        self._update(self._rows(self._generate(2)))
        rollouts = self._rollouts()
        self._updates(rollouts)
        peaks = self.found["measured"]
        self.found["planned/measured"] = round(plan.peak / max(peaks.values()), 3)
        self.found["peak_gib"] = round(max(peaks.values()) / GIB, 2)
        rows, seconds = self._rows(rollouts), self.found["update_seconds"]
        self._stage("verify", 0, self._verified, left_out)
        for how in ("siblings", "mask"):
            self._stage(how, 2 * seconds, partial(self._update_by, how, rows), left_out)
        self._stage("plain steps", 2 * self.found["rollout_seconds"], self._plain_steps, left_out)
        self._compare(left_out)
        return self.found

    def _engine(self, **decode: Any) -> RolloutEngine:
        rows = self.case.prompts * self.case.n
        return RolloutEngine(self.policy, Silent(), (-1,), rows, DecodeSettings(**decode))

    def _stage(
        self, name: str, needed: float, work: Callable[[], dict[str, Any]], left_out: list[str]
    ) -> None:
        """Where there is time for it; a line of JSON with what it found, and no fault of it ends the case."""
        if self.clock.left() < needed:
            left_out.append(f"{self.case.base}: {name}")
            return
        try:
            found = work()
        except (RuntimeError, ConfigError) as error:  # out of memory is one
            found = {f"{name} failed": f"{type(error).__name__}: {error}".splitlines()[0]}
        gc.collect()
        print(json.dumps({"base": self.case.base, "stage": name, **found}), flush=True)
        self.found |= found

    def _verified(self) -> dict[str, Any]:
        """The KL divergence of decoding and packed training from eager attention, and its bound."""
        decoder, text = self.engine.decoder, Silent()("x" * 17)["input_ids"]
        with decoder.evaluating(), self._autocast():
            return {"verify_kl": verify(decoder, text), "verify_allowed": allowed(decoder)}

    def _update_by(self, how: Attention, rows: list[Row]) -> dict[str, Any]:
        """Seconds of an update by one way of attention, with the pairs of query and key that it computes."""
        work = siblings_work if how == "siblings" else mask_work
        pairs = sum(work(batch.trees).pairs for batch in micro_batches(rows, self.case.tokens))
        seconds, _ = self.clock.time(lambda: self._update(rows, how))
        return {f"update_seconds_{how}": seconds, f"update_pairs_{how}": pairs}

    def _plain_steps(self) -> dict[str, Any]:
        """Seconds of a decode step that is not recorded; the engine that records makes room for it."""
        del self.engine
        _free()
        self.engine = self._engine(cuda_graphs=False)
        first, _ = self.clock.time(lambda: self._generate(1))
        seconds, _ = self.clock.time(lambda: self._generate(self.case.compared + 1))
        self.engine = self._engine()
        return {"decode_step_seconds_plain": (seconds - first) / self.case.compared}

    def _plan(self) -> Any:
        case = self.case
        build = Build(self.config, "cuda" if self.cuda else "cpu", True, LORA, True, self.cuda)
        call = Call(case.prompts, case.n, case.prompt, case.completion)
        stage = Stage("step", (call,), case.prompt, case.completion, case.prompts, case.n)
        self.weights = weigh(build)
        rows = case.prompts * case.n
        return make_plan(Job(build, (stage,), rows, case.tokens, False, True, self.cuda, torch.optim.AdamW))

    @contextmanager
    def _peak(self, name: str) -> Iterator[None]:
        """The most bytes of tensors within."""
        peaks = self.found.setdefault("measured", {})
        if self.cuda:
            torch.cuda.reset_peak_memory_stats(self.device)
            yield
            peaks[name] = torch.cuda.max_memory_allocated(self.device)
        else:
            with LiveBytes() as live:
                live.note(self._held())
                yield
                peaks[name] = live.peak

    def _held(self) -> list[torch.Tensor]:
        """What is there from before: weights with the constants of 4-bit ones, and the optimizer's state."""
        if self.policy is None:
            return []
        found = [*self.policy.parameters(), *self.policy.buffers()]
        for quantised in (p.quant_state for p in self.policy.parameters() if hasattr(p, "quant_state")):
            inner = quantised.state2
            found += [quantised.absmax, quantised.code, quantised.offset, inner.absmax, inner.code]
        states = self.optimizer.state.values() if self.optimizer else ()
        return [*found, *(one for state in states for one in state.values())]

    def _autocast(self) -> Any:
        """As Lightning has it: casts are not kept."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.cuda, cache_enabled=False)

    def _generate(self, completion: int) -> list[tuple[Example, list[Any]]]:
        case = self.case
        highest = int(self.config.vocab_size) - 1
        examples = [
            Example(
                str(i), "srl", 1, tuple(random.choices(range(highest), k=case.prompt)), "",
                max_new_tokens=completion,
            )
            for i in range(case.prompts)
        ]  # fmt: skip
        with self._autocast():
            found = self.engine.generate(examples, case.n, Sampling(), self.generator)
        return list(zip(examples, found, strict=True))

    def _rollouts(self) -> list[tuple[Example, list[Any]]]:
        """Tokens a second, and what a decode step must read over what can be read in its time."""
        case = self.case
        first, _ = self.clock.time(lambda: self._generate(1))
        with self._peak("rollouts"):
            seconds, found = self.clock.time(lambda: self._generate(case.completion))
        step = (seconds - first) / (case.completion - 1)
        text = self.config
        head = text.vocab_size * text.hidden_size * self.dtype.itemsize
        read = self.weights.quantised + self.weights.adapter + head
        self.found |= {
            "rollout_seconds": seconds,
            "rollout_tokens_per_second": case.prompts * case.n * case.completion / seconds,
            "decode_step_seconds": step,
            "bandwidth_share": read / step / 1e9 / self.copy_gb,
        }
        return found

    def _rows(self, found: list[tuple[Example, list[Any]]]) -> list[Row]:
        """Advantages of both signs, as a group's are."""
        count = sum(len(one.ids) for _, completions in found for one in completions)
        return [
            Row(example.prompt_ids, one.ids, 1 / count, (-1.0) ** i, old_logprobs=one.logprobs)
            for example, completions in found
            for i, one in enumerate(completions)
        ]

    def _update(self, rows: list[Row], how: Attention = "auto") -> dict[str, float]:
        """As PolicyModule does it: micro-batches, clip, step; sums over tokens."""
        totals: dict[str, float] = {}
        decoder, head = inner_decoder(self.policy), logit_head(self.policy)
        self.policy.train()
        batches = micro_batches(rows, self.case.tokens)
        for batch in batches:
            micro = batch.to(self.device)
            with self._autocast():
                new = logprobs_of(decoder, head, micro, self.engine.decoder.vocab_size, how)
                loss, stats = loss_of(new, micro, LossSettings())
                loss.backward()
            for name, value in (stats | {"padded": float(micro.tokens)}).items():
                totals[name] = totals.get(name, 0.0) + value
        trained = self.optimizer.param_groups[0]["params"]
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return totals

    def _updates(self, found: list[tuple[Example, list[Any]]]) -> None:
        rows = self._rows(found)
        with self._peak("update"):
            seconds, totals = self.clock.time(lambda: self._update(rows))
        tokens = max(1.0, totals["gap_tokens"])
        self.found |= {
            "update_seconds": seconds,
            "update_tokens_per_second": totals["padded"] / seconds,
            "logprob_gap_mean": totals["gap"] / tokens,
            "logprob_kl": totals["gap_kl"] / tokens,
            "step_seconds": self.found["rollout_seconds"] + seconds,
        }

    def _compare(self, left_out: list[str]) -> None:
        """Others on the same policy, TRL last: its trainer changes the policy."""
        inner_decoder(self.policy).set_attn_implementation("sdpa")
        case, estimate = self.case, self.found["step_seconds"]
        if self.clock.left() < estimate:
            left_out.append(f"{case.base}: generate, TRL")
            return
        ours, _ = self.clock.time(lambda: self._generate(case.compared))
        seconds = self._theirs("generate", lambda: self.clock.time(self._generate_theirs)[0])
        if seconds is not None:
            self.found["generate_ratio"] = seconds / ours
            estimate += seconds * case.completion / case.compared
        if trl_step.version() is None:
            return
        if self.clock.left() < 2 * estimate:
            left_out.append(f"{case.base}: TRL")
            return
        step = trl_step.step_of(case, self.policy, int(self.config.vocab_size), self.clock.now)
        seconds = self._theirs("trl", step)
        if seconds is not None:
            self.found["trl_ratio"] = seconds / self.found["step_seconds"]

    def _theirs(self, name: str, measure: Callable[[], float]) -> float | None:
        """Its seconds: under the cap, or without where it runs out of memory; None where it still does."""
        seconds, capped = _seconds(measure), True
        if seconds is None and self.cuda:
            torch.cuda.set_per_process_memory_fraction(1.0, self.device)
            seconds, capped = _seconds(measure), False
        self.found |= {f"{name}_seconds": seconds, f"{name}_capped": capped}
        return seconds

    def _generate_theirs(self) -> None:
        """transformers' generate on as many rows; no response ends before its limit."""
        case = self.case
        ids = torch.randint(0, self.config.vocab_size, (case.prompts, case.prompt), device=self.device)
        self.policy.eval()
        with torch.no_grad(), self._autocast():
            unwrapped(self.policy).generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=True, use_cache=True,
                num_return_sequences=case.n, max_new_tokens=case.compared,
                min_new_tokens=case.compared, pad_token_id=0, eos_token_id=None,
            )  # fmt: skip


def _seconds(measure: Callable[[], float]) -> float | None:
    """None when there is not enough memory."""
    try:
        return measure()
    except torch.OutOfMemoryError:
        pass  # the traceback, which holds tensors, is gone after this line
    _free()
    return None


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class Silent:
    """Stands in for a tokenizer: nobody reads what random weights write."""

    def decode(self, ids: list[int], **_: Any) -> str:
        return ""

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": list(range(100, 100 + len(text)))}


def shape(base: str) -> Any:
    from transformers import AutoConfig

    tiny = {
        "model_type": "qwen2", "vocab_size": 500, "hidden_size": 64, "intermediate_size": 160,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 512, "tie_word_embeddings": True,
    }  # fmt: skip
    return AutoConfig.for_model(**(tiny if base == "tiny" else KNOWN[base]))
