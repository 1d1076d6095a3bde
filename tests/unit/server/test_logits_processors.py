"""Requests that name logits processors."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

from quire.engine.async_engine import AsyncLLM
from quire.server.args import ServerArgs
from quire.server.logits_processors import check_pattern, named_processors
from tests.fakes.server import in_process_client, ready_state

HERE = "tests.fakes.processors"
FAVOUR = {"qualname": f"{HERE}.Favour", "args": [4]}
PATTERN = re.escape(HERE) + r"\..*"
COMPLETION = {"prompt": "x", "max_tokens": 3, "return_token_ids": True}
CHAT = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 3, "return_token_ids": True}


async def post(engine: AsyncLLM, path: str, body: dict[str, Any], **args: Any) -> httpx.Response:
    async with in_process_client(ready_state(engine, **args)) as client:
        return await client.post(path, json=body)


@pytest.mark.parametrize("processor", [f"{HERE}.favour_four", FAVOUR])
@pytest.mark.parametrize(
    ("path", "body"), [("/v1/completions", COMPLETION), ("/v1/chat/completions", CHAT)]
)
async def test_what_matches_the_pattern_is_used(
    engine: AsyncLLM, path: str, body: dict[str, Any], processor: Any
) -> None:
    response = await post(
        engine,
        path,
        {**body, "logits_processors": [processor]},
        logits_processor_pattern=PATTERN,
    )
    assert response.status_code == 200, response.text
    assert response.json()["choices"][0]["token_ids"] == [4, 4, 4]


async def test_other_apis_take_it_too(engine: AsyncLLM) -> None:
    body = {"input": "x", "max_output_tokens": 1, "logits_processors": [FAVOUR]}
    allowed = await post(engine, "/v1/responses", body, logits_processor_pattern=PATTERN)
    assert allowed.status_code == 200
    refused = await post(engine, "/v1/responses", body)
    assert refused.status_code == 400


@pytest.mark.parametrize(
    ("pattern", "processor", "message"),
    [
        (None, FAVOUR, "start it with --logits-processor-pattern"),
        (HERE, f"{HERE}.favour_four", "does not match what this server allows"),  # as a whole
        ("safe.*", "os.system", "'os.system' does not match"),
        (".*", "no.such.name", "'no.such.name' cannot be loaded: ModuleNotFoundError"),
        (".*", {"qualname": f"{HERE}.Favour"}, "cannot be made of args"),
        (".*", f"{HERE}.Favour", "'tests.fakes.processors.Favour' is a class"),
        (".*", {"name": "x"}, "a logits processor is a name, or"),
    ],
)
async def test_everything_else_is_a_400(
    engine: AsyncLLM, pattern: str | None, processor: Any, message: str
) -> None:
    body = {**COMPLETION, "logits_processors": [processor]}
    response = await post(engine, "/v1/completions", body, logits_processor_pattern=pattern)
    assert response.status_code == 400
    assert message in response.json()["error"]["message"]


async def test_one_that_fails_ends_its_request_alone(engine: AsyncLLM) -> None:
    body = {**COMPLETION, "logits_processors": [f"{HERE}.broken"]}
    response = await post(engine, "/v1/completions", body, logits_processor_pattern=".*")
    assert response.status_code == 500
    assert "RuntimeError: my own mistake" in response.json()["error"]["message"]
    assert (await post(engine, "/v1/completions", COMPLETION)).status_code == 200


def test_none_is_none_whatever_the_server_allows() -> None:
    assert named_processors(None, ServerArgs()) == named_processors([], ServerArgs()) == {}


def test_a_flag_that_is_no_pattern_is_one_clear_error() -> None:
    with pytest.raises(ValueError, match=r"--logits-processor-pattern '\(' is not a regular expr"):
        check_pattern(ServerArgs(logits_processor_pattern="("))
    check_pattern(ServerArgs())
