"""The dtypes that configs name."""

from __future__ import annotations

import torch

from quire.config import CacheConfig

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "fp8_e4m3": torch.float8_e4m3fn,
    "fp8_e5m2": torch.float8_e5m2,
}


def name_of(dtype: torch.dtype) -> str:
    """As configs name it."""
    return next(name for name, one in DTYPES.items() if one == dtype)


def cache_dtype_of(cache: CacheConfig) -> torch.dtype | None:
    """That of keys and values, if it is not the model's."""
    return None if cache.cache_dtype == "auto" else DTYPES[cache.cache_dtype]
