"""The specs of a decoder's parts: frozen data on what to build and which tensors it needs.

A spec lists its tensors by canonical name below its own prefix (``parameters``), so that sizes are
known without building anything. Knows nothing about Hugging Face or devices. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from quire.errors import UnsupportedModelError

Shape: TypeAlias = tuple[int, ...]
Shapes: TypeAlias = dict[str, Shape]
Activation: TypeAlias = Literal["silu", "gelu", "gelu_tanh", "gelu_quick", "relu", "relu2"]


def under(prefix: str, shapes: Mapping[str, Shape]) -> Shapes:
    """``shapes`` with every name below ``prefix``."""
    return {f"{prefix}.{name}": shape for name, shape in shapes.items()}


def linear_shapes(name: str, rows: int, columns: int, bias: bool) -> Shapes:
    """The tensors of one linear map from ``columns`` to ``rows`` features."""
    shapes: Shapes = {f"{name}.weight": (rows, columns)}
    if bias:
        shapes[f"{name}.bias"] = (rows,)
    return shapes


def _check_positive(what: str, value: float | None, null: str = "none") -> None:
    """Raise unless ``value`` is a real number above zero (a root may have made it complex).

    ``null``: what null in the config stands for, as the error names it.
    """
    if value is not None and not (isinstance(value, (int, float)) and value > 0):
        raise UnsupportedModelError(
            f"the config has {what} of {value}; it must be a number above 0, or null for {null}"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class RMSNormSpec:
    """x / rms(x) * (weight_offset + weight)."""

    size: int
    eps: float
    weight_offset: float = 0.0  # 1 in Gemma, whose checkpoints store weight - 1

    def parameters(self) -> Shapes:
        return {"weight": (self.size,)}


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerNormSpec:
    """(x - mean(x)) / std(x) * weight + bias; weight and bias may be missing."""

    size: int
    eps: float
    weight: bool = True
    bias: bool = True
    weight_offset: float = 0.0  # 1 in Nemotron, whose checkpoints store weight - 1

    def parameters(self) -> Shapes:
        names = [("weight", self.weight), ("bias", self.bias)]
        return {name: (self.size,) for name, present in names if present}


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadsLayerNormSpec:
    """A layer norm without bias over each head, every head with a weight of its own."""

    num_heads: int
    size: int
    eps: float

    def parameters(self) -> Shapes:
        return {"weight": (self.num_heads, self.size)}


NormSpec: TypeAlias = RMSNormSpec | LayerNormSpec
HeadNormSpec: TypeAlias = NormSpec | HeadsLayerNormSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearScaling:
    """Positions divided by ``factor``."""

    factor: float


@dataclass(frozen=True, kw_only=True, slots=True)
class DynamicScaling:
    """NTK-aware base change, for lengths beyond the trained one only."""

    factor: float
    original_max_positions: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Llama3Scaling:
    """Low frequencies are divided by ``factor``, high ones kept, those between interpolated."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_positions: int


@dataclass(frozen=True, kw_only=True, slots=True)
class YarnScaling:
    """YaRN: interpolation by wavelength, and a temperature that scales cos and sin."""

    factor: float
    original_max_positions: int
    attention_factor: float
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True  # round the ramp's ends to whole dimensions


@dataclass(frozen=True, kw_only=True, slots=True)
class LongRopeScaling:
    """One factor per pair: ``short`` within the trained length, ``long`` beyond it."""

    short: tuple[float, ...]
    long: tuple[float, ...]
    original_max_positions: int
    short_attention_factor: float  # of cos and sin
    long_attention_factor: float


@dataclass(frozen=True, kw_only=True, slots=True)
class QwenScaling:
    """Qwen-1's NTK base: alpha = 2^ceil(log2(length / trained) + 1) - 1, beyond the trained one."""

    original_max_positions: int


RopeScaling: TypeAlias = (
    LinearScaling | DynamicScaling | Llama3Scaling | YarnScaling | LongRopeScaling | QwenScaling
)


