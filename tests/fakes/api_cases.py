"""Requests that nobody would think of, made from a server's own description of its API."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

TIMEOUT_S = 60
_MOMENT_S = 10
_CHECKS = [
    *(not_a_server_error, status_code_conformance, content_type_conformance),
    response_schema_conformance,
]
_MOST = {
    "n": 3,
    "best_of": 4,
    "max_tokens": 8,
    "min_tokens": 4,
    "max_completion_tokens": 8,
    "max_output_tokens": 8,
}
_MESSAGES = st.lists(
    st.fixed_dictionaries(
        {
            "role": st.sampled_from(["user", "assistant"]),
            "content": st.text(min_size=1, max_size=40).filter(str.strip),
        }
    ),
    min_size=1,
    max_size=4,
)
_CHAT = [{"role": "user", "content": "Hello"}]
# What each path that generates answers well; random bodies come after them.
GOOD_BODIES: dict[str, dict[str, Any]] = {
    "/v1/completions": {"prompt": "Hello", "max_tokens": 4},
    "/v1/chat/completions": {"messages": _CHAT, "max_tokens": 4},
    "/v1/responses": {"input": "Hello", "max_output_tokens": 16},
    "/v1/messages": {"messages": _CHAT, "max_tokens": 4},
}
_TOKEN_IDS = st.lists(st.integers(0, 4095), min_size=1, max_size=40)
_PROMPTS = st.one_of(st.text(min_size=1, max_size=40), _TOKEN_IDS)


@dataclass(slots=True)
class Tally:
    """What was answered: (path, status) -> how often."""

    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)

    def count(self, status: int) -> int:
        return sum(number for (_, one), number in self.statuses.items() if one == status)

    def paths_with(self, status: int) -> set[str]:
        return {path for path, one in self.statuses if one == status}

    def __str__(self) -> str:
        by_status: Counter[int] = Counter()
        for (_, status), number in self.statuses.items():
            by_status[status] += number
        return ", ".join(f"{number} x {status}" for status, number in sorted(by_status.items()))


def send_cases(url: str, count: int) -> Tally:
    """Send a good body to each path that generates, then random requests, most of them right by the
    description; each answer must be one that the description tells of, in time, and none may be the
    server's own fault."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations()]
    tally = Tally()

    def check(case: Any) -> None:
        response = case.call(base_url=url, timeout=TIMEOUT_S)
        tally.statuses[case.operation.path, response.status_code] += 1
        case.validate_response(response, checks=_CHECKS)

    for path, body in GOOD_BODIES.items():
        check(schema[path]["POST"].Case(body=body, media_type="application/json"))

    @settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(_cases(operations))
    def send(case: Any) -> None:
        check(case)

    send()
    return tally


@st.composite
def _cases(draw: st.DrawFn, operations: Sequence[Any]) -> Any:
    """Those with a body more often: there is more that can go wrong."""
    operation = draw(st.sampled_from([o for o in operations for _ in range(1 + 3 * _has_body(o))]))
    mode = draw(st.sampled_from([GenerationMode.POSITIVE] * 3 + [GenerationMode.NEGATIVE]))
    case = draw(operation.as_strategy(generation_mode=mode))
    if mode is GenerationMode.POSITIVE and isinstance(case.body, dict):
        _make_likely(case.body, _required(operation), draw)
    return case


def _make_likely(body: dict[str, Any], required: Sequence[str], draw: st.DrawFn) -> None:
    """Right by the description is not enough to be answered: names of models are not served, fields
    contradict each other. So most requests keep only a few of them, and say something."""
    if draw(st.integers(0, 3)):
        optional = sorted(name for name in body if name not in required)
        kept = draw(st.sets(st.sampled_from(optional), max_size=4)) if optional else set()
        for name in {*optional} - kept | {"model"}:
            body.pop(name, None)
        for name in {"messages", "input"} & body.keys():
            body[name] = draw(_MESSAGES)
        if "prompt" in body:
            body["prompt"] = draw(_PROMPTS)
    _make_small(body)


def _required(operation: Any) -> list[str]:
    """Fields that its body must have."""
    described = operation.schema.raw_schema
    content = operation.definition.raw["requestBody"]["content"]["application/json"]
    name = content["schema"]["$ref"].rpartition("/")[2]
    return list(described["components"]["schemas"][name].get("required", ()))


def _has_body(operation: Any) -> bool:
    return len(list(operation.body)) > 0


def _make_small(body: dict[str, Any]) -> None:
    """A thousand long answers are not wrong, but take long."""
    for name, most in _MOST.items():
        if type(body.get(name)) in (int, float) and body[name] > most:
            body[name] = int(body[name]) % most + 1
    if "messages" in body and body.get("max_tokens") is None:
        body["max_tokens"] = 8
    if "input" in body and body.get("max_output_tokens") is None:
        body["max_output_tokens"] = 8


def num_lost_blocks(url: str) -> int:
    """KV blocks that cannot be given out though nothing runs; what ends just now has a moment for
    it. One block is never given out."""
    end = time.monotonic() + _MOMENT_S
    while True:
        free, blocks = engine_numbers(url, "quire:kv_blocks_free", "quire:kv_blocks")
        if free == blocks - 1 or time.monotonic() > end:
            return blocks - 1 - free
        time.sleep(0.05)


def engine_numbers(url: str, *names: str) -> list[int]:
    """Metrics of the one engine, by name."""
    lines = httpx.get(f"{url}/metrics", trust_env=False, timeout=TIMEOUT_S).text.splitlines()
    found = {name: [line for line in lines if line.startswith(f"{name}{{")] for name in names}
    return [int(float(found[name][0].rpartition(" ")[2])) for name in names]
