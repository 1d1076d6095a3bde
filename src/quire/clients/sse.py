"""Server-sent events out of pieces of bytes, however they were cut."""

from __future__ import annotations

DONE = b"[DONE]"  # what ends a stream of OpenAI's API
_END = b"\n\n"
_DATA = b"data: "


class EventSplitter:
    """Fed with bytes as they arrive; keeps what is not a whole event yet."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The data of every event that is whole now; comments have none and are left out."""
        text = self._rest + data if self._rest else data
        if b"\r" in text:
            text = text.replace(b"\r\n", b"\n")
        *events, self._rest = text.split(_END)
        return [found for event in events if (found := _data_of(event)) is not None]


def _data_of(event: bytes) -> bytes | None:
    if event.startswith(_DATA) and b"\n" not in event:  # nearly all events
        return event[len(_DATA) :]
    lines = [line for line in event.split(b"\n") if line.startswith(b"data:")]
    if not lines:
        return None
    return b"\n".join(line.removeprefix(b"data:").removeprefix(b" ") for line in lines)