RopeStyle: TypeAlias = Literal["half", "interleaved"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RopeSpec:
    """Rotary positions on the first ``dim`` values of every head."""

    dim: int
    theta: float
    style: RopeStyle = "half"  # how values pair up: (i, i + dim/2), (2i, 2i + 1)
    scaling: RopeScaling | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class AlibiSpec:
    """Scores are lowered by slope * distance."""

    slopes: tuple[float, ...]  # one per query head


@dataclass(frozen=True, kw_only=True, slots=True)
class AttentionSpec:
    """Causal self-attention of ``num_heads`` query heads that share ``num_kv_heads`` KV heads."""

    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    scale: float
    positions: RopeSpec | AlibiSpec | None  # None: positions are in the embedding
    qkv_bias: bool = False
    out_bias: bool = False
    # Norms of q and of k, before positions: over each head where the size is that of a head, else
    # over all heads together.
    qk_norms: tuple[HeadNormSpec, HeadNormSpec] | None = None
    clip: float | None = None  # q, k and v are clamped to [-clip, clip]
    window: int | None = None  # tokens visible to a query, itself included
    soft_cap: float | None = None  # scores become cap * tanh(scores / cap)
    sinks: bool = False  # each head has a learned score in the softmax that has no value
    # Queries at position p (from 0) are multiplied by log(p + 1) / log(log_length), if above 1.
    log_length: int | None = None

    def __post_init__(self) -> None:
        if self.num_kv_heads < 1 or self.num_heads % self.num_kv_heads:
            raise UnsupportedModelError(
                f"the config has {self.num_heads} query heads for {self.num_kv_heads} KV heads; "
                "each KV head must serve equally many"
            )
        _check_positive("a scale of scores", self.scale, "the family's own")
        _check_positive("a window of tokens (sliding_window)", self.window)
        _check_positive("a soft cap of scores", self.soft_cap)

    def parameters(self) -> Shapes:
        q_size, kv_size = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        shapes: Shapes = {}
        for name, size in (("q", q_size), ("k", kv_size), ("v", kv_size)):
            shapes |= linear_shapes(name, size, self.hidden_size, self.qkv_bias)
        shapes |= linear_shapes("o", self.hidden_size, q_size, self.out_bias)
        if self.qk_norms is not None:
            for name, norm in zip(("q_norm", "k_norm"), self.qk_norms, strict=True):
                shapes |= under(name, norm.parameters())
        if self.sinks:
            shapes["sinks"] = (self.num_heads,)
        return shapes


@dataclass(frozen=True, kw_only=True, slots=True)
class GatedMLPSpec:
    """down(activation(gate(x)) * up(x))."""

    hidden_size: int
    inner_size: int
    activation: Activation
    bias: bool = False

    def parameters(self) -> Shapes:
        shapes: Shapes = {}
        for name in ("gate", "up"):
            shapes |= linear_shapes(name, self.inner_size, self.hidden_size, self.bias)
        return shapes | linear_shapes("down", self.hidden_size, self.inner_size, self.bias)


@dataclass(frozen=True, kw_only=True, slots=True)
class PlainMLPSpec:
    """down(activation(up(x)))."""

    hidden_size: int
    inner_size: int
    activation: Activation
    bias: bool = True

    def parameters(self) -> Shapes:
        shapes = linear_shapes("up", self.inner_size, self.hidden_size, self.bias)
        return shapes | linear_shapes("down", self.hidden_size, self.inner_size, self.bias)


@dataclass(frozen=True, kw_only=True, slots=True)
class LearnedPositionsSpec:
    """A table of position embeddings; position p has row p + offset."""

    num_positions: int  # rows that a request can use: those from row ``offset`` on
    offset: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbeddingSpec:
    """norm(scale * (up(token's row) + position's row)); most models have only the row."""

    vocab_size: int
    hidden_size: int
    scale: float = 1.0
    positions: LearnedPositionsSpec | None = None
    norm: NormSpec | None = None
    inner_size: int | None = None  # width of the rows, where ``up`` widens them to ``hidden_size``

    def parameters(self) -> Shapes:
        shapes: Shapes = {"weight": (self.vocab_size, self.inner_size or self.hidden_size)}
        if self.inner_size is not None:
            shapes["up.weight"] = (self.hidden_size, self.inner_size)
        if self.positions is not None:
            rows = self.positions.num_positions + self.positions.offset
            shapes["positions.weight"] = (rows, self.hidden_size)
        if self.norm is not None:
            shapes |= under("norm", self.norm.parameters())
        return shapes


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadSpec:
    """Hidden vectors to logits: cap * tanh(scale * (down(x) Wᵀ + bias) / cap)."""

    vocab_size: int
    hidden_size: int
    tied: bool  # the weight is the embedding's
    bias: bool = False
    scale: float = 1.0
    soft_cap: float | None = None
    unit_rows: bool = False  # each row of the weight is divided by its length
    inner_size: int | None = None  # width to which ``down`` reduces hidden vectors before W

    def __post_init__(self) -> None:
        if self.unit_rows and self.tied:
            raise UnsupportedModelError(
                "the config ties the head to the embedding (tie_word_embeddings), and the rows of "
                "this head are divided by their lengths, which those of the embedding are not"
            )
        _check_positive("a soft cap of logits", self.soft_cap)

    def parameters(self) -> Shapes:
        size = self.inner_size or self.hidden_size
        shapes: Shapes = {} if self.tied else {"weight": (self.vocab_size, size)}
        if self.inner_size is not None:
            shapes["down.weight"] = (self.inner_size, self.hidden_size)
        if self.bias:
            shapes["bias"] = (self.vocab_size,)
        return shapes
