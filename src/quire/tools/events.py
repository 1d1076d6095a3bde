"""What a parser of tool calls finds in a model's text, in order."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Content:
    """Text for the user."""

    text: str


@dataclass(frozen=True, slots=True)
class CallBegin:
    """A call of a tool; ``index`` counts the calls of an answer."""

    index: int
    name: str
    id: str | None = None  # the model's own, where its format has one


@dataclass(frozen=True, slots=True)
class CallArguments:
    """A piece of a call's arguments; all pieces together are the JSON text."""

    index: int
    json_fragment: str


@dataclass(frozen=True, slots=True)
class CallEnd:
    """Nothing more comes for this call; it may have been cut off."""

    index: int


Event = Content | CallBegin | CallArguments | CallEnd


class EventList:
    """Events as a grammar makes them; texts that follow each other become one."""

    def __init__(self) -> None:
        self.num_calls = 0
        self._events: list[Event] = []
        self._texts: list[str] = []  # of the event that is still growing
        self._is_content = True

    def content(self, text: str) -> None:
        self._add(text, is_content=True)

    def begin(self, name: str, id: str | None = None) -> None:
        self._close()
        self._events.append(CallBegin(self.num_calls, name, id))
        self.num_calls += 1

    def arguments(self, fragment: str) -> None:
        """Of the call that began last."""
        self._add(fragment, is_content=False)

    def end(self) -> None:
        self._close()
        self._events.append(CallEnd(self.num_calls - 1))

    def whole_call(self, name: str, arguments: str, id: str | None = None) -> None:
        self.begin(name, id)
        self.arguments(arguments)
        self.end()

    def taken(self) -> list[Event]:
        self._close()
        events, self._events = self._events, []
        return events

    def _add(self, text: str, *, is_content: bool) -> None:
        if is_content is not self._is_content:
            self._close()
            self._is_content = is_content
        if text:
            self._texts.append(text)

    def _close(self) -> None:
        if self._texts:
            text = "".join(self._texts)
            last = self.num_calls - 1
            self._events.append(Content(text) if self._is_content else CallArguments(last, text))
            self._texts = []
