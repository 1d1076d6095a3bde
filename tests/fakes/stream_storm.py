"""Very many clients of one server at once, each with a stream, and some of them vanish.

On plain sockets: a client that vanishes sends what is left of its words, or nothing, or a reset.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any
from urllib.parse import urlsplit

import httpx

TIMEOUT_S = 300
PROMPTS = (
    "The capital of France is", "Once upon a time", "What is 17 + 25?", "Hello", "My name is",
    "A list of colours:", "The largest planet", "I like", "Question: who are you?\nAnswer:",
    "def add(a, b):", "In the morning", "Three animals are",
)  # fmt: skip
LENGTHS = (8, 24, 48)


@dataclass(frozen=True, slots=True)
class Ask:
    """What one client wants."""

    prompt: str
    max_tokens: int

    def body(self, *, stream: bool) -> dict[str, Any]:
        return {
            "prompt": self.prompt,
            "max_tokens": self.max_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": stream,
        }


@dataclass(slots=True)
class Storm:
    """What came of it."""

    texts: list[tuple[Ask, str]] = field(default_factory=list)  # of clients that stayed
    num_gone: int = 0
    first_event_s: list[float] = field(default_factory=list)
    seconds: float = 0.0


async def calm_texts(url: str) -> dict[Ask, str]:
    """The right answers, one request after the other."""
    asks = [Ask(prompt, length) for prompt in PROMPTS for length in LENGTHS]
    async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S, trust_env=False) as client:
        answers = [await client.post("/v1/completions", json=a.body(stream=False)) for a in asks]
    return {
        ask: answer.json()["choices"][0]["text"] for ask, answer in zip(asks, answers, strict=True)
    }


async def storm(url: str, count: int, seed: int) -> Storm:
    """``count`` streams at once; a third of the clients vanish at random moments."""
    random, result = Random(seed), Storm()
    started = time.perf_counter()
    clients = [
        _Client(url, Ask(random.choice(PROMPTS), random.choice(LENGTHS)), result)
        for _ in range(count)
    ]
    leaving = set(random.sample(range(count), count // 3))
    await asyncio.wait_for(
        asyncio.gather(
            *(
                client.vanish(random) if i in leaving else client.stay()
                for i, client in enumerate(clients)
            )
        ),
        TIMEOUT_S,
    )
    result.seconds = time.perf_counter() - started
    return result


class _Client:
    def __init__(self, url: str, ask: Ask, result: Storm) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname, parts.port)
        self._ask, self._result = ask, result
        body = json.dumps(ask.body(stream=True)).encode()
        head = (
            f"POST /v1/completions HTTP/1.1\r\nHost: {parts.netloc}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._request = head.encode() + body

    async def stay(self) -> None:
        reader, writer = await asyncio.open_connection(*self._address)
        started = time.perf_counter()
        writer.write(self._request)
        text, first = "", None
        while not (line := await reader.readline()).startswith(b"data: [DONE]"):
            assert line, "the server closed the connection"
            if line.startswith(b"data: "):
                first = first or time.perf_counter() - started
                event = json.loads(line[6:])
                assert "error" not in event, event
                text += event["choices"][0]["text"]
        writer.close()
        self._result.texts.append((self._ask, text))
        self._result.first_event_s.append(first or 0.0)

    async def vanish(self, random: Random) -> None:
        """Before, within or after the request, or while events come; with a reset, or politely."""
        sent = random.choice([random.randrange(len(self._request)), len(self._request)])
        num_lines, delay = random.choice([0, 0, random.randrange(1, 40)]), random.random()
        reader, writer = await asyncio.open_connection(*self._address)
        writer.write(self._request[:sent])
        if sent == len(self._request):
            for _ in range(num_lines):
                if (await reader.readline()).startswith(b"data: [DONE]"):
                    break  # nothing more comes, and the connection stays
            await asyncio.sleep(delay * (num_lines == 0))
        if random.random() < 0.5:
            writer.transport.abort()
        else:
            writer.close()
        self._result.num_gone += 1


@dataclass(frozen=True, slots=True)
class Lag:
    """The event loop's lateness since some moment, from its histogram."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]  # cumulative

    def since(self, before: Lag) -> Lag:
        counts = zip(self.counts, before.counts, strict=True)
        return Lag(self.bounds, tuple(new - old for new, old in counts))

    def quantile(self, share: float) -> float:
        """At most."""
        wanted = share * self.counts[-1]
        return next(b for b, c in zip(self.bounds, self.counts, strict=True) if c >= wanted)


def loop_lag(url: str) -> Lag:
    text = httpx.get(f"{url}/metrics", trust_env=False).text
    name = "quire:event_loop_lag_seconds_bucket{"
    lines = [line for line in text.splitlines() if line.startswith(name)]
    bounds = tuple(float(line.split('le="')[1].split('"')[0]) for line in lines)
    return Lag(bounds, tuple(int(float(line.rpartition(" ")[2])) for line in lines))


def until_idle(url: str, seconds: float = 20) -> None:
    """Clients that vanish are noticed when the server looks, which takes a moment."""
    end = time.monotonic() + seconds
    while httpx.get(f"{url}/load", trust_env=False).json()["server_load"]:
        assert time.monotonic() < end, "requests of vanished clients go on"
        time.sleep(0.05)


def wrong(result: Storm, expected: dict[Ask, str]) -> Sequence[tuple[Ask, str, str]]:
    return [(ask, text, expected[ask]) for ask, text in result.texts if text != expected[ask]]
