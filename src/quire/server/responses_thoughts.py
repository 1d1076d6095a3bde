"""A thought as ``encrypted_content``, for clients that keep a conversation themselves: they send
this back, and not the text.

It is encoded, not encrypted: anyone who has it can read it, as with the item's text.
"""

from __future__ import annotations

import base64
import contextlib

from quire.server.errors import bad_request
from quire.shown import shown

_MARK = "quire1."  # of this server and of this encoding, base64 of UTF-8


def encoded_thought(text: str) -> str:
    return _MARK + base64.b64encode(text.encode()).decode()


def decoded_thought(encoded: str, place: str) -> str:
    """The thought's text; 400 if it is damaged, or was encoded by another server."""
    why = "it was encoded by another server"
    if encoded.startswith(_MARK):
        why = "it is damaged"
        with contextlib.suppress(ValueError):  # not base64, or not UTF-8
            return base64.b64decode(encoded.removeprefix(_MARK), validate=True).decode()
    raise bad_request(
        f"{place}: {shown(encoded, 40)} cannot be decoded: {why}; leave the item out, or "
        "send the thought's text as its content.",
        place,
    )
