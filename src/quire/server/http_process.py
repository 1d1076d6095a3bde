"""One of several HTTP processes: serves the supervisor's socket, with the supervisor's engine core.

Exits with the supervisor, whose end closes this process's standard input. The supervisor handles
signals, and starts this process with signals ignored.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import sys
import threading
from pathlib import Path
from typing import IO

from quire import log
from quire.engine.async_engine import AsyncLLM
from quire.engine.attached import AttachedClient
from quire.engine.start import StartWatch
from quire.errors import EngineDeadError
from quire.heap import keep_all_that_exists
from quire.server.orders import (
    CANNOT_START,
    Boot,
    Down,
    Fail,
    Order,
    StartPhase,
    StopServing,
    Up,
    config_of,
    read_order,
)
from quire.server.peers import Place
from quire.server.serve import Server


def main() -> None:
    orders = os.fdopen(os.dup(sys.stdin.fileno()), "rb")
    boot = read_order(orders)
    if boot is None:
        sys.exit(1)
    assert isinstance(boot, Boot), boot
    logging.getLogger("quire").setLevel(boot.log_level)
    log.setup()
    engine = SharedEngine()

    def open_engine(watch: StartWatch) -> AsyncLLM:
        opened = engine.open(watch)
        keep_all_that_exists()
        return opened

    server = Server(
        boot.args,
        open_engine,
        may_restart=lambda: not engine.is_over,
        restart_delay_s=0,
        place=boot.place,
        listens_at_once=boot.listens_at_once,
    )
    threading.Thread(target=_obey, args=(orders, engine, server, boot.place), daemon=True).start()
    try:
        with socket.socket(fileno=boot.listener_fd) as listener:
            failure = server.serve_until_end(listener)
    except ValueError as error:
        log.last_words("an HTTP process", str(error))
        sys.exit(CANNOT_START)
    sys.exit(0 if failure is None else 1)  # the supervisor reports why


def _obey(orders: IO[bytes], engine: SharedEngine, server: Server, place: Place) -> None:
    while (order := read_order(orders)) is not None:
        if isinstance(order, StopServing):
            if server.loop is None:
                os._exit(0)  # nobody is served yet
            server.loop.call_soon_threadsafe(server.stop)
        else:
            engine.hear(order)
    shutil.rmtree(place.folder, ignore_errors=True)  # the supervisor has died, and cannot
    os._exit(1)


class SharedEngine:
    """Opens this process's engines on the supervisor's core, by the supervisor's orders."""

    def __init__(self) -> None:
        self._news = threading.Condition()
        self._latest: Up | Fail | None = None
        self.is_over = False  # there will be no other core
        self._watch: StartWatch | None = None
        self._client: AttachedClient | None = None
        self._is_attaching = False  # to a core that may die meanwhile

    def open(self, watch: StartWatch) -> AsyncLLM:
        """Wait for a core, and attach to it."""
        with self._news:
            self._watch, self._client, self._is_attaching = watch, None, False
            self._news.wait_for(lambda: self._latest is not None)
            news, self._latest = self._latest, None
            self._is_attaching = isinstance(news, Up)
        if not isinstance(news, Up):
            assert news is not None
            raise EngineDeadError(news.cause)

        def attach(config: object) -> AttachedClient:
            client = AttachedClient(Path(news.folder), news.client, watch)
            with self._news:
                self._client = client
            return client

        return AsyncLLM(config_of(news.start), open_client=attach, number=int(news.client))

    def hear(self, order: Order) -> None:
        with self._news:
            self.is_over = self.is_over or isinstance(order, Fail)
            if isinstance(order, StartPhase) and self._watch is not None:
                self._watch.enter(order.name)
            elif isinstance(order, (Up, Fail)):
                self._latest = order
                self._news.notify_all()
            elif isinstance(order, Down):
                self._latest = None
                if self._client is not None:
                    self._client.core_died(order.cause)
                elif self._is_attaching and self._watch is not None:
                    self._watch.cancel()
