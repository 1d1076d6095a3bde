"""Serve a model over HTTP, with OpenAI's and Anthropic's APIs."""

from __future__ import annotations

import argparse
import dataclasses
import os
from typing import Any

from quire import env, log
from quire.args import EngineArgs, add_flags, add_hidden_flags
from quire.cli.engine_flags import add_engine_flags, engine_args, served_config
from quire.cli.parser import Parser
from quire.compat import translate
from quire.errors import ModelLoadError, QuireError
from quire.server.args import ServerArgs
from quire.server.other_flags import VERDICTS


def add_arguments(parser: Parser) -> None:
    add_flags(parser, ServerArgs)  # first: for an engine, some of these names are merely accepted
    add_hidden_flags(parser, VERDICTS)
    add_engine_flags(parser)


def run(arguments: argparse.Namespace) -> int:
    from quire.resolve import check_alone
    from quire.server.serve import ServerFailed, serve
    from quire.weights.hub import check_model_name

    os.environ[env.LOG_FORMAT.names[0]] = arguments.log_format  # for the engine's process too
    log.setup()
    try:
        args, engine = server_args(arguments), engine_args(arguments)
        _check_names(engine)
        # Checked now; other mistakes are found while the model loads.
        check_alone(engine)
        check_model_name(engine.model)
        serve(args, served_config(engine, args.chat_template))
    except ModelLoadError as error:
        log.last_words("quire serve", str(error))
        return 1
    except ServerFailed as failed:
        cause = failed.__cause__
        is_known = isinstance(cause, (QuireError, ValueError, OSError))
        shows_trace = env.TRACEBACK.get() or not is_known
        log.last_words("quire serve", str(failed), cause if shows_trace else None)
        return 1
    return 0


def _check_names(engine: EngineArgs) -> None:
    names = engine.served_model_name
    if any(not name.strip() for name in ([names] if isinstance(names, str) else names or ())):
        raise ValueError(
            "--served-model-name is empty; give a name, or leave it out to use the model's own"
        )


def server_args(arguments: argparse.Namespace) -> ServerArgs:
    """The server's arguments, with other servers' names translated. Removes them from
    ``arguments``, since some of the names mean something else to an engine."""
    fields = [item.name for item in dataclasses.fields(ServerArgs)]
    named = vars(arguments)
    given: dict[str, Any] = {
        name: named.pop(name) for name in list(named) if name in {*fields, *VERDICTS}
    }
    for name, verdict in VERDICTS.items():
        own = verdict.replacement
        # `translate` refuses a second value, from which it cannot tell a default.
        if own and name in given and given[own] in (_default(own), given[name]):
            given.pop(own)
    return ServerArgs(**translate(given, fields, VERDICTS))


def _default(name: str) -> Any:
    """The value of a `ServerArgs` flag that is not given, as argparse reads it."""
    (item,) = (one for one in dataclasses.fields(ServerArgs) if one.name == name)
    is_text = isinstance(item.default, str)
    return item.metadata["flag"].parse(item.default) if is_text else item.default
