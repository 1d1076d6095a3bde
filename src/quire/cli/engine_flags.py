"""Engine arguments as flags, and the engine that they describe."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from quire import env, log
from quire.args import EngineArgs
from quire.cli.parser import Parser
from quire.cli.settings import add_settings

if TYPE_CHECKING:
    from quire.config import EngineConfig
    from quire.llm import LLM


def add_engine_flags(parser: argparse.ArgumentParser) -> None:
    """Add MODEL as a word, flags for all of `EngineArgs`, and ``--verbose``; let them come from a
    file or the environment too. ``parser`` must be a `Parser`."""
    parser.usage = "%(prog)s [MODEL] [options]"
    parser.add_argument("model_word", nargs="?", metavar="MODEL", help="the same as --model")
    EngineArgs.add_cli_args(parser)
    parser.add_argument("-v", "--verbose", action="store_true", help="log what is being done")
    assert isinstance(parser, Parser)
    add_settings(parser)


def set_up_log(arguments: argparse.Namespace) -> None:
    """Log only warnings, unless the user asks for more: the terminal is for the answer."""
    if not arguments.verbose and env.LOGGING_LEVEL.source() is None:
        logging.getLogger("quire").setLevel(logging.WARNING)
    log.setup()


def settle_model(arguments: argparse.Namespace) -> None:
    """Set ``arguments.model`` to the MODEL word, if there is one; like --model, it wins over file
    and environment. ``ValueError`` for two different models, or a word that is a prompt."""
    word = arguments.model_word
    if word is None:
        return
    if "model" in arguments.flags_given and arguments.model != word:
        raise ValueError(
            f"the model is given twice, as {word!r} and as --model {arguments.model}; leave out one"
        )
    if any(map(str.isspace, word)) and not Path(word).exists():
        raise ValueError(
            f"{word!r} is not a model, which is expected here; give a prompt as --prompt TEXT (of "
            "`quire generate`), and the model as --model MODEL"
        )
    arguments.model = word


def engine_args(arguments: argparse.Namespace) -> EngineArgs:
    """The arguments that the command line gives."""
    settle_model(arguments)
    return EngineArgs.from_cli_args(arguments)


def served_config(engine: EngineArgs, chat_template: str | None) -> Callable[[], EngineConfig]:
    """What makes the configuration of an engine that is served. It raises ``ValueError`` if
    --chat-template names none of the model's templates, before weights are fetched."""
    from quire.chat_template_choice import check_name, load_chat_template
    from quire.model_files import own_chat_template

    template = load_chat_template(chat_template)  # once: the engine may be started again

    def make() -> EngineConfig:
        try:
            check_name(template, lambda: own_chat_template(engine))
        except ValueError as error:
            raise ValueError(f"--chat-template: {error}") from error
        return engine.create_engine_config()

    return make


def open_llm(arguments: argparse.Namespace) -> LLM:
    """The engine that the command line describes."""
    from quire.llm import LLM

    set_up_log(arguments)
    return LLM.from_engine_args(engine_args(arguments))
