"""The answers of the HTTP API as the clients' own types, which are checked strictly here; the
clients themselves check nothing.
"""

from __future__ import annotations

import json
from typing import Any, get_args

from anthropic.types import RawMessageStreamEvent
from openai.types.responses import ResponseStreamEvent
from pydantic import BaseModel


def _by_type(union: Any) -> dict[str, type[BaseModel]]:
    """``{"message_stop": RawMessageStopEvent, ...}`` of an annotated union."""
    kinds = get_args(get_args(union)[0])
    return {get_args(kind.model_fields["type"].annotation)[0]: kind for kind in kinds}


RESPONSE_EVENTS = _by_type(ResponseStreamEvent)
MESSAGE_EVENTS = _by_type(RawMessageStreamEvent)


def checked_events(text: str, kinds: dict[str, type[BaseModel]]) -> list[Any]:
    """The events of a stream as objects; each has the name that its data says."""
    events = []
    for block in filter(None, text.split("\n\n")):
        name, data = block.split("\n")
        content = json.loads(data.removeprefix("data: "))
        assert name == f"event: {content['type']}"
        if content["type"] in kinds:
            events.append(kinds[content["type"]].model_validate(content, strict=True))
        else:
            assert content == {"type": "ping"}  # which the clients leave out
    return events
