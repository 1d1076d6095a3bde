"""What a model's generation_config.json means here: default sampling parameters.

Owns which of its keys are applied, and which would change the output but are not. Unsupported keys
of the model's file are reported; in a user's overrides they are an error. A value that cannot be
applied is an error in both.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from quire.compat import unknown_name
from quire.errors import ModelLoadError
from quire.sampling_limits import RULES, Rule
from quire.sampling_params import SamplingParams
from quire.shown import shown

_SAMPLING_PARAM = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "repetition_penalty": "repetition_penalty",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "skip_special_tokens": "skip_special_tokens",
    "max_new_tokens": "max_tokens",
}
_INTEGERS = ("top_k", "max_new_tokens")  # some files have 50.0 for 50
# Key -> the values that change nothing, beside None.
_NOT_HEEDED: dict[str, tuple[Any, ...]] = {
    "typical_p": (1.0,),
    "epsilon_cutoff": (0.0,),
    "eta_cutoff": (0.0,),
    "top_h": (),
    "num_beams": (1,),
    "num_beam_groups": (1,),
    "diversity_penalty": (0.0,),
    "penalty_alpha": (0.0,),
    "guidance_scale": (1.0,),
    "dola_layers": (),
    "constraints": (),
    "force_words_ids": (),
    "encoder_repetition_penalty": (1.0,),
    "no_repeat_ngram_size": (0,),
    "encoder_no_repeat_ngram_size": (0,),
    "exponential_decay_length_penalty": (),
    "sequence_bias": (),
    "bad_words_ids": ([],),
    "suppress_tokens": ([],),
    "begin_suppress_tokens": ([],),
    "forced_bos_token_id": (),
    "forced_eos_token_id": (),
    "min_length": (0,),
    "min_new_tokens": (0,),
    "stop_strings": ([],),
    "num_return_sequences": (1,),
    "max_time": (),
    "watermarking_config": (),
    "token_healing": (False,),
}
# Ignored silently in a model's file, as in other engines: its temperature and max_new_tokens say
# enough, and beam search is what a request says. In a user's overrides they are refused.
_NOT_HEEDED_OF_USERS: dict[str, tuple[Any, ...]] = {
    "do_sample": (True,),
    "max_length": (),
    "length_penalty": (1.0,),
    "early_stopping": (False,),
}
# Read elsewhere, or without effect on the sampled tokens.
_HARMLESS = (
    *("eos_token_id", "bos_token_id", "pad_token_id", "decoder_start_token_id", "use_cache"),
    *("renormalize_logits", "remove_invalid_values", "cache_implementation", "cache_config"),
    *("low_memory", "transformers_version"),
)


def default_sampling_params(config: Mapping[str, Any]) -> SamplingParams:
    """The generation config as `SamplingParams`."""
    return SamplingParams(**{_SAMPLING_PARAM[key]: value for key, value in _given(config).items()})


def max_tokens_limit(config: Mapping[str, Any]) -> int | None:
    """The limit on a served answer's tokens in a generation config that the user gave, or None."""
    if config.get("max_new_tokens") is None:
        return None
    return default_sampling_params(config).max_tokens


def heeded(config: Mapping[str, Any]) -> list[str]:
    """The settings that become default sampling parameters, as "key=value"."""
    return [f"{key}={value!r}" for key, value in _given(config).items()]


def not_heeded(config: Mapping[str, Any]) -> list[str]:
    """The settings that would change the output but are not supported, as "key=value"."""
    return _settings(config, _NOT_HEEDED)


def check_overrides(overrides: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` for an unknown or unsupported setting of the user's, or a bad value."""
    refused = {**_NOT_HEEDED, **_NOT_HEEDED_OF_USERS}
    known = (*_SAMPLING_PARAM, *refused, *_HARMLESS)
    for key in overrides:
        if key not in known:
            raise ValueError(f"override_generation_config: {unknown_name(key, known)}")
    settings = _settings(overrides, refused)
    if settings:
        raise ValueError(
            f"override_generation_config: {', '.join(settings)} would have no effect; the keys "
            f"that have one are {', '.join(_SAMPLING_PARAM)}, eos_token_id"
        )
    for key, value, rule in _unusable(overrides):
        raise ValueError(
            f"override_generation_config: {key} must be {rule.limit}, got {shown(value)}; "
            f"{rule.remedy}"
        )


def check_file(file: Path, config: Mapping[str, Any]) -> None:
    """`ModelLoadError` for a bad value in ``config``, what ``file`` and the overrides say."""
    for key, value, rule in _unusable(config):
        raise ModelLoadError(
            f"{file} has {key} = {shown(value)}, which must be {rule.limit}; correct it, override "
            f"it (--override-generation-config '{json.dumps({key: None})}' for no value), or "
            'ignore the file (--generation-config quire, in Python generation_config="quire")'
        )


def _unusable(config: Mapping[str, Any]) -> Iterator[tuple[str, Any, Rule]]:
    """The keys whose value is no sampling parameter, with that value and its limit."""
    for key, value in _given(config).items():
        rule = RULES[_SAMPLING_PARAM[key]]
        if not rule.accepts(value):
            yield key, value, rule


def _given(config: Mapping[str, Any]) -> dict[str, Any]:
    """The keys with a value that become sampling parameters."""
    given = {key: config[key] for key in _SAMPLING_PARAM if config.get(key) is not None}
    for key in _INTEGERS:
        value = given.get(key)
        if isinstance(value, float) and value.is_integer():
            given[key] = int(value)
    return given


def _settings(config: Mapping[str, Any], neutral: Mapping[str, tuple[Any, ...]]) -> list[str]:
    """The keys in ``neutral`` that are set to anything else, as "key=value"."""
    return [
        f"{key}={shown(config[key])}"
        for key, values in neutral.items()
        if config.get(key) is not None and config[key] not in values
    ]
