"""The files of a model folder that are read before its weights: configs, as plain dictionaries.

Finds the folder (local, or from a hub) and reads its JSON. Knows no key's meaning beyond the names
of architectures and dtypes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quire.args import EngineArgs
from quire.compat import QUANTIZATION
from quire.errors import ModelLoadError, UnsupportedModelError
from quire.generation_config import check_file, check_overrides, max_tokens_limit
from quire.sampling_limits import is_int
from quire.shown import shown
from quire.weights.checkpoint_files import choose_weight_files, what_is_not_read
from quire.weights.hub_files import QUANTIZER_FILES

_NO_GENERATION_CONFIG = ("quire", "vllm")  # values of generation_config
_CONFIG_FAILED = "Failed to load the model config."

# Quantization methods that Quire's own code reads as plain values -> the architectures published
# that way.
_READ_AS_PLAIN = {
    "fp8": ("DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM"),
    "mxfp4": ("GptOssForCausalLM",),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFiles:
    """What a model folder says about itself, after the user's overrides."""

    path: Path
    tokenizer: Path
    config: dict[str, Any]  # config.json
    generation_config: dict[str, Any]  # empty if absent or switched off
    max_tokens_limit: int | None  # from generation config keys that the user gave
    tokenizer_config: dict[str, Any]
    architecture: str  # the first supported one that config.json names
    stored_dtype: str  # what config.json or the weights say


def find_model_files(args: EngineArgs, *, with_weights: bool = True) -> ModelFiles:
    """Locate (and download, from a hub) the model's folder and read its configs."""
    from quire.models.modalities import refuse_multi_modal
    from quire.models.overrides import apply_overrides

    with_weights = with_weights and args.load_format != "dummy"
    path = _fetch(args, args.model, args.revision, "weights" if with_weights else "config")
    tokenizer = path
    if _has_own_tokenizer(args) and not args.skip_tokenizer_init:
        name = args.tokenizer or args.model
        tokenizer = _fetch(args, name, args.tokenizer_revision, "tokenizer")
    config = apply_overrides(read_config(path), args.hf_overrides)
    _refuse_quantized(config, path, args.model_impl)
    _check_eos(str(path / "config.json"), config)
    architecture = choose_architecture(config, path)
    refuse_multi_modal(config, architecture)
    generation_config = _generation_config(args, path)
    return ModelFiles(
        path=path,
        tokenizer=tokenizer,
        config=config,
        generation_config=generation_config,
        max_tokens_limit=max_tokens_limit(_given_by_user(args, generation_config)),
        tokenizer_config=read_json(tokenizer / "tokenizer_config.json") or {},
        architecture=architecture,
        stored_dtype=stored_dtype(config, path, args.load_format),
    )


def own_chat_template(args: EngineArgs) -> Any:
    """The ``chat_template`` of the model's tokenizer, a dict if it has several; without weights."""
    from quire.tokenizer.loading import load_tokenizer

    is_own = _has_own_tokenizer(args)
    revision = args.tokenizer_revision if is_own else args.revision
    folder = _fetch(args, args.tokenizer or args.model, revision, "tokenizer")
    tokenizer = load_tokenizer(
        folder, mode=args.tokenizer_mode, trust_remote_code=args.trust_remote_code
    )
    return tokenizer.chat_template


def read_config(path: Path) -> dict[str, Any]:
    """``config.json`` of the folder ``path``."""
    file = path / "config.json"
    try:
        config = read_json(file)
    except ModelLoadError as error:
        raise ModelLoadError(f"{_CONFIG_FAILED} {error}") from None
    if config is None:
        names = sorted(entry.name for entry in path.iterdir())
        other = None if choose_weight_files(names) else what_is_not_read(names)
        raise ModelLoadError(
            f"{_CONFIG_FAILED} {file} does not exist (the folder holds "
            f"{', '.join(names[:8]) or 'nothing'}); "
            f"{other or 'give the folder or hub id of a model in Hugging Face format'}"
        )
    return config


