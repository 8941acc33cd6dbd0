"""A trained policy as files that peft and transformers load by path, and the card that says what it is."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from srl.errors import ConfigError, few
from srl.model.adapters import unwrapped
from srl.model.loading import end_token_ids
from srl.model.sources import name_and_revision

log = logging.getLogger(__name__)
_NEEDS_US = (
    "transformers does not load this base by its name: the code needs the package `srl`. What `python -m srl "
    "export --merge` writes needs neither."
)
_OURS = [
    "import torch", "from srl.model.loading import load_base", "from srl.model.sources import resolve"
]  # fmt: skip


def write_model(policy: Any, tokenizer: Any, folder: Path) -> tuple[int, ...]:
    """The adapter in peft's own form, or the whole model where there is none; the tokenizer beside it.

    Returned, and in generation_config.json: the tokens that ended a response in training, among them that
    with which the chat template ends a turn.
    """
    from transformers import GenerationConfig

    policy.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    ends = end_token_ids(tokenizer, policy)
    own = getattr(unwrapped(policy), "generation_config", None) or GenerationConfig()
    config = GenerationConfig.from_dict({**own.to_dict(), "eos_token_id": list(ends)})
    (folder / "generation_config.json").write_text(config.to_json_string(), encoding="utf-8")
    return ends


def is_tied(policy: Any) -> bool:
    """Whether the head is the embedding."""
    return bool(unwrapped(policy).config.get_text_config().tie_word_embeddings)


def merged(policy: Any) -> Any:
    """The base with the adapter's product added to its weights: a plain transformers model.

    A head that is the embedding, of which the adapter changes one, becomes a matrix of its own, and the
    model's config says so.
    ConfigError: a base in 4 bits, whose weights would be rounded again; load it dequantised.
    """
    from peft import PeftModel

    if not isinstance(policy, PeftModel):
        return policy
    if getattr(policy.get_base_model(), "is_quantized", False):
        raise ConfigError("an adapter cannot be merged into 4-bit weights without rounding them again")
    if untied := _untie(policy):
        log.warning(
            "the base shares the weights of %s with another layer and the adapter changes them in one place: "
            "the exported model has both and tie_word_embeddings: false",
            few(untied),
        )
    return policy.merge_and_unload()


def _untie(policy: Any) -> list[str]:
    """Give each adapted layer weights of its own; the names of those that shared them with another layer.

    Else the product meant for the output head would be added to the embedding as well.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer
    from torch import nn

    base = policy.get_base_model()
    parameters = base.named_parameters(remove_duplicate=False)
    owners = Counter(id(parameter) for _, parameter in parameters)
    untied = []
    for name, layer in base.named_modules():
        if not isinstance(layer, BaseTunerLayer):
            continue
        plain: Any = layer.get_base_layer()
        if getattr(plain, "weight", None) is None:  # fused experts, which share with none
            continue
        if owners[id(plain.weight)] > 1:
            owners[id(plain.weight)] -= 1
            plain.weight = nn.Parameter(plain.weight.detach().clone(), requires_grad=False)
            untied.append(name)
    if untied:
        for config in (base.config, base.config.get_text_config()):
            config.tie_word_embeddings = False
        base.all_tied_weights_keys = {}  # what transformers from 5 on leaves out when it saves
    return untied


@dataclass(frozen=True)
class Card:
    """What the model card says. base: what to load it on. metrics: the run's newest figures.

    ends: the tokens that ended a response. untied: the base's head was its embedding, and here it is not.
    """

    name: str
    method: str
    base: str
    quantization: str
    adapter: bool
    update: int
    data: Mapping[str, str] = field(default_factory=dict)  # file -> digest
    metrics: Mapping[str, float] = field(default_factory=dict)
    run: str | None = None
    commit: str | None = None
    ends: tuple[str, ...] = ()
    untied: bool = False

    def text(self) -> str:
        head = ["---", f"library_name: {'peft' if self.adapter else 'transformers'}"]
        head += [
            f"base_model: {json.dumps(name_and_revision(self.base)[0])}",
            "tags: [srl, lora]" if self.adapter else "tags: [srl]",
        ]
        lines = [*head, "---", "", f"# {self.name}", "", self._what(), "", "## Load", "", *self._load(), ""]
        if self.data:
            lines += ["## Data", "", "| file | sha256 or fingerprint |", "|---|---|"]
            lines += [f"| {Path(name).name} | `{digest}` |" for name, digest in self.data.items()] + [""]
        if self.metrics:
            lines += ["## Figures of the run's last evaluation", "", "| metric | value |", "|---|---|"]
            lines += [f"| {name} | {value:.4f} |" for name, value in sorted(self.metrics.items())] + [""]
        return "\n".join(lines)

    def _what(self) -> str:
        kind = "A LoRA adapter for" if self.adapter else "The merged weights of"
        text = (
            f"{kind} `{self.base}` after {self.update} updates of the method `{self.method}`, trained with "
            "Supervised Reinforcement Learning (arXiv 2510.25992)."
        )
        if self.quantization == "nf4":
            text += " The base was in 4-bit NF4 with double quantisation while it trained"
            text += (
                "; load it so for the same probabilities."
                if self.adapter
                else ("; these weights are the dequantised ones, with the adapter added.")
            )
        if self.untied:
            text += (
                " In the base the output head is the embedding; the adapter changed one of them, so here "
                "each has its own weights (tie_word_embeddings: false)."
            )
        if self.ends:
            text += f" A response ends with {' or '.join(f'`{token}`' for token in self.ends)}, as in "
            text += "generation_config.json."
        if self.run:
            text += f" MLflow run `{self.run}`."
        if self.commit:
            text += f" Code at commit `{self.commit}`."
        return text

    def _load(self) -> list[str]:
        names = ["AutoModelForCausalLM", "AutoTokenizer", *(["GenerationConfig"] if self.adapter else [])]
        ours = self.adapter and (self.base.startswith("package:") or self.base.endswith(".gguf"))
        code = ["```python", f"from transformers import {', '.join(names[ours:])}"]
        if not self.adapter:
            code.append('model = AutoModelForCausalLM.from_pretrained("THIS_FOLDER")')
        else:
            code += ["from peft import PeftModel", *(_OURS if ours else [])]
            code.append(f"base = {_loaded_by_us(self.base) if ours else _loaded(self.base)}")
            code.append('base.generation_config = GenerationConfig.from_pretrained("THIS_FOLDER")')
            code.append('model = PeftModel.from_pretrained(base, "THIS_FOLDER")')
        code += ['tokenizer = AutoTokenizer.from_pretrained("THIS_FOLDER")', "```"]
        return [_NEEDS_US, "", *code] if ours else code


def _loaded_by_us(base: str) -> str:
    return f'load_base(resolve({json.dumps(base)}), quantization="none", device=torch.device("cpu"))'


def _loaded(base: str) -> str:
    """
    >>> _loaded("org/name@v1")
    'AutoModelForCausalLM.from_pretrained("org/name", revision="v1")'
    """
    name, revision = name_and_revision(base)
    given = f"{json.dumps(name)}, revision={json.dumps(revision)}" if revision else json.dumps(name)
    return f"AutoModelForCausalLM.from_pretrained({given})"
