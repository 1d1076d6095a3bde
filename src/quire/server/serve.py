"""`quire serve` from the socket up: listens at once, loads behind it, drains on SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Iterator

import uvicorn
from fastapi import FastAPI

from quire import env, log
from quire.chat_template import ChatOptions
from quire.chat_template_choice import load_chat_template
from quire.config import EngineConfig
from quire.engine.async_engine import AsyncLLM
from quire.engine.start import StartWatch
from quire.engine.thread import ThreadClient
from quire.heap import keep_all_that_exists
from quire.metrics import multiprocess
from quire.metrics.tracing import check_endpoint
from quire.server.answer_formats import check_formats
from quire.server.app import build_app, layers, make_layers
from quire.server.args import ServerArgs
from quire.server.http_parser import HttpProtocol
from quire.server.lifecycle import RESTART_DELAY_S, Lifecycle, OpenEngine, RestartLimit
from quire.server.listening import (
    address_of,
    check_tls,
    listening_socket,
    oldest_is_tls_1_2,
    remove_unix_socket,
)
from quire.server.logits_processors import check_pattern
from quire.server.open_files import OTHER_FILES, allow_connections
from quire.server.peers import Place
from quire.server.served_core import ServedCore
from quire.server.signals import end_at_signals, hand_over, stop_signals
from quire.server.state import Phase, ServerState
from quire.sizes import parse_bytes

logger = logging.getLogger(__name__)

_POLL_S = 0.05
_LAST_ANSWERS_S = 5  # for connections to close once their requests have ended

MakeConfig = Callable[[], EngineConfig]  # may look at the model's files, and download them


class ServerFailed(Exception):
    """The server had to stop; ``__cause__`` is the reason."""


def serve(args: ServerArgs, make_config: MakeConfig) -> None:
    """Serve until a signal; `ServerFailed` when the engine does not start, or has died."""
    check(args)
    multiprocess.prepare_named_folder()
    _allow_open_files(args)
    end_at_signals(sys.exit)  # from here on there are files to remove
    with contextlib.closing(listening_socket(args)) as listener:
        try:
            logger.info("listening at %s", address_of(listener, args))
            if args.api_server_count > 1:
                from quire.server.supervisor import supervise

                failure = supervise(args, listener, make_config)
            else:
                failure = _serve_alone(args, listener, make_config)
        finally:
            remove_unix_socket(args)
    if failure is not None:
        raise ServerFailed(str(failure) or type(failure).__name__) from failure
    logger.info("the server has ended")


def _allow_open_files(args: ServerArgs) -> None:
    """Raise the limit of open files, beyond which connections are reset without a message."""
    # Twice the queue: other connections are idle, or get their 429.
    limit = allow_connections(2 * args.max_queued_requests)
    needed = args.max_queued_requests + OTHER_FILES
    if limit < needed:
        logger.warning(
            "the hard limit of open files is %d, and --max-queued-requests %d needs %d; raise it "
            "(ulimit -Hn): connections beyond it are reset",
            limit,
            args.max_queued_requests,
            needed,
        )


def check(args: ServerArgs) -> None:
    """``ValueError`` for arguments that cannot work, before anything is started."""
    check_tls(args)
    _check_ranges(args)
    if args.api_server_count < 1:
        raise ValueError(f"--api-server-count {args.api_server_count}: give at least 1")
    if args.api_server_count > 1 and args.disable_frontend_multiprocessing:
        raise ValueError(
            "--disable-frontend-multiprocessing is for one process; leave out --api-server-count"
        )
    check_pattern(args)
    check_formats(args)
    _check_templates(args)
    if args.otlp_traces_endpoint is not None:
        check_endpoint(args.otlp_traces_endpoint)
    for variable in (env.HTTP_TIMEOUT_KEEP_ALIVE, env.MAX_STOP_STRINGS):
        variable.get()
    layers(args)  # keys, middleware, sizes


def _check_ranges(args: ServerArgs) -> None:
    """``ValueError`` for values with which the server would start, but not work."""
    least: dict[str, float] = {
        "max_queued_requests": 1,
        "max_output_tokens": 1,
        "stream_interval": 1,
        "shutdown_timeout": 0,
        "sse_keep_alive_interval": 0,
        "max_log_len": 0,
    }
    for name, smallest in least.items():
        value = getattr(args, name)
        if value is not None and not value >= smallest:
            raise ValueError(f"--{name.replace('_', '-')} {value}: give at least {smallest:g}")
    if args.request_timeout is not None and not args.request_timeout > 0:
        raise ValueError(
            f"--request-timeout {args.request_timeout:g}: give seconds above 0, or leave it out"
        )
    if args.root_path and not args.root_path.startswith("/"):
        raise ValueError(f"--root-path {args.root_path}: begin it with a slash: /{args.root_path}")
    if parse_bytes(args.max_request_body_size) < 1:
        raise ValueError(f"--max-request-body-size {args.max_request_body_size}: give at least 1")


def _check_templates(args: ServerArgs) -> None:
    """``ValueError`` for a template or arguments that would fail every chat request."""
    try:
        load_chat_template(args.chat_template)
    except ValueError as error:
        raise ValueError(f"--chat-template: {error}") from error
    try:
        ChatOptions(template_kwargs=args.default_chat_template_kwargs)
    except ValueError as error:
        own = str(error).replace("chat_template_kwargs", "--default-chat-template-kwargs", 1)
        raise ValueError(own) from error


def _serve_alone(
    args: ServerArgs, listener: socket.socket, make_config: MakeConfig
) -> BaseException | None:
    if multiprocess.is_shared():
        multiprocess.reserve_files(os.getpid())
    numbers = itertools.count()

    def open_engine(watch: StartWatch) -> AsyncLLM:
        watch.enter("configuration")
        make_client = ThreadClient if args.disable_frontend_multiprocessing else ServedCore
        config = make_config()
        watch.enter("tokenizer")
        engine = AsyncLLM(
            config,
            open_client=lambda config: make_client(config, watch=watch),
            number=next(numbers),
        )
        keep_all_that_exists()
        return engine

    limit = RestartLimit()
    server = Server(args, open_engine, may_restart=lambda: args.restart_engine and limit.take())
    return server.serve_until_end(listener, signals=stop_signals())


class Server(uvicorn.Server):
    """uvicorn's server with our shutdown: `stop` drains; a second call aborts what runs."""

    def __init__(
        self,
        args: ServerArgs,
        open_engine: OpenEngine,
        may_restart: Callable[[], bool],
        restart_delay_s: float = RESTART_DELAY_S,
        place: Place | None = None,  # among several processes
        listens_at_once: bool = True,  # False: only once ready; others listen until then
    ) -> None:
        self._args = args
        self._state = state = ServerState(args=args, place=place, listens=listens_at_once)
        self._peers = state.peers
        self._app = build_app(state)
        super().__init__(_uvicorn_config(self._app, args))
        self._lifecycle = Lifecycle(state, open_engine, may_restart, restart_delay_s)
        self._signals: tuple[signal.Signals, ...] = ()
        self._draining: asyncio.Task[None] | None = None
        self._life: asyncio.Task[None] | None = None
        self.loop: asyncio.AbstractEventLoop | None = None  # while it runs

    def serve_until_end(
        self, listener: socket.socket, signals: tuple[signal.Signals, ...] = ()
    ) -> BaseException | None:
        """Serve on an open socket; returns the error that the server died of, or None."""
        self._signals = signals
        log.setup_http(self._args.uvicorn_log_level)
        try:
            self.run(sockets=[listener])
        finally:
            self._lifecycle.close()
        return self._lifecycle.failure

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        make_layers(self._app)
        await self._peers.listen()
        if self.config.ssl is not None:
            oldest_is_tls_1_2(self.config.ssl)
        if self._state.listens:
            await super().startup(sockets)
        self._life = asyncio.create_task(self._lifecycle.run())
        self._life.add_done_callback(self._end)
        self.loop = loop = asyncio.get_running_loop()
        if hand_over(
            self._signals, lambda number: loop.add_signal_handler(number, self._on_signal, number)
        ):
            self.stop()
        if not self._state.listens:
            while self._state.phase is Phase.LOADING:
                await asyncio.sleep(_POLL_S)
            self._state.listens = True
            await super().startup(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._peers.close()
        await super().shutdown(sockets)

    def stop(self) -> None:
        """First call: drain. Second: abort running requests. Third: do not wait for connections
        either. To be called in the server's event loop."""
        if self._draining is None:
            self._draining = asyncio.create_task(self._lifecycle.drain())
            self._draining.add_done_callback(self._end)
        elif self.should_exit:
            self.force_exit = True
        else:
            self._break_off()
            self.should_exit = True

    def _on_signal(self, number: signal.Signals) -> None:
        logger.info("%s: shutting down", number.name)
        self.stop()

    def _break_off(self) -> None:
        """Abort running requests, as at the end of a drain: their clients still get an answer."""
        running = self._state.running
        if len(running):
            logger.warning("second signal: aborting %d running requests", len(running))
        for request in running:
            request.drop()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # `startup` sets the handlers

    def _end(self, done: asyncio.Task[None]) -> None:
        self.should_exit = True
        if not done.cancelled() and done.exception() is not None:
            logger.error("the server failed", exc_info=done.exception())


def _uvicorn_config(app: FastAPI, args: ServerArgs) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="uvloop",
        http=HttpProtocol,
        ws="none",
        lifespan="off",
        log_config=None,  # `log.setup_http` does it
        access_log=False,  # `AccessLog` sees more
        server_header=False,
        timeout_keep_alive=env.HTTP_TIMEOUT_KEEP_ALIVE.get(),
        timeout_graceful_shutdown=_LAST_ANSWERS_S,
        ssl_keyfile=args.ssl_keyfile,
        ssl_certfile=args.ssl_certfile,
        ssl_ca_certs=args.ssl_ca_certs,
        ssl_cert_reqs=ssl.VerifyMode(args.ssl_cert_reqs),
        ssl_ciphers=args.ssl_ciphers,
    )
