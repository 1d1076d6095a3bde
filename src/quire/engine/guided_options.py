"""vLLM's oldest way to constrain outputs: ``guided_options_request`` of the methods of `LLM`.

Knows its field names and moves them into the parameters; `structured.py` knows what they mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from quire.engine.front import checked_params
from quire.near_names import did_you_mean
from quire.prompts import is_list, listed
from quire.sampling_params import BeamSearchParams, SamplingParams
from quire.structured import GUIDED_CONSTRAINTS, GUIDED_OPTIONS, GuidedDecodingParams

ARGUMENT = "guided_options_request"
# Field here -> that of `GuidedDecodingParams`.
_KINDS = {
    **GUIDED_CONSTRAINTS,
    "guided_json_object": "json_object",
    "structural_tag": "structural_tag",
}
_FIELDS = {**_KINDS, **GUIDED_OPTIONS}


class LLMGuidedOptions(TypedDict, total=False):
    """``guided_options_request`` as a dict."""

    guided_json: str | dict[str, Any]
    guided_regex: str
    guided_choice: list[str]
    guided_grammar: str
    guided_decoding_backend: str
    guided_whitespace_pattern: str
    guided_json_object: bool


@dataclass
class GuidedDecodingRequest:
    """``guided_options_request`` as an object."""

    guided_json: str | dict[str, Any] | None = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    guided_grammar: str | None = None
    guided_decoding_backend: str | None = None
    guided_whitespace_pattern: str | None = None
    guided_json_object: bool | None = None
    structural_tag: str | dict[str, Any] | None = None

    def __post_init__(self) -> None:
        _guided(self)


AnyParams = SamplingParams | BeamSearchParams
GuidedOptions = GuidedDecodingRequest | LLMGuidedOptions | dict[str, Any]


def with_guided_options(
    params: AnyParams | Sequence[AnyParams],
    options: GuidedOptions | Sequence[GuidedOptions | None],
    num_prompts: int,
) -> AnyParams | Sequence[AnyParams]:
    """The parameters with these constraints. Both are one for all prompts, or a list with one for
    each; ``ValueError`` if options and parameters both constrain the text."""
    params = listed(params)
    if not is_list(options):
        guided = _guided(options)
        if is_list(params):
            return [_constrained(one, guided) for one in params]
        return _constrained(params, guided)
    if len(options) != num_prompts:
        raise ValueError(
            f"{len(options)} values of {ARGUMENT} were given for {num_prompts} prompts; give one "
            "for all, or one each"
        )
    each: Sequence[Any] = params if is_list(params) else [params] * num_prompts
    if len(each) != num_prompts:
        return each  # `LLM` refuses the wrong number of parameters
    return [_constrained(one, _guided(own)) for one, own in zip(each, options, strict=True)]


def _constrained(params: object, guided: GuidedDecodingParams | None) -> AnyParams:
    checked = checked_params(params)
    if guided is None:
        return checked
    own = checked.to_sampling_params() if isinstance(checked, BeamSearchParams) else checked.clone()
    if own.is_constrained:
        name = "structured_outputs" if own.structured_outputs is not None else "guided_decoding"
        raise ValueError(
            f"{ARGUMENT} and {name} of {type(checked).__name__} both constrain the text; keep "
            f"{name}"
        )
    own.guided_decoding = guided
    return own


def _guided(options: object) -> GuidedDecodingParams | None:
    """The options as `GuidedDecodingParams`; None if they ask for nothing."""
    given = vars(options) if isinstance(options, GuidedDecodingRequest) else options
    if given is None:
        return None
    if not isinstance(given, Mapping):
        raise ValueError(
            f"{ARGUMENT} must be a dict or a GuidedDecodingRequest, got {options!r}; write "
            '{"guided_regex": "..."}'
        )
    unknown = [name for name in given if name not in _FIELDS]
    if unknown:
        near = did_you_mean(str(unknown[0]), _FIELDS)
        raise ValueError(
            f"{ARGUMENT} has no field {unknown[0]!r}, it has {', '.join(_FIELDS)}{near}"
        )
    wanted = {
        name: one
        for name, one in given.items()
        if one is not None and (name, one) != ("guided_json_object", False)
    }
    kinds = [name for name in wanted if name in _KINDS]
    if not wanted:
        return None
    if len(kinds) != 1:
        raise ValueError(
            f"{ARGUMENT} must have exactly one of {', '.join(_KINDS)}, got "
            f"{' and '.join(kinds) or 'none'}; keep one of them"
        )
    try:
        return GuidedDecodingParams(**{_FIELDS[name]: value for name, value in wanted.items()})
    except ValueError as error:
        raise ValueError(f"{ARGUMENT}: {error}") from None
