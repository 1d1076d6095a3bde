"""Small things that programs take from vLLM and that nothing else in Quire needs."""

from __future__ import annotations

import argparse
import enum
import logging
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quire.as_vllm.names import VERSION
from quire.cli.parser import Parser

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
    """The parser of Quire's commands, made as `argparse.ArgumentParser` is."""

    def __init__(
        self, prog: str | None = None, description: str | None = None, **options: Any
    ) -> None:
        super().__init__(prog=prog or Path(sys.argv[0]).name, description=description)
        self.usage = options.pop("usage", None)
        self.epilog = options.pop("epilog", None)
        for name, value in options.items():
            setattr(self, name, value)

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        return super().parse_args(
            self._normalise(sys.argv[1:] if args is None else args), namespace
        )


def random_uuid() -> str:
    """32 hexadecimal digits, for a request id."""
    return uuid.uuid4().hex


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
