"""The field `logits_processors` of a body: names of code, which only the operator can allow.

Names that a plug-in has registered and import paths are treated alike: both must match
--logits-processor-pattern as a whole.
"""

from __future__ import annotations

import re
from typing import Any

from quire.named_processors import NamedProcessor
from quire.server.args import ServerArgs
from quire.server.errors import bad_request

_FIELD = "logits_processors"


def check_pattern(args: ServerArgs) -> None:
    """``ValueError`` if --logits-processor-pattern is not a regular expression."""
    try:
        re.compile(args.logits_processor_pattern or "")
    except re.error as error:
        raise ValueError(
            f"--logits-processor-pattern {args.logits_processor_pattern!r} is not a regular "
            f"expression: {error}"
        ) from None


def named_processors(wanted: list[Any] | None, args: ServerArgs) -> dict[str, list[Any]]:
    """The argument of `SamplingParams` for the processors that a body wants, {} for none; 400 for
    those that are not allowed."""
    if not wanted:
        return {}
    if args.logits_processor_pattern is None:
        raise bad_request(
            f"{_FIELD} would run code by name, which this server does not allow; start it with "
            "--logits-processor-pattern and a regular expression of the names that may be used.",
            _FIELD,
        )
    try:
        named = [NamedProcessor.parse(one) for one in wanted]
    except ValueError as error:
        raise bad_request(f"{_FIELD}: {error}.", _FIELD) from error
    for one in named:
        if not re.fullmatch(args.logits_processor_pattern, one.qualname):
            raise bad_request(
                f"{_FIELD}: {one.qualname!r} does not match what this server allows, "
                f"{args.logits_processor_pattern!r}; choose another, or leave it out.",
                _FIELD,
            )
    return {_FIELD: list(named)}
