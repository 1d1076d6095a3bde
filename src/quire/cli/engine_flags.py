"""Engine arguments as flags, and the engine that they describe."""

from __future__ import annotations

import argparse
import logging
from typing import TYPE_CHECKING

from quire import env
from quire.args import EngineArgs

if TYPE_CHECKING:
    from quire.llm import LLM


def add_engine_flags(parser: argparse.ArgumentParser) -> None:
    """All of `EngineArgs`, and ``--verbose``."""
    EngineArgs.add_cli_args(parser)
    parser.add_argument("-v", "--verbose", action="store_true", help="log what is being done")


def quiet_log(arguments: argparse.Namespace) -> None:
    """Only warnings, unless the user wants more: the answer is what a terminal is for."""
    if not arguments.verbose and env.LOGGING_LEVEL.source() is None:
        logging.getLogger("quire").setLevel(logging.WARNING)


def open_llm(arguments: argparse.Namespace) -> LLM:
    """The engine that the command line describes."""
    from quire.llm import LLM

    quiet_log(arguments)
    return LLM.from_engine_args(EngineArgs.from_cli_args(arguments))
