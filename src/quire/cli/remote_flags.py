"""Flags of the commands that ask a server instead of running a model."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from quire import compat
from quire.args import EngineArgs
from quire.clients.address import DEFAULT_URL, api_key

if TYPE_CHECKING:
    from quire.clients.remote import RemoteModel, RemoteServer

_SHARED = ("model", "served_model_name")  # they have a meaning for a server too


def add_remote_flags(parser: argparse.ArgumentParser, default_url: str | None = None) -> None:
    group = parser.add_argument_group("server")
    says_default = f"; default {default_url}" if default_url else ""
    group.add_argument(
        "--url",
        default=default_url,
        metavar="URL",
        help=f"use the server at URL, such as {DEFAULT_URL}, instead of running a model"
        if default_url is None
        else f"the server{says_default}",
    )
    group.add_argument(
        "--model-name",
        dest="model",
        default=argparse.SUPPRESS,
        metavar="NAME",
        help="the same as --model",
    )
    group.add_argument(
        "--api-key", metavar="KEY", help="of the server; default: QUIRE_API_KEY, or OPENAI_API_KEY"
    )


def refuse_engine_flags(arguments: argparse.Namespace, further: Mapping[str, Any]) -> None:
    """``ValueError`` for engine flags beside ``--url``, which builds no engine; ``further`` are
    more such flags and their defaults."""
    fields = {item.name: item.default for item in dataclasses.fields(EngineArgs)}
    others = {name: verdict.default for name, verdict in compat.VERDICTS.items()}
    defaults = {**others, **fields, **further}
    given = vars(arguments)
    for name, default in defaults.items():
        is_given = name in arguments.flags_given or given.get(name, default) != default
        if name not in _SHARED and is_given:
            what = "answers" if name in further else "an engine"
            raise ValueError(
                f"--{name.replace('_', '-')} configures {what}, but --url uses a server, which has "
                "its own; leave out one of the two"
            )


def refuse_remote_flags(arguments: argparse.Namespace) -> None:
    """``ValueError`` for ``--api-key`` without ``--url``, where it would have no effect."""
    if arguments.url is None and arguments.api_key is not None:
        raise ValueError(
            "--api-key is for a server, and a model that runs here needs no key; name the "
            "server with --url URL, or leave out --api-key"
        )


def refuse_served_name(arguments: argparse.Namespace) -> None:
    """``ValueError`` for ``--served-model-name`` in a command that is not a server."""
    if "served_model_name" in arguments.flags_given:
        raise ValueError(
            "--served-model-name is the name by which clients of `quire serve` ask for the model; "
            "this command has no clients, so leave it out"
        )


def named_model(arguments: argparse.Namespace) -> str | None:
    """The value of ``--model``; None for the engine's default, which a server need not have."""
    return None if arguments.model == EngineArgs.model else arguments.model


def open_remote(arguments: argparse.Namespace) -> tuple[RemoteServer, RemoteModel]:
    """The server of ``--url``, and its model that ``--model`` names, or else its first."""
    from quire.clients.remote import RemoteServer

    server = RemoteServer(arguments.url, api_key(arguments.api_key))
    return server, server.model(named_model(arguments))
