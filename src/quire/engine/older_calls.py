"""The older positional form of `add_request`, with token ids fourth, beside today's.

Knows the two orders of arguments and nothing about requests.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from quire.engine.front import refuse_not_built

P = ParamSpec("P")
R = TypeVar("R")

_NUM_COMMON = 4  # self, request_id, prompt, params
_OLDER_REST = ("prompt_token_ids", "arrival_time", "lora_request", "multi_modal_data")


def takes_older_form(add_request: Callable[P, R]) -> Callable[P, R]:
    """Make `add_request` accept the older order too; today ``arrival_time, lora_request, ...``
    follow the parameters."""

    @functools.wraps(add_request)
    def either_form(*args: Any, **named: Any) -> R:
        refuse_not_built(multi_modal_data=named.pop("multi_modal_data", None))
        common, rest = args[:_NUM_COMMON], args[_NUM_COMMON:]
        if not _is_older(rest, named):
            return add_request(*args, **named)
        if len(rest) > len(_OLDER_REST):
            raise TypeError(
                f"add_request takes {', '.join(_OLDER_REST)} after the parameters in its older "
                f"form, got {len(rest)} arguments there; pass the others by name"
            )
        older = dict(zip(_OLDER_REST, rest, strict=False))
        refuse_not_built(multi_modal_data=older.pop("multi_modal_data", None))
        return add_request(*common, **older, **named)

    return either_form


def _is_older(rest: tuple[Any, ...], named: dict[str, Any]) -> bool:
    """Whether the fourth argument is token ids; if it is None, the other arguments decide."""
    match rest:
        case [None, int() | float(), *_]:
            return True
        case [None, None, *_]:
            return "lora_request" in named
        case [fourth, *_]:
            return fourth is not None and not isinstance(fourth, (int, float))
    return False
