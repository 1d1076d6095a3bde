"""Which fields are heeded, ignored, or refused by name."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from quire.engine.async_engine import AsyncLLM
from quire.server.errors import HTTPError
from quire.server.fields import IGNORED_HEADER, REFUSED, judge
from quire.server.protocol.completions import CompletionRequest
from tests.fakes.server import in_process_client, ready_state


def body_with(**fields: Any) -> CompletionRequest:
    return CompletionRequest.model_validate({"prompt": "x", **fields})


@pytest.mark.parametrize("strict", ["error", "warn", "off"])
def test_harmless_fields_are_taken_silently(strict: str) -> None:
    body = body_with(user="me", metadata={"a": 1}, store=True, service_tier="auto")
    assert judge(body, strict) == []


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_built_is_refused_by_name_but_only_when_it_is_set(name: str) -> None:
    neutral, _ = REFUSED[name]
    for value in (None, [], {}, *neutral):
        assert judge(body_with(**{name: value}), "error") == []
    for strict in ("error", "off"):
        with pytest.raises(HTTPError, match=f"^{name} is not supported, got 'abc'") as caught:
            judge(body_with(**{name: "abc"}), strict)
        assert (caught.value.status, caught.value.param) == (400, name)


def test_an_unknown_field_is_an_error_that_suggests_the_right_name() -> None:
    with pytest.raises(HTTPError, match=r"unknown field 'temprature'; did you mean temperature\?"):
        judge(body_with(temprature=1), "error")
    with pytest.raises(HTTPError, match="unknown field 'zzz' "):
        judge(body_with(zzz=1), "error")


@pytest.mark.parametrize(("strict", "header"), [("warn", "zzz,yyy"), ("off", None)])
async def test_unknown_fields_can_be_ignored(
    engine: AsyncLLM, strict: str, header: str | None
) -> None:
    async with in_process_client(ready_state(engine, strict_fields=strict)) as client:
        response = await client.post(
            "/v1/completions", json={"prompt": "x", "max_tokens": 1, "zzz": 1, "yyy": 2}
        )
    assert response.status_code == 200
    assert response.headers.get(IGNORED_HEADER) == header


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tools": []}, "must not be an empty array"),
        ({"tool_choice": "auto"}, "`tools` must be set"),
        ({"tool_choice": "maybe"}, "Invalid value for `tool_choice`"),
        ({"tools": [{"type": "function"}]}, "not built yet"),
        ({"tools": [{"type": "function"}], "tool_choice": "required"}, "not built yet"),
        ({"tool_choice": 3}, "tool_choice: must be 'none', 'auto'"),
    ],
)
async def test_tools_that_could_be_called_are_refused(
    client: httpx.AsyncClient, fields: dict[str, Any], message: str
) -> None:
    body = {"messages": [{"role": "user", "content": "x"}], **fields}
    response = await client.post("/v1/chat/completions", json=body)
    assert response.status_code == 400
    assert message in response.json()["error"]["message"]


async def test_tools_that_may_not_be_called_are_in_the_prompt(client: httpx.AsyncClient) -> None:
    tool = {"type": "function", "function": {"name": "look_up", "parameters": {}}}
    body = {
        "messages": [{"role": "user", "content": "x"}],
        "tools": [tool],
        "tool_choice": "none",
    }
    response = await client.post("/apply-template", json=body)
    assert "look_up" in response.json()["prompt"]
