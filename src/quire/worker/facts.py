"""What a rank knows once its weights are in. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from quire.kv_layout import KVLayout


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerFacts:
    """Of one rank."""

    kv_layout: KVLayout
    weight_bytes: int
    attention_backend: str
