"""The command line: finds the subcommand, and turns failures into one line and an exit status.

Imports a subcommand only when it is chosen, so that ``quire --help`` is instant.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from quire import env, log
from quire.cli.commands import COMMANDS, USAGE_ERROR, dispatch
from quire.errors import QuireError
from quire.standard_streams import open_standard_streams

INTERRUPTED = 130  # what shells report for a program that Ctrl-C ended


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the result is the process's exit status."""
    open_standard_streams()
    arguments = list(sys.argv[1:] if argv is None else argv)
    problem = _no_text(arguments)
    if problem is not None:
        print(f"quire: error: {problem}", file=sys.stderr)
        return USAGE_ERROR
    if arguments[:1] == ["serve"]:
        from quire.server.signals import end_at_signals

        end_at_signals(os._exit)  # an exception could get lost among the imports that follow
    try:
        return dispatch("quire", COMMANDS, arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone: `quire generate ... | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (QuireError, ValueError, OSError) as error:
        words = " ".join(str(error).split())
        log.last_words("quire", words, error if env.TRACEBACK.get() else None)
        return 1


def _no_text(arguments: Sequence[str]) -> str | None:
    """An error about the first argument that is not text in the locale's encoding, or None."""
    for position, word in enumerate(arguments, start=1):
        try:
            word.encode()
        except UnicodeEncodeError:
            encoding = sys.getfilesystemencoding().upper()
            remedy = "" if encoding == "UTF-8" else "; set a UTF-8 locale, such as LC_ALL=C.UTF-8"
            return f"argument {position} is not {encoding}: {word!a}{remedy}"
    return None
