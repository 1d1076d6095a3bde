"""Servers for tests: the application in this process, and `quire serve` in one of its own."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, cast

import httpx

from quire import EngineArgs
from quire.chat_template import ChatRenderer
from quire.config import EngineConfig
from quire.engine.async_engine import AsyncLLM
from quire.engine.core_loop import ReportPhase
from quire.server.answer_formats import AnswerFormats
from quire.server.app import build_app
from quire.server.args import ServerArgs
from quire.server.peers import Place
from quire.server.state import Phase, ServedModels, ServerState
from quire.step_output import CompletionDelta
from tests.fakes.fake_core import FakeCore

MODEL = "tiny-chat"
QUESTION = "What is the capital of France?"
ANSWER = "The capital of France is Paris."  # of the bundled model
KEY = "sesame"  # of a server that asks for one
NUM_BLOCKS = 257  # of servers for many tests: two requests of full length
_START_LINE = re.compile(r"listening at (http://\S+)")
_READY_LINE = "ready:"
_STOP_TIMEOUT_S = 30


def tiny_engine(**changes: Any) -> AsyncLLM:
    """The bundled model on the CPU, its core in a thread; close it with ``shutdown``."""
    defaults: dict[str, Any] = {"device": "cpu", "dtype": "float32", "use_tqdm_on_load": False}
    args = EngineArgs(**{**defaults, "served_model_name": (MODEL,), **changes})
    return AsyncLLM.from_engine_args(args, multiprocess_mode=False)


def ready_state(engine: AsyncLLM, *, place: Place | None = None, **args: Any) -> ServerState:
    """A server that has loaded ``engine``; with a place, one of its processes."""
    tokenizer = engine.front.tokenizer
    chat = None if tokenizer is None else ChatRenderer(tokenizer)
    server_args = ServerArgs(**args)
    return ServerState(
        args=server_args,
        place=place,
        phase=Phase.READY,
        detail="ready",
        engine=engine,
        models=ServedModels(
            names=(MODEL,),
            root=MODEL,
            max_model_len=engine.model_config.max_model_len,
            created=1,
        ),
        chat=chat,
        formats=AnswerFormats.of(server_args, chat),
    )


class SilentCore(FakeCore):
    """Takes requests and never gets to them, as a core that is full."""

    def step(self) -> list[CompletionDelta]:
        return self.take_ends()


def build_silent_core(config: EngineConfig, report: ReportPhase) -> SilentCore:
    return SilentCore(config)


BUILD_SILENT_CORE = f"{__name__}:{build_silent_core.__name__}"


@contextlib.asynccontextmanager
async def in_process_client(state: ServerState) -> AsyncIterator[httpx.AsyncClient]:
    """A client that calls the application itself; a stream is there as a whole at its end."""
    transport = httpx.ASGITransport(build_app(state), raise_app_exceptions=False)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://localhost", timeout=60
    ) as client:
        yield client


@contextlib.contextmanager
def running_server(args: Sequence[str] = ()) -> Iterator[str]:
    """`quire serve` with the bundled model at a port that is free; its URL, once it is ready."""
    command = [sys.executable, "-m", "quire", "serve", "--port", "0", "--device", "cpu"]
    command += ["--served-model-name", MODEL, *args]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        try:
            yield _url_when_ready(process)
        finally:
            process.terminate()
            try:
                process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


def _url_when_ready(process: subprocess.Popen[str]) -> str:
    output = cast("Iterator[str]", process.stdout)
    url, lines = None, []
    for line in output:
        lines.append(line)
        found = _START_LINE.search(line)
        url = found.group(1) if found else url
        if url is not None and _READY_LINE in line:
            _drain(output)
            return url
    raise AssertionError(f"the server ended before it was ready:\n{''.join(lines)}")


def _drain(output: Iterator[str]) -> None:
    """Read on, or a full pipe would stop the server."""
    threading.Thread(target=lambda: [None for _ in output], daemon=True).start()


def events_of(text: str) -> list[Any]:
    """The events of a stream: JSON as objects, "[DONE]" and comments as text."""
    blocks = [block for block in text.split("\n\n") if block]
    return [_event(block) for block in blocks]


def _event(block: str) -> Any:
    data = block.removeprefix("data: ")
    return json.loads(data) if block != data and data != "[DONE]" else data
