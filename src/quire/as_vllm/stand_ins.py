"""Small things that programs take from vLLM and that nothing else in Quire needs."""

from __future__ import annotations

import argparse
import enum
import logging
import random
import socket
import sys
import uuid
from collections.abc import Hashable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from quire import log
from quire.as_vllm.config_file import with_config_file
from quire.as_vllm.names import PACKAGE, VERSION
from quire.cli.parser import Parser
from quire.near_names import did_you_mean
from quire.platform import cpu_info, default_device

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__version__ = VERSION
__version_tuple__ = tuple(int(part) for part in VERSION.split("."))

AnyTokenizer = Any  # a type in annotations


class UsageContext(str, enum.Enum):
    """Where an engine is used; Quire reports it to nobody."""

    UNKNOWN_CONTEXT = "UNKNOWN_CONTEXT"
    LLM_CLASS = "LLM_CLASS"
    API_SERVER = "API_SERVER"
    OPENAI_API_SERVER = "OPENAI_API_SERVER"
    OPENAI_BATCH_RUNNER = "OPENAI_BATCH_RUNNER"
    ENGINE_CONTEXT = "ENGINE_CONTEXT"


class _Container(argparse._ActionsContainer):
    """Takes ``deprecated=True`` for a flag, and so do the groups in it."""

    _deprecated: set[str]  # flags; one set for a parser and its groups

    def add_argument(
        self, *names: str, deprecated: bool = False, **options: Any
    ) -> argparse.Action:
        action = super().add_argument(*names, **options)
        if deprecated:
            self._deprecated.update(action.option_strings)
        return action

    def add_mutually_exclusive_group(self, **options: Any) -> argparse._MutuallyExclusiveGroup:
        group = _ExclusiveGroup(self, **options)
        self._mutually_exclusive_groups.append(group)
        return group


class _Group(_Container, argparse._ArgumentGroup):
    """An argument group of `FlexibleArgumentParser`."""

    def __init__(self, container: _Container, *titles: Any, **options: Any) -> None:
        super().__init__(container, *titles, **options)
        self._deprecated = container._deprecated


class _ExclusiveGroup(_Group, argparse._MutuallyExclusiveGroup):
    """Flags of which one may be given."""


class FlexibleArgumentParser(_Container, Parser):
    """The parser of Quire's commands, made as `argparse.ArgumentParser` is.

    ``--config FILE`` stands for the flags that a YAML file holds; those that are given win.
    ``add_argument(..., deprecated=True)`` is that of Python 3.13, for flags.
    """

    def __init__(
        self,
        prog: str | None = None,
        usage: str | None = None,
        description: str | None = None,
        epilog: str | None = None,
        *,
        add_json_tip: bool = True,  # affects only vLLM's help text
        **options: Any,
    ) -> None:
        self._deprecated: set[str] = set()
        super().__init__(
            prog=prog or Path(sys.argv[0]).name,
            description=description,
            **{"usage": usage, "epilog": epilog, "allow_abbrev": True, **options},
        )

    def add_argument_group(self, *titles: Any, **options: Any) -> argparse._ArgumentGroup:
        group = _Group(self, *titles, **options)
        self._action_groups.append(group)
        return group

    def _takes_object(self, flag: str) -> bool:
        return True  # a program may read the JSON text of its own flags itself

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        given = with_config_file(self, list(sys.argv[1:] if args is None else args))
        words = self._normalise(given)
        flags = words[: words.index("--")] if "--" in words else words
        for flag in dict.fromkeys(word.partition("=")[0] for word in flags):
            if flag in self._deprecated:
                print(f"{self.prog}: warning: option {flag!r} is deprecated", file=sys.stderr)
        return super().parse_known_args(words, namespace)


def random_uuid() -> str:
    """32 hexadecimal digits, for a request id."""
    return uuid.uuid4().hex


class Counter:
    """Counts up: each `next` returns the next integer."""

    def __init__(self, start: int = 0) -> None:
        self.counter = start

    def __next__(self) -> int:
        self.counter += 1
        return self.counter - 1

    def reset(self) -> None:
        self.counter = 0


def get_open_port() -> int:
    """A port of TCP that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        port: int = probe.getsockname()[1]
        return port


class DeviceCapability(NamedTuple):
    """The generation of a GPU's instructions, such as (9, 0) for Hopper."""

    major: int
    minor: int

    def as_version_str(self) -> str:
        return f"{self.major}.{self.minor}"

    def to_int(self) -> int:
        """90 for (9, 0)."""
        return self.major * 10 + self.minor


