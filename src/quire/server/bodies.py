"""Request bodies, from bytes to pydantic models, for routes of the class `BodyRoute`.

FastAPI itself would parse and validate on the event loop, however large a body is. Knows no
particular body.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Coroutine
from json.scanner import py_make_scanner  # type: ignore[attr-defined]
from typing import Any, TypeVar

from fastapi import Request
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.responses import Response

from quire.server.error_responses import invalid_body
from quire.server.errors import HTTPError, bad_request
from quire.server.fields import refuse_fields
from quire.server.openapi import GENERATING
from quire.server.state import state_of
from quire.server.tickets import refuse_if_full
from quire.server.time_limit import within_time
from quire.server.unique_keys import RepeatedKey, unique_object
from quire.shown import shown

B = TypeVar("B", bound=BaseModel)
Handler = Callable[[Request], Coroutine[Any, Any, Response]]

# A \\u escape of JSON can spell half of a surrogate pair, which no encoding can.
NOT_TEXT = (
    "A string in the request has half of a surrogate pair (from \\ud800 to \\udfff), which is no "
    "character; send the whole pair, or leave it out."
)
_HIGH, _LOW = r"\\u[dD][89abAB]", r"\\u[dD][c-fC-F]"
# The last alternative: an escaped backslash before letters that only look like a high half.
_MAY_BE_HALF = re.compile(rf"{_HIGH}..(?!{_LOW})|(?<!{_HIGH}..){_LOW}|\\{_HIGH}")
_MANY_FAULTS = 100  # beyond, errors are only counted: describing one costs 100 times its bytes
# Bodies with more values are parsed in Python: the C parser would hold the GIL until it is done.
_MANY_VALUES = 100_000


class _PythonDecoder(json.JSONDecoder):
    """A JSON decoder in Python, which lets other threads run; only strings are read by C."""

    def __init__(self) -> None:
        super().__init__(object_pairs_hook=unique_object)
        self.scan_once = py_make_scanner(self)


_DECODER = json.JSONDecoder(object_pairs_hook=unique_object)


class BodyRoute(APIRoute):
    """A route whose endpoint takes ``body`` and ``request``, or no body at all."""

    def get_route_handler(self) -> Handler:
        if self.body_field is None:
            return super().get_route_handler()
        endpoint = self.endpoint
        model: Any = self.body_field.field_info.annotation
        generates = self.path in GENERATING

        async def handle(request: Request) -> Response:
            if generates:  # before the body is read
                refuse_if_full(state_of(request))
            state = state_of(request)
            inputs = state.inputs if generates else state.counts

            async def read() -> Any:
                data = await request.body()
                return await inputs.do(request, len(data), lambda: read_body(data, model))

            body = await within_time(request, read())
            request.state.body_is_read()
            response: Response = await endpoint(body=body, request=request)
            return response

        return handle


def read_body(data: bytes, model: type[B]) -> B:
    """The body validated as ``model``; 400 if it is invalid."""
    if not data:
        raise bad_request("The request has no body: send a JSON object.")
    content = _content(data)
    if not isinstance(content, dict):
        raise bad_request(f"The body must be a JSON object, got {shown(content)}.")
    try:
        return model.model_validate(content)
    except ValidationError as error:
        if error.error_count() > _MANY_FAULTS:
            raise _unreadable(f"it has {error.error_count()} errors") from None
        refuse_fields(content, model)
        raise invalid_body(error) from error


def _content(data: bytes) -> Any:
    try:
        text = data.decode("utf-8-sig")
        content = _parsed(text)
        if "\\u" in text and _MAY_BE_HALF.search(text):  # the regex takes 30 times as long
            json.dumps(content, ensure_ascii=False).encode()
        return content
    except UnicodeEncodeError:
        raise bad_request(NOT_TEXT) from None
    except UnicodeDecodeError:
        raise _unreadable("it is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise bad_request(f"The body is not valid JSON: {error}.") from None
    except RepeatedKey as error:  # no param: the key may stand in any of the objects
        raise bad_request(f"The body {error}.") from None
    except RecursionError:
        raise _unreadable("its arrays and objects are nested too deeply") from None
    except ValueError:
        raise _unreadable("a number in it has too many digits") from None


def _parsed(text: str) -> Any:
    is_small = sum(text.count(mark) for mark in ",[{") < _MANY_VALUES
    return (_DECODER if is_small else _PythonDecoder()).decode(text)


def _unreadable(why: str) -> HTTPError:
    return bad_request(f"The body cannot be read: {why}.")
