"""The spec of a mixture of experts: how tokens choose, and what they choose from. Frozen data.

Imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from quire.errors import UnsupportedModelError
from quire.layers.spec import Activation, GatedMLPSpec, Shapes, linear_shapes, under


@dataclass(frozen=True, kw_only=True, slots=True)
class SoftmaxRouting:
    """The best of a softmax over all experts."""

    renormalise: bool  # the chosen experts' weights sum to one


@dataclass(frozen=True, kw_only=True, slots=True)
class SparseMixerRouting:
    """Two experts, each weighted by a softmax over scores near its own (arXiv:2310.00811)."""

    jitter: float  # scores count that are within 2 * jitter of the best, relative to their size


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupedRouting:
    """Experts in groups: the best groups first, then the best experts in them (DeepSeek)."""

    score: Literal["softmax", "sigmoid"]
    num_groups: int
    top_groups: int
    # A group's rank: its best score, or the sum of its best two.
    group_rank: Literal["best", "best_two"]
    renormalise: bool
    scale: float  # multiplies the final weights
    correction: bool  # a learned bias per expert, which affects the choice and not the weights

    def __post_init__(self) -> None:
        if not 1 <= self.top_groups <= self.num_groups:
            raise UnsupportedModelError(
                f"the config chooses {self.top_groups} (topk_group) of {self.num_groups} groups of "
                "experts (n_group); it must be at least one and no more than there are"
            )

    def check_choice(self, top_k: int, num_experts: int) -> None:
        """Raise where ``top_k`` of ``num_experts`` experts cannot be chosen from these groups."""
        group_size, rest = divmod(num_experts, self.num_groups)
        if rest:
            raise UnsupportedModelError(
                f"the config puts {num_experts} experts into {self.num_groups} groups (n_group); "
                "each must have equally many"
            )
        if top_k > self.top_groups * group_size:
            raise UnsupportedModelError(
                f"the config sends each token to {top_k} experts (num_experts_per_tok), but its "
                f"{self.top_groups} groups (topk_group) have {self.top_groups * group_size}; "
                "choose fewer experts or more groups"
            )
        if self.group_rank == "best_two" and group_size < 2 and self.top_groups < self.num_groups:
            raise UnsupportedModelError(
                f"the config ranks {self.num_groups} groups (n_group) by their best two experts, "
                f"and {num_experts} experts (n_routed_experts) are one for each; it must have two "
                "or more for each"
            )


RoutingSpec: TypeAlias = SoftmaxRouting | SparseMixerRouting | GroupedRouting
# How gate and up are joined: activation(gate) * up, or gpt-oss's clamped variant, which is
# min(gate, 7) * sigmoid(1.702 min(gate, 7)) * (clamp(up, -7, 7) + 1).
Gating: TypeAlias = Activation | Literal["swiglu_oss"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SharedExpertSpec:
    """A gated MLP that every token goes through as well; perhaps times sigmoid(gate · x)."""

    mlp: GatedMLPSpec
    gated: bool = False

    def parameters(self) -> Shapes:
        shapes = self.mlp.parameters()
        if self.gated:
            shapes["shared_gate.weight"] = (1, self.mlp.hidden_size)
        return shapes


@dataclass(frozen=True, kw_only=True, slots=True)
class MoESpec:
    """Each token goes through the ``top_k`` gated experts that its routing chooses."""

    hidden_size: int
    inner_size: int
    num_experts: int
    top_k: int
    activation: Gating
    routing: RoutingSpec
    exact_router: bool = False  # the router's product is in float32, whatever the model's dtype
    router_bias: bool = False
    expert_bias: bool = False
    shared: SharedExpertSpec | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.top_k <= self.num_experts:
            raise UnsupportedModelError(
                f"the config sends each token to {self.top_k} of {self.num_experts} experts; it "
                "must be at least one and no more than there are"
            )
        if isinstance(self.routing, GroupedRouting):
            self.routing.check_choice(self.top_k, self.num_experts)

    def parameters(self) -> Shapes:
        experts, inner, hidden = self.num_experts, self.inner_size, self.hidden_size
        shapes = linear_shapes("router", experts, hidden, self.router_bias)
        if isinstance(self.routing, GroupedRouting) and self.routing.correction:
            shapes["router.correction"] = (experts,)
        for name, rows, columns in (
            ("gate", inner, hidden),
            ("up", inner, hidden),
            ("down", hidden, inner),
        ):
            shapes[f"experts.{name}.weight"] = (experts, rows, columns)
            if self.expert_bias:
                shapes[f"experts.{name}.bias"] = (experts, rows)
        if self.shared is not None:
            shapes |= under("shared", self.shared.parameters())
        return shapes
