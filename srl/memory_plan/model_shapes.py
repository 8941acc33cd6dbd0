"""The shape of a model: from its config.json or GGUF header, or, for the configs shipped, from this table."""

from __future__ import annotations

from typing import Any

from srl.errors import ConfigError, first_line
from srl.model.loading import converted_folder
from srl.model.sources import ModelFiles, resolve

_QWEN = {"model_type": "qwen2", "max_position_embeddings": 32768}
_TIED = {**_QWEN, "vocab_size": 151936, "tie_word_embeddings": True}
_QWEN_0_5B = {
    **_TIED, "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
    "num_attention_heads": 14, "num_key_value_heads": 2,
}  # fmt: skip
_QWEN_1_5B = {
    **_TIED, "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28,
    "num_attention_heads": 12, "num_key_value_heads": 2,
}  # fmt: skip
_QWEN_3B = {
    **_TIED, "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36,
    "num_attention_heads": 16, "num_key_value_heads": 2,
}  # fmt: skip
_QWEN_7B = {
    **_QWEN, "vocab_size": 152064, "tie_word_embeddings": False, "hidden_size": 3584,
    "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4,
}  # fmt: skip

KNOWN: dict[str, dict[str, Any]] = {
    f"Qwen/Qwen2.5-{name}{kind}": shape
    for name, shape in (("0.5B", _QWEN_0_5B), ("1.5B", _QWEN_1_5B), ("3B", _QWEN_3B), ("7B", _QWEN_7B))
    for kind in ("", "-Instruct")
} | {
    "Qwen/Qwen2.5-Coder-7B-Instruct": _QWEN_7B,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": {**_QWEN_1_5B, "tie_word_embeddings": False},
}
"""Shapes of hub models, so that their plan needs no network; from the models' own config.json."""


def widest(text: Any) -> int:
    """The intermediate size of a layer, the largest where layers differ; four hidden sizes where the config
    names none, as GPT-2's.

    >>> from types import SimpleNamespace as Config
    >>> widest(Config(intermediate_size=[8, 16])), widest(Config(hidden_size=5, intermediate_size=None))
    (16, 20)
    """
    found = getattr(text, "intermediate_size", None) or getattr(text, "ffn_dim", None)
    if isinstance(found, list | tuple):
        found = max(found)
    return int(found or 4 * text.hidden_size)


def shape_of(source: str, sha256: str | None = None, trust_remote_code: bool = False) -> Any:
    """What `model.base` names -> its transformers config. ConfigError: see `srl.model.sources.resolve`."""
    known = KNOWN.get(source.partition("@")[0])
    if known is not None:
        from transformers import AutoConfig

        return AutoConfig.for_model(**known)
    return config_of(resolve(source, sha256=sha256), trust_remote_code)


def config_of(files: ModelFiles, trust_remote_code: bool = False) -> Any:
    """The transformers config of a model's files; of a GGUF file by its header alone."""
    from transformers import AutoConfig

    options: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    if files.local_only:
        options["local_files_only"] = True
    if files.revision:
        options["revision"] = files.revision
    folder = files.path_or_id
    if files.gguf_file:
        converted = converted_folder(files, "model")
        if converted.is_dir():  # reading the header of a GGUF file takes seconds
            folder = str(converted)
        else:
            options["gguf_file"] = files.gguf_file
    try:
        return AutoConfig.from_pretrained(folder, **options)
    except (OSError, ValueError, KeyError) as error:
        said = first_line(error)[:200]
        raise ConfigError(f"model {files.source!r}: cannot read its config ({said})") from error
