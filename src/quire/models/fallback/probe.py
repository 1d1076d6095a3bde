"""What a transformers model needs from attention, found by one forward without weights.

Runs the model's own code on the meta device and records how every layer calls, so that no config
key has to be understood. Refuses, by name, what the paged cache cannot serve correctly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedConfig, PreTrainedModel

from quire.errors import UnsupportedModelError
from quire.kv_layout import KVLayout, LayerKV
from quire.models.fallback.hf_model import build_empty
from quire.models.fallback.interface import PROBED, WantedMask, connect, register
from quire.models.fallback.parts import Parts
from quire.models.source import LengthLimit, ModelFacts, ModelSource

_NUM_TOKENS = 3
# Window sizes are searched up to this many tokens, or the model's own length if that is more.
_LONGEST = 1 << 17
# Options of an attention call that change nothing, or that are read here.
_UNDERSTOOD = frozenset(
    {
        *("dropout", "position_ids", "use_cache", "cache_position", "return_dict"),
        *("output_attentions", "output_hidden_states", "output_router_logits", "logits_to_keep"),
        *("scaling", "softcap", "s_aux", "is_causal"),
        "sliding_window",  # the mask says it too, and to every implementation
    }
)
# Rotary types that transformers recomputes for the longest row of a batch -> the config key of the
# length up to which they do not change.
_ROPE_LIMITS = {
    "dynamic": "max_position_embeddings",
    "longrope": "original_max_position_embeddings",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class AttentionCall:
    """How one layer calls attention."""

    num_heads: int
    num_kv_heads: int
    head_dim: int  # of queries and keys; values may be smaller
    scale: float
    window: int | None = None
    soft_cap: float | None = None
    has_sinks: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Probed:
    """What one forward without weights showed of a model."""

    calls: tuple[AttentionCall, ...]  # in the order of a forward
    facts: ModelFacts

    @property
    def kv_layout(self) -> KVLayout:
        return self.facts.kv_layout


def probe(source: ModelSource) -> Probed:
    """Build the model without weights and watch a forward of it."""
    register()
    model = _empty_model(source)
    num_parameters = sum(one.numel() for one in model.parameters())
    num_bytes = weight_bytes(model)
    config = model.config.get_text_config()
    try:
        calls, vocab_size = _watch(model, config)
    except UnsupportedModelError as error:
        raise UnsupportedModelError(_refusal(source, str(error))) from None
    except Exception as error:  # foreign code: whatever it raises is the reason
        raise UnsupportedModelError(_refusal(source, _reason(error))) from error
    facts = ModelFacts(
        kv_layout=KVLayout.of(
            tuple(
                LayerKV(num_kv_heads=call.num_kv_heads, head_dim=call.head_dim, window=call.window)
                for call in calls
            )
        ),
        vocab_size=vocab_size,
        num_parameters=num_parameters,
        weight_bytes=num_bytes,
        num_learned_positions=_num_learned_positions(config),
        length_limit=_length_limit(config),
    )
    return Probed(calls=calls, facts=facts)


def _empty_model(source: ModelSource) -> PreTrainedModel:
    try:
        return build_empty(
            source,
            torch.device("meta"),
            attn_implementation=PROBED,
            experts_implementation="eager",  # its loop over the experts that are hit ends at once
        )
    except UnsupportedModelError:
        raise
    except Exception as error:  # foreign code, as in `probe`
        raise UnsupportedModelError(_refusal(source, _reason(error))) from error


def _watch(
    model: PreTrainedModel, config: PreTrainedConfig
) -> tuple[tuple[AttentionCall, ...], int]:
    """The attention calls of one forward, in order, and the vocabulary size."""
    notes = _Notes()
    connect(model, notes)
    parts = Parts(model)
    with torch.device("meta"), torch.no_grad(), _NoValues():
        tokens = torch.zeros(_NUM_TOKENS, dtype=torch.int64)
        # A given mask keeps transformers from looking for several packed sequences.
        all_seen = torch.ones(1, _NUM_TOKENS)
        hidden = parts.hidden(tokens, tokens, attention_mask=all_seen)
    calls = notes.calls(config.max_position_embeddings if _has_length(config) else 0)
    if len(calls) < config.num_hidden_layers:
        raise UnsupportedModelError(
            f"{len(calls)} of its {config.num_hidden_layers} layers call the attention interface; "
            "the others would not be paged, or keep a state of another kind"
        )
    with torch.device("meta"), torch.no_grad(), _NoValues():
        vocab_size = parts.logits(hidden).shape[-1]
    return calls, vocab_size


def weight_bytes(model: PreTrainedModel) -> int:
    """Bytes of all tensors of ``model``; tied ones count once."""
    return sum(one.nbytes for one in [*model.parameters(), *model.buffers()])


class _Notes:
    """The `Answerer` of a probe: records the calls and returns empty tensors."""

    def __init__(self) -> None:
        self._calls: list[tuple[AttentionCall, WantedMask]] = []

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Any, options: Mapping[str, Any]
    ) -> Tensor:
        _, num_heads, num_tokens, head_dim = query.shape
        _, num_kv_heads, _, value_dim = value.shape
        if num_tokens != _NUM_TOKENS or key.shape[2] != num_tokens:
            raise UnsupportedModelError(
                f"a layer attends with {num_tokens} queries to {key.shape[2]} keys in a forward "
                f"of {_NUM_TOKENS} tokens"
            )
        if value_dim > head_dim or key.shape[1] != num_kv_heads:
            raise UnsupportedModelError(
                f"keys {list(key.shape)} and values {list(value.shape)} cannot share a cache"
            )
        if not isinstance(mask, WantedMask):
            raise UnsupportedModelError(
                "a layer passes an attention mask that transformers' mask functions did not make "
                f"({type(mask).__name__})"
            )
        _check_options(options)
        call = AttentionCall(
            num_heads=num_heads,
            num_kv_heads=num_kv_heads,
            head_dim=head_dim,
            scale=_number("scaling", options.get("scaling")) or head_dim**-0.5,
            soft_cap=_number("softcap", options.get("softcap")),
            has_sinks=_has_sinks(options, num_heads),
        )
        self._calls.append((call, mask))
        return query.new_empty(1, num_tokens, num_heads, value_dim)

    def calls(self, max_model_len: int) -> tuple[AttentionCall, ...]:
        """All calls, each with the sliding window that its mask describes."""
        longest = max(max_model_len, _LONGEST)
        masks = {id(mask): mask for _, mask in self._calls}  # many layers share one
        windows = {key: window_of(mask, longest) for key, mask in masks.items()}
        return tuple(replace(call, window=windows[id(mask)]) for call, mask in self._calls)


def window_of(mask: WantedMask, longest: int) -> int | None:
    """How many tokens a query attends to, itself included; None: all before it."""
    widths = [_width(mask, query) for query in (longest - 1, longest - 2)]
    if widths == [longest, longest - 1]:
        return None
    if widths[0] != widths[1]:
        raise UnsupportedModelError("a layer's attention mask is not a sliding window")
    return widths[0]


def _width(mask: WantedMask, query: int) -> int:
    keys = torch.arange(query + 2)
    zero = torch.tensor(0)
    sees = torch.as_tensor(mask.sees(zero, zero, torch.tensor(query), keys)).expand(len(keys))
    width = int(sees.sum())
    if sees[-1] or not sees[query + 1 - width : query + 1].all():
        raise UnsupportedModelError("a layer's attention is not causal, or has gaps")
    return width


def _check_options(options: Mapping[str, Any]) -> None:
    if options.get("is_causal") is False:
        raise UnsupportedModelError("a layer's attention is not causal")
    strange = [name for name, value in options.items() if value is not None]
    strange = [name for name in strange if name not in _UNDERSTOOD]
    if strange:
        raise UnsupportedModelError(
            f"its attention has {', '.join(strange)}, which paged attention does not support"
        )


def _has_sinks(options: Mapping[str, Any], num_heads: int) -> bool:
    sinks = options.get("s_aux")
    if sinks is None:
        return False
    if not isinstance(sinks, Tensor) or sinks.numel() != num_heads:
        raise UnsupportedModelError("its attention sinks are not one score a head")
    return True


def _number(name: str, value: Any) -> float | None:
    if value is None or isinstance(value, (int, float)):
        return value
    raise UnsupportedModelError(f"its attention's {name} is not a plain number")


class _NoValues(TorchDispatchMode):
    """Lets code that reads values run on the meta device: they are 0, and ``nonzero`` is empty.

    Routers loop over the experts that are hit; here there are none.
    """

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.ops.aten.nonzero.default:
            return args[0].new_empty((0, args[0].ndim), dtype=torch.int64)
        if func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.item.default):
            return 0
        return func(*args, **(kwargs or {}))


def _has_length(config: PreTrainedConfig) -> bool:
    return isinstance(getattr(config, "max_position_embeddings", None), int)


def _num_learned_positions(config: PreTrainedConfig) -> int | None:
    """The length of the position table; None with rotary positions, which are computed."""
    is_rotary = getattr(config, "rope_parameters", None) is not None
    return config.max_position_embeddings if _has_length(config) and not is_rotary else None


def _length_limit(config: PreTrainedConfig) -> LengthLimit | None:
    rope = getattr(config, "rope_parameters", None) or {}
    per_kind = [one for one in rope.values() if isinstance(one, dict)] or [rope]
    for one in per_kind:
        kind = one.get("rope_type")
        if kind in _ROPE_LIMITS:
            key = _ROPE_LIMITS[kind]
            limit = one.get(key) or getattr(config, key, None)
            why = f"in transformers' code, {kind} rotary positions change beyond it for all rows"
            return LengthLimit(num_tokens=limit or config.max_position_embeddings, why=why)
    return None


def _reason(error: Exception) -> str:
    if WantedMask.__name__ in str(error):
        return (
            "its code reads or changes the attention mask (for ALiBi, for example), which is not "
            "built here"
        )
    if isinstance(error, KeyError) and error.args == (PROBED,):
        return "its code has attention classes of its own and does not call that interface"
    return f"its code fails in a trial run ({type(error).__name__}: {error})"


def _refusal(source: ModelSource, reason: str) -> str:
    return f"{source.architecture} cannot run through transformers with paged attention: {reason}"
