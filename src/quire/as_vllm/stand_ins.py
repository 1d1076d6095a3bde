"""Small things that programs take from vLLM and that nothing else in Quire needs."""

from __future__ import annotations

import argparse
import enum
import logging
import socket
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quire.as_vllm.config_file import with_config_file
from quire.as_vllm.names import VERSION
from quire.cli.parser import Parser
from quire.platform import default_device, device_info

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__version__ = VERSION
__version_tuple__ = tuple(int(part) for part in VERSION.split("."))

AnyTokenizer = Any  # a type in annotations


class UsageContext(str, enum.Enum):
    """Where an engine is used; Quire tells nobody."""

    UNKNOWN_CONTEXT = "UNKNOWN_CONTEXT"
    LLM_CLASS = "LLM_CLASS"
    API_SERVER = "API_SERVER"
    OPENAI_API_SERVER = "OPENAI_API_SERVER"
    OPENAI_BATCH_RUNNER = "OPENAI_BATCH_RUNNER"
    ENGINE_CONTEXT = "ENGINE_CONTEXT"


class FlexibleArgumentParser(Parser):
    """The parser of Quire's commands, made as `argparse.ArgumentParser` is.

    ``--config FILE`` stands for the flags that a YAML file holds; those that are given win.
    """

    def __init__(
        self,
        prog: str | None = None,
        usage: str | None = None,
        description: str | None = None,
        epilog: str | None = None,
        *,
        add_json_tip: bool = True,  # only of the help
        **options: Any,
    ) -> None:
        super().__init__(
            prog=prog or Path(sys.argv[0]).name,
            description=description,
            **{"usage": usage, "epilog": epilog, "allow_abbrev": True, **options},
        )

    def _takes_object(self, flag: str) -> bool:
        return True  # a program may read the JSON text of its own flags itself

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        words = with_config_file(self, list(sys.argv[1:] if args is None else args))
        return super().parse_known_args(self._normalise(words), namespace)


def random_uuid() -> str:
    """32 hexadecimal digits, for a request id."""
    return uuid.uuid4().hex


class Counter:
    """Whole numbers in their order."""

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


class _Platform:
    """What programs ask about the machine; torch is imported when they do."""

    @property
    def device_type(self) -> str:
        return default_device()

    def is_cuda(self) -> bool:
        return self.device_type == "cuda"

    is_cuda_alike = is_cuda

    def is_cpu(self) -> bool:
        return self.device_type == "cpu"

    def is_rocm(self) -> bool:
        """This and what follows Quire does not run on."""
        return False

    is_tpu = is_xpu = is_rocm

    def get_device_name(self, device_id: int = 0) -> str:
        return device_info(self.device_type).name

    def get_device_total_memory(self, device_id: int = 0) -> int:
        """Bytes."""
        return device_info(self.device_type).memory_bytes


current_platform = _Platform()


def init_logger(name: str) -> logging.Logger:
    return logging.getLogger(name)


def get_tokenizer(
    tokenizer_name: str,
    *,
    tokenizer_mode: str = "auto",
    trust_remote_code: bool = False,
    revision: str | None = None,
    download_dir: str | None = None,
) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or of a hub's model, as an engine would load it."""
    from quire.tokenizer.loading import load_tokenizer
    from quire.weights.hub import resolve_model

    folder = resolve_model(
        tokenizer_name, revision=revision, download_dir=download_dir, what="tokenizer"
    )
    return load_tokenizer(folder, mode=tokenizer_mode, trust_remote_code=trust_remote_code)


def destroy_model_parallel() -> None:
    """Nothing is left behind: an engine frees all it has when it is closed or dropped."""


def destroy_distributed_environment() -> None:
    """Nothing to do, as above."""


def cleanup_dist_env_and_memory(shutdown_ray: bool = False) -> None:
    """Nothing to do, as above."""
