"""From the files of a model to its tokenizer and its base, frozen in 4 bits or plain.

Weights are read from safetensors or GGUF only. torch and transformers are imported inside the functions, so
that importing this module costs nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from srl.errors import ConfigError, few
from srl.files import file_sha256, fresh_folder
from srl.model.adapters import unwrapped
from srl.model.precision import base_dtype, gpu_has_bfloat16
from srl.model.sources import ModelFiles
from srl.model.turns import turn_end, turn_end_id

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


logger = logging.getLogger(__name__)

Quantization = Literal["nf4", "none", "auto"]


def load_tokenizer(files: ModelFiles, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The model's tokenizer; without a pad token it pads with its end-of-sequence token.

    Padding is masked wherever it is used, so the choice changes no result. `ConfigError` when there is
    neither.
    """
    from transformers import AutoTokenizer

    folder = _converted(files, "tokenizer") if files.gguf_file else files.path_or_id
    with _loading(files, "tokenizer"):
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, **_hub_options(files, trust_remote_code))
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise ConfigError(
                f"model {files.source!r}: its tokenizer has neither a pad nor an end-of-sequence token; "
                "set eos_token in its tokenizer_config.json"
            )
        tokenizer.pad_token = tokenizer.eos_token
        logger.info("model %r: no pad token, padding with %r", files.source, tokenizer.eos_token)
    return tokenizer


def end_token_ids(tokenizer: PreTrainedTokenizerBase, model: nn.Module) -> tuple[int, ...]:
    """Every token that ends a response, ascending: those of tokenizer, generation config and chat template.

    Chat models often list a second one in the generation config only, and a base model that comes with a
    chat template may name its end of a turn nowhere else. What differs from the tokenizer's is said.
    `ConfigError` when there is none.
    """
    generation = getattr(unwrapped(model), "generation_config", None)
    listed: Any = getattr(generation, "eos_token_id", None)
    several = listed if isinstance(listed, (list, tuple)) else [listed]
    own, turn = tokenizer.eos_token_id, turn_end_id(tokenizer)
    ids = sorted({int(token) for token in (own, turn, *several) if token is not None})
    if not ids:
        raise ConfigError("neither the tokenizer nor the generation config names an end-of-sequence token")
    names = " or ".join(map(str, tokenizer.convert_ids_to_tokens(ids)))
    if turn is None and (text := turn_end(tokenizer)):
        logger.warning(
            "The chat template ends a turn with %r, which is no special or added token: a response ends "
            "with %s alone", text.strip()[:40], names,
        )  # fmt: skip
    elif ids != [own]:
        logger.info("A response ends with %s; the tokenizer's end token is %s", names, tokenizer.eos_token)
    return tuple(ids)