def read_json(file: Path) -> dict[str, Any] | None:
    """The object in ``file``, or None where there is no such file."""
    try:
        if not file.is_file():
            return None
        value = json.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ModelLoadError(
            f"{file} cannot be read ({error.strerror}); make it readable, or give another folder"
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelLoadError(f"{file} is not valid JSON ({error}); download it again") from None
    if not isinstance(value, dict):
        raise ModelLoadError(f"{file} holds no JSON object; download it again")
    return value


def choose_architecture(config: dict[str, Any], path: Path) -> str:
    """The first supported name in ``architectures``, or the first one, to be refused by name."""
    from quire.models.registry import ModelRegistry

    names = config.get("architectures") or []
    if not names:
        raise UnsupportedModelError(_about_no_architecture(config, path))
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UnsupportedModelError(
            f"{path / 'config.json'} has architectures = {names!r}; it must be a list of names, "
            'such as ["LlamaForCausalLM"]'
        )
    supported = set(ModelRegistry.get_supported_archs())
    return next((name for name in names if name in supported), names[0])


def _about_no_architecture(config: dict[str, Any], path: Path) -> str:
    from quire.models.fallback.hf_model import causal_name

    kind = config.get("model_type")
    known = causal_name(kind)
    which = f"that of model_type {kind!r}" if known else "one of those that `quire models` lists,"
    example = json.dumps({"architectures": [known or "LlamaForCausalLM"]})
    file = path / "config.json"
    return f"{file} names no architecture; add {which} with --hf-overrides '{example}'"


def stored_dtype(config: dict[str, Any], path: Path, load_format: str) -> str:
    """The dtype that ``config`` names, else that of the weights to be read, else float32."""
    from quire.weights.checkpoint import open_checkpoint

    named = config.get("dtype") or config.get("torch_dtype")
    if isinstance(named, str):
        return named.removeprefix("torch.")
    names = [entry.name for entry in path.iterdir()]
    if load_format == "dummy" or choose_weight_files(names, load_format) is None:
        return "float32"
    checkpoint = open_checkpoint(path, load_format)
    dtypes = {checkpoint.dtype(name) for name in checkpoint.names()}
    floats = {str(dtype).removeprefix("torch.") for dtype in dtypes if dtype.is_floating_point}
    return "float32" if not floats or "float32" in floats else min(floats)


def _has_own_tokenizer(args: EngineArgs) -> bool:
    """Whether the tokenizer is that of another model, or of another revision of this one."""
    is_elsewhere = bool(args.tokenizer) and args.tokenizer != args.model
    return is_elsewhere or args.tokenizer_revision not in (None, args.revision)


def _fetch(args: EngineArgs, model: str, revision: str | None, what: str) -> Path:
    from quire.weights.hub import resolve_model

    if not isinstance(model, (str, Path)):
        raise ValueError(
            f"a {'tokenizer' if what == 'tokenizer' else 'model'} must be a hub id or a folder, "
            f"got {model!r} ({type(model).__name__})"
        )
    return resolve_model(
        model,
        revision=revision,
        token=_token(args.hf_token),
        download_dir=args.download_dir,
        what=what,
        load_format=args.load_format if args.load_format != "dummy" else "auto",
    )


def _token(given: bool | str | None) -> str | None:
    """The access token; a ValueError for False (`EngineArgs` has replaced True by None)."""
    if isinstance(given, bool):
        raise ValueError(
            f"hf_token={given} must be a token, or True for that of HF_TOKEN or the stored login; "
            "leave it out for the latter, too"
        )
    return given


def _refuse_quantized(config: dict[str, Any], path: Path, model_impl: str) -> None:
    keys = ("quantization_config", "compression_config", "quantization")  # the last: MLX's
    said = [key for key in keys if config.get(key)]
    for key in said:
        method = config[key].get("quant_method") if isinstance(config[key], dict) else None
        what = f"{key} ({method})" if method else key
        readers = _READ_AS_PLAIN.get(str(method), ())
        if not set(readers).intersection(config.get("architectures") or ()):
            raise UnsupportedModelError(f"{path / 'config.json'} has {what}: {QUANTIZATION}")
        if model_impl == "transformers":
            raise UnsupportedModelError(
                f"{path / 'config.json'} has {what}, which model_impl='transformers' cannot read; "
                "use model_impl='auto', with which Quire's own code reads it"
            )
    if not said:
        _refuse_quantizer_files(path)


def _refuse_quantizer_files(path: Path) -> None:
    for name in QUANTIZER_FILES:
        if _is_of_weights(read_json(path / name) or {}):
            raise UnsupportedModelError(
                f"{path} has {name}: {QUANTIZATION}, or delete that file if the weights are not "
                "quantized"
            )


def _is_of_weights(description: dict[str, Any]) -> bool:
    """Whether a quantizer's file is about weights; ModelOpt's may be about the KV cache only."""
    inner = description.get("quantization")
    return bool(inner.get("quant_algo") if isinstance(inner, dict) else description)


def _generation_config(args: EngineArgs, model_path: Path) -> dict[str, Any]:
    overrides = args.override_generation_config or {}
    check_overrides(overrides)
    _check_eos("override_generation_config", overrides)
    if args.generation_config in _NO_GENERATION_CONFIG:
        return dict(overrides)
    is_auto = args.generation_config == "auto"
    folder = model_path if is_auto else Path(args.generation_config).expanduser()
    file = folder / "generation_config.json"
    config = read_json(file)
    if config is None and not is_auto:
        raise ModelLoadError(
            f"generation_config={args.generation_config!r}: there is no "
            f"{file}; give a folder that has one, 'auto' or 'quire'"
        )
    merged = {**(config or {}), **overrides}  # an override may replace a bad value of the file
    _check_eos(str(file), merged)
    check_file(file, merged)
    return merged


def _given_by_user(args: EngineArgs, generation_config: dict[str, Any]) -> dict[str, Any]:
    """The part of the generation config that the user gave: a named folder's, or the overrides."""
    is_named = args.generation_config not in ("auto", *_NO_GENERATION_CONFIG)
    return generation_config if is_named else args.override_generation_config or {}


def _check_eos(source: str, config: Mapping[str, Any]) -> None:
    """ModelLoadError if eos_token_id holds anything but token ids; ``source`` names the file."""
    stated = config.get("eos_token_id")
    for token_id in stated if isinstance(stated, list) else [stated]:
        if token_id is not None and not is_int(token_id):
            raise ModelLoadError(
                f"{source} has eos_token_id = {shown(stated)}; it must be a token id, a whole "
                "number, or a list of them"
            )
