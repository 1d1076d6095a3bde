"""The content of messages in APIs other than chat: text is taken over, all else is refused by name
and place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from quire.server.errors import HTTPError, bad_request
from quire.shown import shown

ChatContent = str | list[dict[str, str]]  # of a chat message


def text_content(content: Any, text_keys: Mapping[str, str], place: str) -> ChatContent:
    """A string or a list of parts; ``text_keys`` says under which key a type of part has its text.

    One part becomes a string, as most templates want it.
    """
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise bad_request(
            f"{place}: must be a string or a list of text parts, got {shown(content)}.", place
        )
    parts = [part_text(part, text_keys, f"{place}[{i}]") for i, part in enumerate(content)]
    return joined(parts)


def joined(texts: list[str]) -> ChatContent:
    """The texts as one content."""
    if len(texts) == 1:
        return texts[0]
    return [{"type": "text", "text": text} for text in texts]


def part_text(part: Any, text_keys: Mapping[str, str], place: str) -> str:
    """The text of one part."""
    kind = kind_of(part, place)
    if kind not in text_keys:
        raise not_served(kind, text_keys, place)
    return string_at(part, text_keys[kind], place)


def kind_of(part: Any, place: str, default: str | None = None) -> str:
    """The type of a part or an item, which must be an object."""
    if not isinstance(part, dict):
        raise bad_request(f"{place}: must be an object with a type, got {shown(part)}.", place)
    kind = part.get("type")
    kind = default if kind is None else kind
    if not isinstance(kind, str):
        raise bad_request(f"{place}.type: must be a string, got {shown(kind)}.", f"{place}.type")
    return kind


def string_at(part: Mapping[str, Any], key: str, place: str) -> str:
    """The string under ``key``; 400 for anything else."""
    value = part.get(key)
    if not isinstance(value, str):
        raise bad_request(f"{place}.{key}: must be a string, got {shown(value)}.", f"{place}.{key}")
    return value


def not_served(kind: str, known: Iterable[str], place: str) -> HTTPError:
    """The error for a type that is unknown or not supported."""
    return bad_request(
        f"{place}: the type {shown(kind)} is not supported; use one of {', '.join(known)}.",
        f"{place}.type",
    )
