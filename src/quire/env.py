"""Environment variables: every one that Quire reads, with its type, default and older names.

A variable is read when it is used, never at import: setting it after ``import quire`` works.
Knows nothing about what the values are used for.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from quire.config import DEFAULT_STEP_TIMEOUT_SECONDS
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


def _log_format(text: str) -> str:
    if text.lower() not in ("text", "json"):
        raise ValueError("expected text or json")
    return text.lower()


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


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < float("inf"):
        raise ValueError("expected a number of seconds, or 0 for no limit")
    return seconds


LOGGING_LEVEL = Variable(
    ("QUIRE_LOGGING_LEVEL", "VLLM_LOGGING_LEVEL"), _log_level, "INFO", "least severe level logged"
)
LOG_FORMAT = Variable(
    ("QUIRE_LOG_FORMAT",),
    _log_format,
    "text",
    "form of log lines: text, or json, one object a line",
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
ATTENTION_BACKEND: Variable[str | None] = Variable(
    ("QUIRE_ATTENTION_BACKEND", "VLLM_ATTENTION_BACKEND"),
    str,
    None,
    "attention backend that attention_backend=auto tries first; where it cannot serve a model, "
    "a warning says why",
)
API_KEY = Variable(
    ("QUIRE_API_KEY", "VLLM_API_KEY"), str, "", "a key that clients of the server must have"
)
NUM_THREADS = Variable(
    ("QUIRE_NUM_THREADS", "OMP_NUM_THREADS"), _num_threads, None, "threads of CPU kernels"
)

STEP_TIMEOUT = Variable(
    ("QUIRE_STEP_TIMEOUT",),
    _seconds,
    DEFAULT_STEP_TIMEOUT_SECONDS,
    "seconds after which a step that hangs is logged; after twice as many the engine ends; 0: off",
)

REGISTRY: tuple[Variable[Any], ...] = (
    LOGGING_LEVEL,
    LOG_FORMAT,
    TRACEBACK,
    USE_MODELSCOPE,
    ALLOW_LONG_MAX_MODEL_LEN,
    CPU_KVCACHE_SPACE,
    ATTENTION_BACKEND,
    API_KEY,
    NUM_THREADS,
    STEP_TIMEOUT,
)
