"""What messages of errors say."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from quire.named_processors import NamedProcessor
from quire.server.errors import HTTPError, bad_request, internal, renamed
from quire.server.input_phase import input_errors


def test_a_message_quotes_no_more_than_one_can_read() -> None:
    error = bad_request(f"there is no {'x' * 10**6}", "y" * 10**6)
    assert len(error.message) == 4000
    assert error.param is not None and len(error.param) == 200


def test_every_field_is_called_as_the_client_calls_it() -> None:
    names = {"max_tokens": "max_output_tokens", "stop": "stop_sequences"}
    text = "max_tokens must be below max_tokens_x; stop with max_tokens, or --max_tokens"
    with pytest.raises(HTTPError) as caught, renamed(names):
        raise bad_request(text, "max_tokens")
    assert caught.value.param == "max_output_tokens"
    assert caught.value.message == (
        "max_output_tokens must be below max_tokens_x; stop with max_output_tokens, or --max_tokens"
    )


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"stop": ["/home/foo/bar", "", "a"]}, "got ['/home/foo/bar', '', 'a']; remove"),
        ({"bad_words": ["/home/foo/bar", ""]}, "got ['/home/foo/bar', '']; remove"),
        ({"guided_regex": "[0-9]{4}/[0-9]{2}/[0-9]{2}("}, r"[0-9]{4}\/[0-9]{2}\/[0-9]{2}("),
        ({"/etc/passwd": 1}, "unknown field '/etc/passwd'"),
        ({"container": "/home/foo/bar"}, "got '/home/foo/bar'"),
        ({"temperature": "/home/foo/bar"}, "got '/home/foo/bar'"),
    ],
)
async def test_what_the_client_sent_is_told_as_it_came(
    client: httpx.AsyncClient, body: dict[str, Any], message: str
) -> None:
    answer = await client.post("/v1/completions", json={"prompt": "a", **body})
    assert answer.status_code == 400 and message in answer.json()["error"]["message"]


def test_others_exceptions_tell_no_paths() -> None:
    with pytest.raises(HTTPError) as caught, input_errors():
        json.loads("[")  # is a ValueError
    assert caught.value.message.startswith("Expecting value")
    with pytest.raises(HTTPError) as caught, input_errors():
        raise ValueError("no such file: /usr/share/secret")
    assert caught.value.message == "no such file: secret"
    with pytest.raises(HTTPError) as caught, input_errors():
        NamedProcessor.parse({"qualname": f"{__name__}.broken", "args": []}).load()
    assert caught.value.message.endswith("RuntimeError: cannot read secret")
    with pytest.raises(HTTPError) as caught:
        read_in_our_frame("/usr/share/secret")
    assert caught.value.message.endswith("No such file or directory: 'secret'")
    assert internal("/usr/share/secret is gone").message == "secret is gone"


def read_in_our_frame(path: str) -> None:
    code = compile("open(path)", "ours", "exec")
    try:
        exec(code, {"__name__": "quire.server.ours", "path": path})
    except OSError as error:
        raise bad_request(f"unusable: {error}") from error


def broken() -> None:
    """As the constructor of a logits processor."""
    raise RuntimeError("cannot read /usr/share/secret")


async def test_a_long_name_of_a_model_is_not_told_again(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/completions", json={"prompt": "a", "model": "x" * 10**6})
    assert answer.status_code == 404 and len(answer.text) < 500
