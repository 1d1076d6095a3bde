"""What the routes of one server share: the engine, the model's names, and the server's phase.

Routes get it with `state_of`. Knows nothing about any endpoint.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from quire.server.answer_formats import AnswerFormats
from quire.server.args import ServerArgs
from quire.server.errors import not_found, unavailable
from quire.server.input_phase import InputPhase
from quire.server.peers import Counts, Loading, Peers, Place
from quire.server.request_ids import without_prefix
from quire.server.watch import Watch

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

    from quire.chat_template import ChatRenderer
    from quire.engine.async_engine import AsyncLLM
    from quire.engine.start import StartWatch


_MAX_NAME = 200  # characters of a wrong name that a message quotes


class Phase(enum.Enum):
    """A server's life. It answers from the first moment; only READY generates."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"  # finishes what runs, takes nothing new
    DEAD = "dead"


@dataclass(frozen=True, kw_only=True, slots=True)
class ServedModels:
    """The names under which one model is served; the first is reported."""

    names: tuple[str, ...]
    root: str  # as the user typed it
    max_model_len: int
    created: int  # seconds since the epoch
    max_tokens_limit: int | None = None  # of an answer, by the generation config

    @property
    def reported(self) -> str:
        return self.names[0]

    def check(self, name: str | None) -> None:
        """404 for a name that is not served; None and "" mean the one model."""
        if not name or name in self.names:
            return
        message = (
            f"The model `{name[:_MAX_NAME]}` does not exist. Valid names: {', '.join(self.names)}."
        )
        # A name may be a path, and is served as it was typed.
        raise not_found(message, "model", tells_paths=True)


@dataclass(kw_only=True, slots=True)
class RunningRequest:
    """One HTTP request that generates, as ``/v1/requests`` shows it."""

    request_id: str  # the server's, unique
    client_request_id: str = ""  # the client's, not unique
    endpoint: str
    model: str
    arrival_time: float
    num_prompt_tokens: int = 0
    num_output_tokens: int = 0
    cancel: Callable[[], None]  # the answer has the output so far
    drop: Callable[[], None]  # without waiting for the output so far

    def row(self) -> dict[str, Any]:
        """The request as JSON in ``/v1/requests``."""
        return {
            "id": self.request_id,
            "object": "request",
            "endpoint": self.endpoint,
            "model": self.model,
            "seconds": round(time.time() - self.arrival_time, 3),
            "prompt_tokens": self.num_prompt_tokens,
            "output_tokens": self.num_output_tokens,
        }


@dataclass(slots=True)
class RequestTable:
    """Requests in flight in this process, by id."""

    _counts: Counts = field(default_factory=Counts)
    _by_id: dict[str, RunningRequest] = field(default_factory=dict)

    def add(self, request: RunningRequest) -> None:
        self._by_id[request.request_id] = request
        self._counts.set(len(self._by_id))

    def remove(self, request_id: str) -> None:
        self._by_id.pop(request_id, None)
        self._counts.set(len(self._by_id))

    def get(self, request_id: str) -> RunningRequest | None:
        return self._by_id.get(request_id)

    def named(self, name: str) -> list[str]:
        """The server's ids of the requests with this answer's, server's or client's id."""
        bare = without_prefix(name)
        known = ((one.request_id, one.client_request_id) for one in self)
        return [own for own, client in known if own in (name, bare) or client == name]

    def cancel(self, request_id: str) -> None:
        """End the request with this own id, if it runs here."""
        found = self.get(request_id)
        if found is not None:
            found.cancel()

    def rows(self) -> list[dict[str, Any]]:
        return [request.row() for request in self]

    @property
    def num_everywhere(self) -> int:
        """How many requests are in flight in all processes of the server."""
        return self._counts.total

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[RunningRequest]:
        return iter(list(self._by_id.values()))


@dataclass(kw_only=True, slots=True)
class ServerState:
    """Filled while the server starts; `models`, `engine` and `chat` are there from READY on."""

    args: ServerArgs
    started: float = field(default_factory=time.time)
    phase: Phase = Phase.LOADING
    detail: str = "starting"  # of the phase, for people
    engine: AsyncLLM | None = None
    models: ServedModels | None = None
    chat: ChatRenderer | None = None  # None: no tokenizer
    formats: AnswerFormats = field(default_factory=AnswerFormats)  # of calls and thoughts
    start: StartWatch | None = None  # of the engine's latest start
    ready_seconds: float | None = None  # from the start of the server to its first READY
    phase_seconds: dict[str, float] = field(default_factory=dict)  # of the engine's latest start
    place: Place | None = None  # among several HTTP processes
    listens: bool = True  # False: not until it has loaded; other processes do
    running: RequestTable = field(init=False)
    loading: Loading = field(init=False)
    peers: Peers = field(init=False)
    watch: Watch = field(init=False)  # metrics, logs, traces
    inputs: InputPhase = field(default_factory=lambda: InputPhase("input"))
    # For requests that generate nothing, so that no other one waits behind them.
    counts: InputPhase = field(default_factory=lambda: InputPhase("count"))

    def __post_init__(self) -> None:
        self.running = RequestTable(Counts(self.place))
        self.loading = Loading(self.place)
        self.peers = Peers(self.place, self.running)
        self.watch = Watch(self.args, shares_engine=self.place is not None)
        self.enter(self.phase, self.detail)

    def enter(self, phase: Phase, detail: str) -> None:
        self.phase, self.detail = phase, detail
        self.loading.set(self.listens and phase is Phase.LOADING)

    @property
    def has_lost_engine(self) -> bool:
        """Whether the engine has died, even if `Lifecycle` has not noticed it yet."""
        return self.engine is not None and self.engine.dead_error is not None

    @property
    def is_ready(self) -> bool:
        """Whether all processes are ready, since the next connection may reach any of them."""
        is_up = self.phase is Phase.READY and not self.has_lost_engine
        return is_up and not self.loading.is_anyone

    @property
    def standing(self) -> str:
        """How the server is, for a message that begins "the server is"."""
        if self.has_lost_engine:
            return "without an engine: it has died"
        return f"{self.phase.value}: {self.detail}"

    def require_engine(self) -> AsyncLLM:
        """The engine, or 503 that says why there is none."""
        if self.phase is Phase.READY and self.engine is not None and not self.has_lost_engine:
            return self.engine
        raise unavailable(f"The server is {self.standing}.")

    def require_models(self) -> ServedModels:
        if self.models is None:
            raise unavailable(f"The server is {self.standing}.")
        return self.models


def state_of(connection: HTTPConnection) -> ServerState:
    """The state of the server that a request came to."""
    return cast(ServerState, connection.app.state.quire)
