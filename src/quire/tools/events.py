"""What a parser of tool calls finds in a model's text, in order."""

from __future__ import annotations

from dataclasses import dataclass

from quire.incremental import Events


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


class CallEvents(Events[Event]):
    """Collects the content and the calls that a grammar of tool calls finds, and numbers the
    calls."""

    def __init__(self) -> None:
        super().__init__()
        self.num_calls = 0

    def content(self, text: str) -> None:
        self.add(Content, text)

    def begin(self, name: str, id: str | None = None) -> None:
        self.put(CallBegin(self.num_calls, name, id))
        self.num_calls += 1

    def arguments(self, fragment: str) -> None:
        """Add a piece of the arguments of the call that began last."""
        self.add(self._arguments, fragment)

    def end(self) -> None:
        self.put(CallEnd(self.num_calls - 1))

    def whole_call(self, name: str, arguments: str) -> None:
        self.begin(name)
        self.arguments(arguments)
        self.end()

    def _arguments(self, text: str) -> Event:
        return CallArguments(self.num_calls - 1, text)
