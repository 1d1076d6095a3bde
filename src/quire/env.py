"""Environment variables: every one that Quire reads, with its type, default and older names.

A variable is read when it is used, never at import: setting it after ``import quire`` works.
Knows nothing about what the values are used for.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from quire.sizes import parse_bytes

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Variable(Generic[T]):
    """One setting; the first of ``names`` that is set and not empty wins."""

    names: tuple[str, ...]
    parse: Callable[[str], T]
    default: T
    help: str

    def get(self) -> T:
        """The value now; a ``ValueError`` names the variable that is wrong."""
        for name in self.names:
            text = os.environ.get(name, "").strip()
            if not text:
                continue
            try:
                return self.parse(text)
            except ValueError as error:
                raise ValueError(f"environment variable {name}={text!r}: {error}") from None
        return self.default

    def source(self) -> str | None:
        """The name under which it is set now, if it is."""
        return next((name for name in self.names if os.environ.get(name, "").strip()), None)


def _bool(text: str) -> bool:
    values = {"1": True, "true": True, "yes": True, "on": True}
    values |= {"0": False, "false": False, "no": False, "off": False}
    if text.lower() not in values:
        raise ValueError("expected 1 or 0 (true or false)")
    return values[text.lower()]


def _log_level(text: str) -> str:
    levels = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
    if text.upper() not in levels:
        raise ValueError(f"expected one of {', '.join(levels)}")
    return text.upper()


def _gib_or_bytes(text: str) -> int:
    """A bare number counts GiB, as users of this variable's older name expect."""
    is_bare = text.replace(".", "", 1).isdecimal()
    num_bytes = parse_bytes(f"{text}GiB" if is_bare else text)
    if num_bytes == 0:
        raise ValueError("expected a size above 0; unset the variable for the default")
    return num_bytes


def _num_threads(text: str) -> int:
    """OpenMP lets a list say how many threads each level of nesting gets: the first counts."""
    first = text.partition(",")[0].strip()
    if not first.isdecimal() or int(first) == 0:
        raise ValueError("expected a whole number of at least 1")
    return int(first)


LOGGING_LEVEL = Variable(
    ("QUIRE_LOGGING_LEVEL", "VLLM_LOGGING_LEVEL"), _log_level, "INFO", "least severe level logged"
)
TRACEBACK = Variable(("QUIRE_TRACEBACK",), _bool, False, "show the traceback of a failed command")
USE_MODELSCOPE = Variable(
    ("QUIRE_USE_MODELSCOPE", "VLLM_USE_MODELSCOPE"),
    _bool,
    False,
    "take models from ModelScope instead of the Hugging Face Hub",
)
ALLOW_LONG_MAX_MODEL_LEN = Variable(
    ("QUIRE_ALLOW_LONG_MAX_MODEL_LEN", "VLLM_ALLOW_LONG_MAX_MODEL_LEN"),
    _bool,
    False,
    "let max_model_len exceed what the model's config says",
)
CPU_KVCACHE_SPACE = Variable(
    ("QUIRE_CPU_KVCACHE_SPACE", "VLLM_CPU_KVCACHE_SPACE"),
    _gib_or_bytes,
    None,
    "KV cache size on a CPU: GiB, or with a unit such as 512MiB",
)
NUM_THREADS = Variable(
    ("QUIRE_NUM_THREADS", "OMP_NUM_THREADS"), _num_threads, None, "threads of CPU kernels"
)

REGISTRY: tuple[Variable[Any], ...] = (
    LOGGING_LEVEL,
    TRACEBACK,
    USE_MODELSCOPE,
    ALLOW_LONG_MAX_MODEL_LEN,
    CPU_KVCACHE_SPACE,
    NUM_THREADS,
)
