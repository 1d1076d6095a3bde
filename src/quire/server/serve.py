"""`quire serve` from the socket up: listens at once, loads behind it, drains on SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import ssl
from collections.abc import Callable, Iterator

import uvicorn

from quire import log
from quire.config import EngineConfig
from quire.engine.async_engine import AsyncLLM
from quire.engine.process import ProcessClient
from quire.engine.start import StartWatch
from quire.engine.thread import ThreadClient
from quire.server.answer_formats import check_formats
from quire.server.app import build_app, layers
from quire.server.args import ServerArgs
from quire.server.http_parser import HttpProtocol
from quire.server.lifecycle import Lifecycle, OpenEngine, RestartLimit
from quire.server.listening import (
    address_of,
    check_tls,
    listening_socket,
    oldest_is_tls_1_2,
    remove_unix_socket,
)
from quire.server.logits_processors import check_pattern
from quire.server.peers import Place
from quire.server.state import ServerState

logger = logging.getLogger(__name__)

_LAST_ANSWERS_S = 5  # for connections to close once their requests have ended
_SIGNALS = (signal.SIGINT, signal.SIGTERM)

MakeConfig = Callable[[], EngineConfig]  # may look at the model's files, and download them


class ServerFailed(Exception):
    """The server had to end; its cause is why."""


def serve(args: ServerArgs, make_config: MakeConfig) -> None:
    """Serve until a signal; `ServerFailed` when the engine does not start, or has died."""
    check(args)
    with contextlib.closing(listening_socket(args)) as listener:
        logger.info("listening at %s", address_of(listener, args))
        try:
            if args.api_server_count > 1:
                from quire.server.supervisor import supervise

                failure = supervise(args, listener, make_config)
            else:
                failure = _serve_alone(args, listener, make_config)
        finally:
            remove_unix_socket(args)
    if failure is not None:
        raise ServerFailed(str(failure) or type(failure).__name__) from failure


def check(args: ServerArgs) -> None:
    """``ValueError`` for arguments that cannot work, before anything is started."""
    check_tls(args)
    if args.api_server_count < 1:
        raise ValueError(f"--api-server-count {args.api_server_count}: give at least 1")
    if args.api_server_count > 1 and args.disable_frontend_multiprocessing:
        raise ValueError(
            "--disable-frontend-multiprocessing is for one process; leave out --api-server-count"
        )
    check_pattern(args)
    check_formats(args)
    layers(args)  # keys, middleware, sizes


def _serve_alone(
    args: ServerArgs, listener: socket.socket, make_config: MakeConfig
) -> BaseException | None:
    def open_engine(watch: StartWatch) -> AsyncLLM:
        watch.enter("configuration")
        make_client = ThreadClient if args.disable_frontend_multiprocessing else ProcessClient
        config = make_config()
        watch.enter("tokenizer")
        return AsyncLLM(config, open_client=lambda config: make_client(config, watch=watch))

    limit = RestartLimit()
    server = Server(args, open_engine, may_restart=lambda: args.restart_engine and limit.take())
    return server.serve_until_end(listener, signals=_SIGNALS)


class Server(uvicorn.Server):
    """uvicorn's, with our own end: the first call of `stop` drains, the second ends at once."""

    def __init__(
        self,
        args: ServerArgs,
        open_engine: OpenEngine,
        may_restart: Callable[[], bool],
        restart_delay_s: float = 1.0,
        place: Place | None = None,  # among several processes
    ) -> None:
        self._args = args
        state = ServerState(args=args, place=place)
        self._peers = state.peers
        super().__init__(_uvicorn_config(state, args))
        self._lifecycle = Lifecycle(state, open_engine, may_restart, restart_delay_s)
        self._signals: tuple[signal.Signals, ...] = ()
        self._draining: asyncio.Task[None] | None = None
        self._life: asyncio.Task[None] | None = None
        self.loop: asyncio.AbstractEventLoop | None = None  # while it runs

    def serve_until_end(
        self, listener: socket.socket, signals: tuple[signal.Signals, ...] = ()
    ) -> BaseException | None:
        """Serve at an open socket; the result is what the server has died of, if it has."""
        self._signals = signals
        log.setup_http(self._args.uvicorn_log_level)
        try:
            self.run(sockets=[listener])
        finally:
            self._lifecycle.close()
        return self._lifecycle.failure

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self._peers.listen()
        if self.config.ssl is not None:
            oldest_is_tls_1_2(self.config.ssl)
        await super().startup(sockets)
        self._life = asyncio.create_task(self._lifecycle.run())
        self._life.add_done_callback(self._end)
        self.loop = asyncio.get_running_loop()
        for number in self._signals:
            self.loop.add_signal_handler(number, self.stop)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._peers.close()
        await super().shutdown(sockets)

    def stop(self) -> None:
        """Drain; the second time, end at once. To be called in the server's loop."""
        if self._draining is None:
            self._draining = asyncio.create_task(self._lifecycle.drain())
            self._draining.add_done_callback(self._end)
        else:
            self.force_exit = True
            self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # `startup` does it

    def _end(self, done: asyncio.Task[None]) -> None:
        if not done.cancelled() and done.exception() is not None:
            logger.error("the server failed", exc_info=done.exception())
        self.should_exit = True


def _uvicorn_config(state: ServerState, args: ServerArgs) -> uvicorn.Config:
    return uvicorn.Config(
        build_app(state),
        loop="uvloop",
        http=HttpProtocol,
        ws="none",
        lifespan="off",
        log_config=None,  # `log.setup_http` does it
        access_log=args.enable_access_log,
        server_header=False,
        root_path=args.root_path,
        timeout_graceful_shutdown=_LAST_ANSWERS_S,
        ssl_keyfile=args.ssl_keyfile,
        ssl_certfile=args.ssl_certfile,
        ssl_ca_certs=args.ssl_ca_certs,
        ssl_cert_reqs=ssl.VerifyMode(args.ssl_cert_reqs),
        ssl_ciphers=args.ssl_ciphers,
    )
