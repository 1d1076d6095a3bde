"""Clients that do not speak HTTP well, or mean no good: a 4xx or a closed connection; others are
served meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Sequence
from urllib.parse import urlsplit

import httpx
import pytest

TIMEOUT_S = 20
BODY = json.dumps({"prompt": "Hello", "max_tokens": 2, "temperature": 0}).encode()
HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), timeout=TIMEOUT_S)


def answers(url: str, *pieces: bytes) -> list[int]:
    """The statuses that come back for what is sent, until the server closes or all is answered."""
    received = b""
    with connect(url) as client, contextlib.suppress(ConnectionError):  # it may close before
        for piece in pieces:
            client.sendall(piece)
        with contextlib.suppress(OSError):  # it has closed
            client.shutdown(socket.SHUT_WR)
        while data := client.recv(65536):
            received += data
    return _statuses(received)


def _statuses(received: bytes) -> list[int]:
    return [int(part.split()[0]) for part in received.split(b"HTTP/1.1 ")[1:]]


LONG = b"X-Long: " + b"x" * 200_000


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),  # TLS
        (b"hello\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (b"GET /\0 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (HEAD + b"Content-Length: -1\r\n\r\n" + BODY, 400),
        (HEAD + b"Content-Length: 0x10\r\n\r\n" + BODY, 400),
        (HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n" + BODY, 400),
        (HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n" + BODY, 400),
        (HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + BODY, 400),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nnot a length\r\n", 400),
        (HEAD + b"Content-Length: 9999999\r\n\r\n" + BODY, None),  # never comes: closed
        (HEAD + b"Content-Length: 999999999999\r\n\r\n", 413),
        (b"GET /v1/models%00%ff HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"TRACE / HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        (b"CONNECT quire:443 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        # Names of headers are what matters; bytes that are no text may be in them.
        (b"GET /livez HTTP/1.1\r\nHost: [::1]\r\nX-Request-Id: \xff\r\n\r\n", 200),
    ],
)
def test_nonsense_is_refused(server_url: str, sent: bytes, status: int | None) -> None:
    assert answers(server_url, sent) == ([] if status is None else [status])
    assert httpx.get(f"{server_url}/readyz", trust_env=False).status_code == 200


@pytest.mark.parametrize(
    "sent",
    [
        HEAD + LONG + b"\r\nContent-Length: 0\r\n\r\n",
        b"GET /" + b"x" * 200_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
)
def test_a_huge_head_is_refused(server_url: str, sent: bytes) -> None:
    """Who still sends when the server closes may not hear why."""
    assert answers(server_url, sent) in ([400], [])
    assert httpx.get(f"{server_url}/readyz", trust_env=False).status_code == 200


def test_a_head_without_end_is_cut_off(server_url: str) -> None:
    with connect(server_url) as client:
        client.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Long: ")
        received = b""
        for _ in range(40):
            with contextlib.suppress(ConnectionError):  # closed while we still send
                client.sendall(b"x" * 100_000)
        with contextlib.suppress(ConnectionError):
            received = client.recv(65536)
    assert received == b"" or _statuses(received) == [400]


def test_a_large_head_is_taken(server_url: str) -> None:
    head = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"x" * 40_000 + b"\r\n\r\n"
    with connect(server_url) as client:
        for _ in range(2):  # the limit is each one's
            client.sendall(head)
            assert client.recv(65536).startswith(b"HTTP/1.1 200")


def test_requests_in_one_go_are_answered_in_order(server_url: str) -> None:
    whole = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
    wrong = HEAD + b"Content-Length: 2\r\n\r\n{}"
    with connect(server_url) as client:
        client.sendall(whole + wrong + b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n" + whole)
        received = b""
        while len(_statuses(received)) < 4 or not received.endswith(b"}"):
            received += client.recv(65536)
    assert _statuses(received) == [200, 400, 200, 200]


def test_what_follows_a_body_that_is_too_short_is_refused_after_its_answer(server_url: str) -> None:
    with connect(server_url) as client:
        client.sendall(HEAD + b"Content-Length: 3\r\n\r\n" + BODY)
        received = b""
        while data := client.recv(65536):
            received += data
    assert _statuses(received) == [400, 400]


def test_a_request_byte_by_byte_holds_up_nobody(server_url: str) -> None:
    whole = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
    slow: Sequence[socket.socket] = [connect(server_url) for _ in range(20)]
    for one in slow:
        one.sendall(whole[:-1])
    answer = httpx.post(
        f"{server_url}/v1/completions", json=json.loads(BODY), trust_env=False, timeout=TIMEOUT_S
    )
    assert answer.status_code == 200
    for one in slow:
        one.sendall(whole[-1:])
        assert one.recv(65536).startswith(b"HTTP/1.1 200")
        one.close()
