"""A path that no route has: the one that was meant, or what is not built."""

from __future__ import annotations

import httpx
import pytest

from quire.batch_files.targets import AppTarget
from quire.engine.async_engine import AsyncLLM
from quire.server.app import build_app
from quire.server.state import ServerState
from quire.server.unknown_paths import NOT_BUILT, NOT_WITH_METHOD
from tests.fakes.server import in_process_client, ready_state


async def message_of(client: httpx.AsyncClient, path: str, method: str = "POST") -> str:
    answer = await client.request(method, f"http://localhost{path}")
    assert answer.status_code == 404
    error = answer.json()["error"]
    assert error.get("type") in ("NotFoundError", "not_found_error")
    message: str = error["message"]
    assert message.startswith(f"Not Found: {method} {path}")
    return message.removeprefix(f"Not Found: {method} {path}")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/v1/embeddings", "embeddings are not supported"),
        ("/embeddings", "embeddings are not supported"),
        ("/rerank", "reranking is not supported"),
        ("/v1/rerank", "reranking is not supported"),
        ("/v2/rerank", "reranking is not supported"),
        ("/score", "scoring is not supported"),
        ("/classify", "classification is not supported"),
        ("/pooling", "pooling is not supported"),
        ("/v1/audio/transcriptions", "audio is not supported"),
        ("/v1/audio/translations", "audio is not supported"),
        ("/v1/images/generations", "images are not supported"),
        ("/v1/moderations", "moderation is not supported"),
        ("/v1/files", "files are not stored"),
        ("/v1/batches", "`quire run-batch`"),
        ("/v1/messages/batches", "`quire run-batch`"),
        ("/v1/assistants", "send the whole conversation"),
        ("/v1/threads/abc/runs", "send the whole conversation"),
        ("/v1/load_lora_adapter", "merge the adapter"),
        ("/v1/unload_lora_adapter", "merge the adapter"),
        ("/api/chat", "Ollama's API is not supported"),
        ("/generate", "use /v1/completions"),
        ("/inference/v1/generate", "token ids, and returns them with return_token_ids"),
        ("/invocations", "use /v1/chat/completions or /v1/completions"),
        ("/tokenizer_info", "use /tokenize"),
        ("/start_profile", "profiling over HTTP is not supported"),
        ("/stop_profile", "profiling over HTTP is not supported"),
        ("/collective_rpc", "cannot be called over HTTP"),
        ("/pause", "pausing is not supported"),
        ("/resume", "pausing is not supported"),
        ("/v1/chat/completions/chatcmpl-1", "no answers are stored"),
        ("/v1/chat/completions/chatcmpl-1/messages", "no answers are stored"),
        ("/v1/chat/completions/render", "use /apply-template"),
        ("/v1/completions/render", "use /apply-template"),
        ("/v1/chat/completions/batch", "`quire run-batch`"),
    ],
)
async def test_what_is_not_built_is_told(client: httpx.AsyncClient, path: str, words: str) -> None:
    for method in ("POST", "GET"):
        assert words in await message_of(client, path, method)


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("/v1/v1/chat/completions", "/v1/chat/completions; the base URL ends with /v1"),
        ("/chat/completions", "/v1/chat/completions; the base URL ends with /v1"),
        ("/v1//chat/completions", "/v1/chat/completions; the base URL ends with /v1"),
        ("/openai/v1/completions", "/v1/completions; the base URL ends with /v1"),
        ("/models/tiny", "/v1/models/tiny; the base URL ends with /v1"),
        (
            "/v1/v1/messages",
            "/v1/messages; a base URL for Anthropic's clients ends before /v1",
        ),
        ("/v1/health", "/health"),
        ("/v1/metrics", "/metrics"),
    ],
)
async def test_a_wrong_base_url_is_told(client: httpx.AsyncClient, path: str, hint: str) -> None:
    assert await message_of(client, path) == f": the endpoint is {hint}."


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/v1/chat/completion", "/v1/chat/completions"),
        ("/chat/completion", "/v1/chat/completions"),
        ("/v1/completion", "/v1/completions"),
        ("/v1/Models", "/v1/models"),
        ("/v1/response", "/v1/responses"),
        ("/helth", "/health"),
        ("/tokenise", "/tokenize"),
    ],
)
async def test_a_mistyped_path_is_told_the_nearest(
    client: httpx.AsyncClient, path: str, meant: str
) -> None:
    assert await message_of(client, path) == f": the nearest endpoint is {meant}."


async def test_a_mistyped_path_does_not_wait_for_the_description(state: ServerState) -> None:
    """To build it takes so long that all streams would stall."""
    app = build_app(state)
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost")
    async with client:
        assert "/health" in await message_of(client, "/helth")
    assert app.openapi_schema is None


@pytest.mark.parametrize(
    "path",
    [
        *("/v1", "/zzz", "/v1/zzz/embeddings", "/v1/page", "/page/zzz/a"),
        *("/page-dat", "/openapi.jso"),  # there is one, which the description leaves out
    ],
)
async def test_of_other_paths_nothing_is_known(client: httpx.AsyncClient, path: str) -> None:
    assert await message_of(client, path) == ""


@pytest.mark.parametrize("prefix", ["", "/llm"])
async def test_the_prefix_of_a_proxy_is_no_part_of_the_path(engine: AsyncLLM, prefix: str) -> None:
    """The message has the path that the client has sent to the proxy, which may take it off."""
    state = ready_state(engine, root_path="/llm")
    async with in_process_client(state) as client:
        for path, words in (
            ("/chat/completions", ": the endpoint is /v1/chat/completions;"),
            ("/v1/embeddings", ": embeddings are not supported"),
        ):
            error = (await client.post(f"{prefix}{path}")).json()["error"]
            assert error["message"].startswith(f"Not Found: POST /llm{path}{words}")


async def test_nothing_that_is_said_not_to_be_built_is_there(client: httpx.AsyncClient) -> None:
    for name, why in NOT_BUILT.items():
        for path in (f"/{name}", f"/v1/{name}"):
            assert await message_of(client, path) == f": {why}."


async def test_a_line_of_a_batch_is_told_the_same(
    client: httpx.AsyncClient, state: ServerState
) -> None:
    target = AppTarget(build_app(state), state)
    answer = await target.ask("/v1/embeddings", {"input": "Hi"})
    over_http = await client.post("/v1/embeddings", json={"input": "Hi"})
    assert (answer.status, answer.body) == (404, over_http.content)


@pytest.mark.parametrize(
    ("method", "name"), [("GET", "chat/completions"), ("POST", "responses/compact")]
)
async def test_a_method_that_is_not_there_is_explained(
    client: httpx.AsyncClient, method: str, name: str
) -> None:
    answer = await client.request(method, f"/v1/{name}", json={"input": "x"})
    assert answer.status_code == 405
    head = f"Method Not Allowed: {method} /v1/{name}: "
    assert answer.json()["error"]["message"] == f"{head}{NOT_WITH_METHOD[method, name]}."


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/completions"), ("PUT", "/v1/chat/completions"), ("GET", "/tokenize"),
     ("GET", "/v1/chat/completions/input_tokens")],
)  # fmt: skip
async def test_of_other_methods_nothing_is_known(
    client: httpx.AsyncClient, method: str, path: str
) -> None:
    message = (await client.request(method, path)).json()["error"]["message"]
    assert message == f"Method Not Allowed: {method} {path}"
