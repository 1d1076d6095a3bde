"""The spec of multi-head latent attention. Frozen data. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from quire.layers.spec import RMSNormSpec, RopeSpec, Shapes, linear_shapes, under


@dataclass(frozen=True, kw_only=True, slots=True)
class MLASpec:
    """Attention over one latent vector per token (DeepSeek-V2, arXiv:2405.04434, section 2.1).

    The cache holds, per token, the normed latent (``kv_rank``) and one rotated key part
    (``rope_dim``) that all heads share: to the cache it is one KV head of both sizes together.
    """

    hidden_size: int
    num_heads: int
    nope_dim: int  # values of a query or key without positions
    rope_dim: int
    value_dim: int
    kv_rank: int
    q_rank: int | None  # None: queries straight from the hidden state
    eps: float
    scale: float
    positions: RopeSpec
    bias: bool = False  # of the two products that make latents, and of the output product

    @property
    def num_kv_heads(self) -> int:
        return 1

    @property
    def head_dim(self) -> int:
        return self.kv_rank + self.rope_dim

    @property
    def window(self) -> None:
        return None

    @property
    def latent_norm(self) -> RMSNormSpec:
        return RMSNormSpec(size=self.kv_rank, eps=self.eps)

    @property
    def query_norm(self) -> RMSNormSpec | None:
        return None if self.q_rank is None else RMSNormSpec(size=self.q_rank, eps=self.eps)

    def parameters(self) -> Shapes:
        hidden, heads = self.hidden_size, self.num_heads
        q_rows = heads * (self.nope_dim + self.rope_dim)
        shapes: Shapes = {}
        if self.query_norm is None or self.q_rank is None:
            shapes |= linear_shapes("q", q_rows, hidden, False)
        else:
            shapes |= linear_shapes("q_down", self.q_rank, hidden, self.bias)
            shapes |= under("q_norm", self.query_norm.parameters())
            shapes |= linear_shapes("q_up", q_rows, self.q_rank, False)
        shapes |= linear_shapes("kv_down", self.kv_rank + self.rope_dim, hidden, self.bias)
        shapes |= under("kv_norm", self.latent_norm.parameters())
        kv_rows = heads * (self.nope_dim + self.value_dim)
        shapes |= linear_shapes("kv_up", kv_rows, self.kv_rank, False)
        return shapes | linear_shapes("o", hidden, heads * self.value_dim, self.bias)
