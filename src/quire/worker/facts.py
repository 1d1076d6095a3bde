"""What a rank knows once its weights are loaded. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from quire.kv_layout import KVLayout


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerFacts:
    """Facts about one rank, for the engine."""

    kv_layout: KVLayout
    weight_bytes: int
    attention_backend: str
