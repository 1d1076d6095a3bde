"""ModelPlan: an architecture's reading of a config: the decoder's spec and its weight map."""

from __future__ import annotations

from dataclasses import dataclass

from quire.layers.spec import Shapes
from quire.models.spec import DecoderSpec
from quire.weights.weight_map import WeightMap


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelPlan:
    """A model before any weight is read."""

    spec: DecoderSpec
    weights: WeightMap

    def parameter_shapes(self) -> Shapes:
        """Canonical name -> shape of every tensor that the model reads."""
        return self.spec.parameters()