def load_base(
    files: ModelFiles,
    *,
    quantization: Quantization,
    device: torch.device,
    dtype: torch.dtype | None = None,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """The base model on `device`, in eval mode, dropout off.

    `nf4`: the linear layers except the output head in 4-bit NF4 with double quantisation (QLoRA,
    arXiv:2305.14314). `auto`: nf4 on CUDA, none on the CPU. `dtype` (of what is not quantised, and of the
    matrix products) defaults to bfloat16 on a CUDA device that has it, else float32; for full training
    without LoRA pass float32.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from srl.model.sums import keep_sums

    if quantization not in ("nf4", "none", "auto"):
        raise ConfigError(f"quantization: expected nf4, none or auto, found {quantization!r}")
    half = device.type == "cuda" and gpu_has_bfloat16()
    dtype = dtype or getattr(torch, base_dtype("auto", mixed=half, lora=True))
    hub = _hub_options(files, trust_remote_code)
    options: dict[str, Any] = dict(hub)
    options.update(dtype=dtype, use_safetensors=True)
    if quantization == "nf4" or (quantization == "auto" and device.type == "cuda"):
        options.update(quantization_config=_nf4(dtype), device_map={"": device})
    folder = _converted(files, "model") if files.gguf_file else files.path_or_id
    with _loading(files, "weights"):
        config: Any = AutoConfig.from_pretrained(folder, **hub)
        config._attn_implementation = None  # whatever its file asks for: sdpa, or eager where it has none
        options.update(config=config, output_loading_info=True)
        loaded: Any = AutoModelForCausalLM.from_pretrained(folder, **options)
    model, report = loaded
    _check_complete(files, report)
    _remove_dropout(model)
    _keep_layout(model)
    keep_sums(model)
    if "device_map" not in options:
        model = model.to(torch.device(device))
    return model.eval()


def _nf4(compute_dtype: torch.dtype) -> Any:
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype,
    )


def _hub_options(files: ModelFiles, trust_remote_code: bool) -> dict[str, Any]:
    options: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    if files.revision:
        options["revision"] = files.revision
    if files.local_only:
        options["local_files_only"] = True
    return options


@contextmanager
def _loading(files: ModelFiles, what: str) -> Iterator[None]:
    """Whatever goes wrong with a model's files becomes one line that names the model."""
    from safetensors import SafetensorError

    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        known = (OSError, ValueError, KeyError, ImportError, SafetensorError)
        if not isinstance(error, known) and type(error) is not Exception:  # tokenizers raises plain Exception
            raise
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise ConfigError(
            f"model {files.source!r}: cannot load its {what} ({lines[0]}); "
            "a model is a .gguf file, or a folder or hub id with config.json, tokenizer and *.safetensors"
        ) from error


def _check_complete(files: ModelFiles, report: Mapping[str, Any]) -> None:
    """transformers fills absent weights with random numbers and a warning; a base must be whole."""
    missing = sorted(report["missing_keys"]) + sorted(key[0] for key in report["mismatched_keys"])
    if missing:
        raise ConfigError(
            f"model {files.source!r}: {len(missing)} weights are absent or misshapen: {few(missing)}"
        )


def _keep_layout(model: nn.Module) -> None:
    """4-bit weights stay as they were made, on CPUs with bf16 units too.

    There bitsandbytes 0.50 would repack them at the first call without gradients, round their scales to bf16
    and compute in bf16: sampling would change the weights that train.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]


def _remove_dropout(model: nn.Module) -> None:
    """A policy must give the same probabilities when it samples (eval) and when it trains.

    Layers keep theirs in modules, in numbers of their own (OPT, StarCoder2), or in the config (Falcon).
    """
    from torch.nn.modules.dropout import _DropoutNd

    for module in model.modules():
        if isinstance(module, _DropoutNd):
            module.p = 0.0
        for holder in (module, getattr(module, "config", None)):
            for name, value in list(vars(holder).items()) if holder is not None else ():
                if "dropout" in name and isinstance(value, float):
                    setattr(holder, name, 0.0)


def _converted(files: ModelFiles, what: Literal["tokenizer", "model"]) -> str:
    """The cache folder with a GGUF file's tokenizer or model in transformers' own format, converted once.

    transformers 5.23 refuses a GGUF file together with NF4, and reads one slowly (SmolLM2-135M on one core:
    24 s for the weights, 10 s for the tokenizer, against 0.2 s each once converted). Weights are stored in
    float32, which is exact. The folder's name holds the file's sha256 and the version of transformers, whose
    conversion it is.
    """
    import transformers

    path = Path(files.path_or_id) / str(files.gguf_file)
    target = converted_folder(files, what)
    if target.is_dir():
        return str(target)
    logger.info("model %r: converting the %s of the GGUF file into %s, once", files.source, what, target)
    with _loading(files, what), fresh_folder(target) as folder:
        if what == "tokenizer":
            tokenizer: Any = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
            tokenizer.save_pretrained(folder)
        else:
            _dequantise(files, path).save_pretrained(folder)
    return str(target)


def converted_folder(files: ModelFiles, what: Literal["tokenizer", "model"]) -> Path:
    """Where a GGUF file's tokenizer or model lies once it is converted."""
    import transformers

    digest = file_sha256(Path(files.path_or_id) / str(files.gguf_file))
    return files.cache_dir / "gguf" / f"{digest}-transformers-{transformers.__version__}" / what


def _dequantise(files: ModelFiles, path: Path) -> PreTrainedModel:
    """The GGUF file's model in float32, as if it had never been quantised.

    Some architectures would otherwise keep their blocks where the `kernels` package is installed, and those
    layers take no adapters; hence `dequantize=True`.
    """
    import torch
    import transformers

    keep_no_blocks = getattr(transformers, "GgufConfig", None)  # older versions never keep them
    loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent,
        gguf_file=path.name,
        dtype=torch.float32,
        quantization_config=keep_no_blocks(dequantize=True) if keep_no_blocks else None,
        output_loading_info=True,
    )
    model, report = loaded
    _check_complete(files, report)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer = None
    model.is_quantized = False
    return model
