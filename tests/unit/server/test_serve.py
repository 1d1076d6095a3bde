"""What `quire serve` checks before it starts anything."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from quire.metrics import multiprocess
from quire.server import serve as serve_module
from quire.server.args import ServerArgs
from quire.server.serve import Server, _serve_alone, check


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"max_queued_requests": 0}, "--max-queued-requests 0: give at least 1"),
        ({"max_queued_requests": -5}, "--max-queued-requests -5"),
        ({"max_request_body_size": 0}, "--max-request-body-size 0: give at least 1"),
        ({"max_output_tokens": 0}, "--max-output-tokens 0"),
        ({"stream_interval": 0}, "--stream-interval 0: give at least 1"),
        ({"request_timeout": 0.0}, "--request-timeout 0: give seconds above 0, or leave it out"),
        ({"request_timeout": float("nan")}, "--request-timeout nan"),
        ({"shutdown_timeout": -1.0}, "--shutdown-timeout -1.0: give at least 0"),
        ({"sse_keep_alive_interval": -1.0}, "--sse-keep-alive-interval -1.0"),
        ({"otlp_traces_endpoint": "nota-url"}, "--otlp-traces-endpoint nota-url: give a URL"),
        ({"otlp_traces_endpoint": "grpc://a:4317"}, "--otlp-traces-endpoint grpc://a:4317: .*gRPC"),
        ({"api_server_count": 0}, "--api-server-count 0"),
        ({"root_path": "api"}, "--root-path api: begin it with a slash: /api"),
        ({"chat_template": "{{ foo"}, "--chat-template: the chat template '{{ foo' does not parse"),
        ({"chat_template": "/no/where"}, "--chat-template: .* neither a readable file"),
        ({"default_chat_template_kwargs": {"tools": []}}, "^--default-chat-template-kwargs cannot"),
    ],
)
def test_a_server_that_could_answer_nobody_does_not_start(args: dict[str, Any], words: str) -> None:
    check(ServerArgs())
    with pytest.raises(ValueError, match=words):
        check(ServerArgs(**args))


def a_server(**args: Any) -> Server:
    return Server(ServerArgs(**args), lambda watch: pytest.fail("not run"), lambda: False)


def test_a_server_without_room_for_its_metrics_does_not_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(pid: int) -> None:
        assert pid == os.getpid()
        raise ValueError("no room")

    monkeypatch.setenv(multiprocess.VARIABLE, str(tmp_path))
    monkeypatch.setattr(multiprocess, "reserve_files", fail)
    monkeypatch.setattr(serve_module, "Server", lambda *args, **kwargs: pytest.fail("too early"))
    with socket.socket() as listener, pytest.raises(ValueError, match=r"^no room$"):
        _serve_alone(ServerArgs(), listener, lambda: pytest.fail("not run"))


async def test_a_server_that_has_failed_ends_even_if_it_cannot_say_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def fail() -> None:
        raise RuntimeError("the drain")

    def refuse(record: logging.LogRecord) -> bool:
        raise OSError("a handler of the user's")

    server, failed = a_server(), asyncio.create_task(fail())
    await asyncio.wait([failed])
    monkeypatch.setattr(logging.getLogger("quire.server.serve"), "filters", [refuse])
    with pytest.raises(OSError, match="the user's"):
        server._end(failed)
    assert server.should_exit


def test_idle_connections_outlive_the_patience_of_proxies_and_clients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert a_server().config.timeout_keep_alive > 60
    monkeypatch.setenv("VLLM_HTTP_TIMEOUT_KEEP_ALIVE", "9")
    assert a_server().config.timeout_keep_alive == 9
    monkeypatch.setenv("VLLM_HTTP_TIMEOUT_KEEP_ALIVE", "no")
    with pytest.raises(ValueError, match="VLLM_HTTP_TIMEOUT_KEEP_ALIVE='no'"):
        check(ServerArgs())


def test_the_number_of_stop_strings_is_checked_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUIRE_MAX_STOP_STRINGS", "0")
    with pytest.raises(ValueError, match="QUIRE_MAX_STOP_STRINGS='0': expected a whole number"):
        check(ServerArgs())