class _Platform:
    """What programs ask about the machine; torch is imported when they do."""

    @property
    def device_type(self) -> str:
        return default_device()

    device_name = device_type

    @property
    def dispatch_key(self) -> str:
        return self.device_type.upper()

    @property
    def dist_backend(self) -> str:
        return "nccl" if self.is_cuda() else "gloo"

    @property
    def device_control_env_var(self) -> str:
        return "CUDA_VISIBLE_DEVICES" if self.is_cuda() else "CPU_VISIBLE_MEMORY_NODES"

    def is_cuda(self) -> bool:
        return self.device_type == "cuda"

    is_cuda_alike = is_cuda

    def is_cpu(self) -> bool:
        return self.device_type == "cpu"

    def is_rocm(self) -> bool:
        """False, as for the platforms below: Quire does not run on them."""
        return False

    is_tpu = is_xpu = is_out_of_tree = is_unspecified = is_rocm

    def get_device_capability(self, device_id: int = 0) -> DeviceCapability | None:
        """The GPU's capability; None on a CPU."""
        if not self.is_cuda():
            return None
        gpu = _gpu(device_id)
        return DeviceCapability(gpu.major, gpu.minor)

    def has_device_capability(self, capability: tuple[int, int] | int, device_id: int = 0) -> bool:
        """Whether the GPU has at least this capability, as (9, 0) or 90; False on a CPU."""
        found = self.get_device_capability(device_id)
        if isinstance(capability, int):
            capability = DeviceCapability(*divmod(capability, 10))
        return found is not None and found >= capability

    def is_device_capability(self, capability: tuple[int, int] | int, device_id: int = 0) -> bool:
        """Whether the GPU has exactly this capability, as (9, 0) or 90; False on a CPU."""
        found = self.get_device_capability(device_id)
        return found is not None and capability in (found, found.to_int())

    def get_device_name(self, device_id: int = 0) -> str:
        return str(_gpu(device_id).name) if self.is_cuda() else cpu_info().name

    def get_device_total_memory(self, device_id: int = 0) -> int:
        """The memory of the GPU, or of the machine on a CPU, in bytes."""
        return int(_gpu(device_id).total_memory) if self.is_cuda() else cpu_info().memory_bytes

    def seed_everything(self, seed: int | None = None) -> None:
        """Seed the generators of Python, NumPy and torch; None leaves them."""
        if seed is None:
            return
        import numpy
        import torch

        random.seed(seed)
        numpy.random.seed(seed)
        torch.manual_seed(seed)

    def empty_cache(self) -> None:
        """Free the GPU memory that torch caches; does nothing on a CPU."""
        import torch

        torch.cuda.empty_cache()

    def __getattr__(self, name: str) -> Any:
        """What `torch.cuda` or `torch.cpu` has by this name, such as ``synchronize``."""
        import torch

        of_torch = getattr(torch, self.device_type)
        if name.startswith("_") or not hasattr(of_torch, name):
            near = did_you_mean(name, dir(self))
            raise AttributeError(f"Quire's current_platform has no {name}{near}; ask torch for it")
        return getattr(of_torch, name)


def _gpu(device_id: int) -> Any:
    import torch

    return torch.cuda.get_device_properties(device_id)


current_platform = _Platform()


def init_logger(name: str) -> logging.Logger:
    """The logger of this name, with ``debug_once``, ``info_once`` and ``warning_once``. Loggers
    below ``vllm`` write where Quire's own records go."""
    logger = logging.getLogger(name)
    for level in ("debug", "info", "warning"):
        setattr(logger, f"{level}_once", partial(_log_once, logger, level))
    if name.partition(".")[0] == PACKAGE:
        _log_as_quire_does(logging.getLogger(PACKAGE))
    return logger


def _log_once(
    logger: logging.Logger,
    level: str,
    message: str,
    *values: Hashable,
    scope: str = "process",  # ignored: each process logs for itself
) -> None:
    _log_first(logger, level, message, *values)


@cache
def _log_first(logger: logging.Logger, level: str, message: str, *values: Hashable) -> None:
    getattr(logger, level)(message, *values, stacklevel=3)


def _log_as_quire_does(logger: logging.Logger) -> None:
    log.setup()
    ours = logging.getLogger("quire")
    if logger.level == logging.NOTSET:
        logger.setLevel(ours.level)
    if not logger.handlers:
        for handler in ours.handlers:  # none where the program has handlers of its own
            logger.addHandler(handler)
            logger.propagate = False


def get_tokenizer(
    tokenizer_name: str,
    *,
    tokenizer_mode: str = "auto",
    trust_remote_code: bool = False,
    revision: str | None = None,
    download_dir: str | None = None,
    **options: Any,
) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or of a hub's model, as an engine would load it. ``options`` become
    attributes of it, such as ``truncation_side``; a TypeError names one that it does not have."""
    from quire.tokenizer.loading import load_tokenizer
    from quire.weights.hub import resolve_model

    folder = resolve_model(
        tokenizer_name, revision=revision, download_dir=download_dir, what="tokenizer"
    )
    tokenizer = load_tokenizer(folder, mode=tokenizer_mode, trust_remote_code=trust_remote_code)
    for name, value in options.items():
        if not hasattr(tokenizer, name):
            raise TypeError(
                f"get_tokenizer: {type(tokenizer).__name__} has no option {name!r}; leave it out, "
                "or load the tokenizer with AutoTokenizer.from_pretrained of transformers"
            )
        setattr(tokenizer, name, value)
    return tokenizer


def resolve_chat_template(
    tokenizer: PreTrainedTokenizerBase,
    chat_template: str | None = None,
    tools: list[dict[str, Any]] | None = None,
    *,
    model_config: object = None,  # these two say only whether code may run; there is none
    trust_remote_code: object = None,
) -> str | None:
    """The chat template that is given, or by a name or by default the tokenizer's; None if it has
    none."""
    try:
        return tokenizer.get_chat_template(chat_template, tools)
    except ValueError:
        return None


def destroy_model_parallel() -> None:
    """Nothing to do: an engine frees all it holds when it is closed or dropped."""


def destroy_distributed_environment() -> None:
    """Nothing to do: an engine frees all it holds when it is closed or dropped."""


def cleanup_dist_env_and_memory(shutdown_ray: bool = False) -> None:
    """Nothing to do: an engine frees all it holds when it is closed or dropped."""
