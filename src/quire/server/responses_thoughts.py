"""A thought as ``encrypted_content``, for clients that keep a conversation themselves: they send
this back, and not the text.

It is encoded and no more: whoever has it can read it, as can whoever has the item's text.
"""

from __future__ import annotations

import base64
import contextlib

from quire.server.errors import bad_request, shown

_MARK = "quire1."  # of this server and of this encoding, base64 of UTF-8


def encoded_thought(text: str) -> str:
    return _MARK + base64.b64encode(text.encode()).decode()


def decoded_thought(encoded: str, place: str) -> str:
    """400 for what another server has made, or what is damaged."""
    why = "another server has made it"
    if encoded.startswith(_MARK):
        why = "it is damaged"
        with contextlib.suppress(ValueError):  # no base64, or no UTF-8
            return base64.b64decode(encoded.removeprefix(_MARK), validate=True).decode()
    raise bad_request(
        f"{place}: {shown(encoded, 40)} cannot be read here, for {why}; leave the item out, or "
        "send the thought's text as its content.",
        place,
    )
