"""Environment variables: Quire's own, with type, default and older names, and others that it reads.

A variable is read when it is used, never at import: setting it after ``import quire`` works.
Knows nothing about what the values are used for, nor about the variables for flags
(`cli/settings.py`).
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from quire.config import DEFAULT_STEP_TIMEOUT_SECONDS
from quire.sizes import parse_bytes

logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Variable(Generic[T]):
    """One setting; the first of ``names`` that is set and not empty wins."""

    names: tuple[str, ...]
    parse: Callable[[str], T]
    default: T
    help: str
    may_be_empty: bool = False  # an empty value is one, too

    def get(self) -> T:
        """The current value; a ``ValueError`` names a variable with a bad value."""
        name = self.source()
        if name is None:
            return self.default
        text = os.environ[name].strip()
        try:
            return self.parse(text)
        except ValueError as error:
            raise ValueError(f"environment variable {name}={text!r}: {error}") from None

    def source(self) -> str | None:
        """The name under which the variable is currently set, or None."""
        return next((name for name in self.names if self._is_set(name)), None)

    def _is_set(self, name: str) -> bool:
        text = os.environ.get(name)
        return text is not None and (self.may_be_empty or bool(text.strip()))


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


def _gib_or_bytes(text: str) -> int | None:
    """A bare number counts GiB, and 0 means the default, as users of this variable's older name
    expect."""
    is_bare = text.replace(".", "", 1).isdecimal()
    return parse_bytes(f"{text}GiB" if is_bare else text) or None


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise ValueError("expected a whole number of at least 1")
    return int(text)


def _num_threads(text: str) -> int:
    """A thread count; of OpenMP's list with one per nesting level, the first."""
    return _count(text.partition(",")[0].strip())


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < float("inf"):
        raise ValueError("expected a number of seconds, or 0 for no limit")
    return seconds


def _whole_seconds(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise ValueError("expected a whole number of seconds, at least 1")
    return int(text)


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
HTTP_TIMEOUT_KEEP_ALIVE = Variable(
    ("QUIRE_HTTP_TIMEOUT_KEEP_ALIVE", "VLLM_HTTP_TIMEOUT_KEEP_ALIVE"),
    _whole_seconds,
    75,  # proxies reuse connections for 60 s, clients for 5 s: they should be first to close
    "seconds for which the server keeps a connection without requests open",
)
MAX_STOP_STRINGS = Variable(
    ("QUIRE_MAX_STOP_STRINGS", "VLLM_MAX_STOP_STRINGS"),
    _count,
    4,
    "stop strings that an HTTP request may have",
)
NUM_THREADS = Variable(
    ("QUIRE_NUM_THREADS", "OMP_NUM_THREADS"), _num_threads, None, "threads of CPU kernels"
)
CPP_KERNELS = Variable(
    ("QUIRE_CPP_KERNELS",),
    _bool,
    True,
    "compile C++ kernels for a CPU, once, with the machine's compiler",
)

VLLM_VERSION = "0.33.0"  # whose interface Quire follows; programs compare it with what they need
AS_VLLM = Variable(
    ("QUIRE_AS_VLLM",),
    str,
    "",
    "set by quire.as_vllm for the processes that its program starts, which inherit what it did",
)
VLLM_PLUGINS = Variable(
    ("VLLM_PLUGINS",),
    _names,
    None,
    "under quire.as_vllm: the names of the plug-ins of vLLM that are loaded, with commas between; "
    "set and empty: none; by default all",
    may_be_empty=True,
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
    HTTP_TIMEOUT_KEEP_ALIVE,
    MAX_STOP_STRINGS,
    NUM_THREADS,
    CPP_KERNELS,
    STEP_TIMEOUT,
    AS_VLLM,
    VLLM_PLUGINS,
)

# Other programs' variables that Quire reads -> what they set; they are read where used.
OF_OTHERS: dict[str, str] = {
    "CXX": "the C++ compiler, for a CPU's kernels",
    "HF_ENDPOINT": "the Hub that models come from",
    "HF_HOME": "the folder above that of HF_HUB_CACHE, and of the stored login",
    "HF_HUB_CACHE": "where models from the Hub are kept, unless download_dir says",
    "HF_HUB_OFFLINE": "download nothing",
    "HF_TOKEN": "the token for the Hub, unless hf_token says",
    "HUGGINGFACE_HUB_CACHE": "older name of HF_HUB_CACHE",
    "MODELSCOPE_API_TOKEN": "the token for ModelScope",
    "MODELSCOPE_CACHE": "where models from ModelScope are kept, unless download_dir says",
    "MODELSCOPE_ENDPOINT": "the ModelScope that models come from",
    "OPENAI_API_KEY": "the key that clients send if neither --api-key nor QUIRE_API_KEY gives one",
    "PROMETHEUS_MULTIPROC_DIR": "the folder where several HTTP processes add their metrics up",
    "TRANSFORMERS_OFFLINE": "download nothing",
    "XDG_CACHE_HOME": "the folder above that of HF_HOME, and of a CPU's kernels once compiled",
}

_OFF = ("0", "false")
_ANY = (*_OFF, "1", "true")
# vLLM's variables without effect here -> (values that ask for what Quire does anyway, why).
WITHOUT_EFFECT: dict[str, tuple[tuple[str, ...], str]] = {
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": (_OFF, "LoRA adapters are not supported yet"),
    "VLLM_BATCH_INVARIANT": (_OFF, "the last bits of a logit may depend on the batch"),
    "VLLM_CACHE_ROOT": ((), "HF_HOME and MODELSCOPE_CACHE say where downloads go"),
    "VLLM_DO_NOT_TRACK": (_ANY, "no usage data is collected or sent"),
    "VLLM_ENGINE_READY_TIMEOUT_S": ((), "an engine may take as long as it needs to start"),
    "VLLM_HOST_IP": ((), "only one node computes yet"),
    "VLLM_NO_USAGE_STATS": (_ANY, "no usage data is collected or sent"),
    "VLLM_PP_LAYER_PARTITION": ((), "only one process computes yet"),
    "VLLM_SERVER_DEV_MODE": (_OFF, "there are no endpoints for development"),
    "VLLM_WORKER_MULTIPROC_METHOD": (("spawn",), "processes are always started anew"),
}
# What Kubernetes sets in every pod for a Service named "vllm"; --port looks at the first itself.
_OF_A_SERVICE = re.compile(r"VLLM_(PORT|PORT_\d+_\w+|SERVICE_\w+)")


def note_what_has_no_effect() -> None:
    """Log a warning for each vLLM variable that is set to something Quire does not do."""
    read = {name for variable in REGISTRY for name in variable.names}
    for name, value in sorted(os.environ.items()):
        text = value.strip()
        if not name.startswith("VLLM_") or not text or name in read:
            continue
        harmless, why = WITHOUT_EFFECT.get(name, ((), "Quire has no setting of this name"))
        if text.lower() not in harmless and not _OF_A_SERVICE.fullmatch(name):
            logger.warning("%s=%s has no effect: %s", name, text, why)
