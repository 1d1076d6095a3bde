"""What messages of errors say."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from quire.server.errors import HTTPError, bad_request, renamed, shown


@pytest.mark.parametrize(
    "value", [None, 1.5, "a'b", [], {}, [1, "x", [None]], {"a": {"b": [True]}, "c": "\n"}]
)
def test_a_wrong_value_is_shown_as_python_writes_it(value: Any) -> None:
    assert shown(value, 100) == repr(value)


def test_a_long_value_is_cut() -> None:
    assert shown("x" * 100, 10) == "'xxxxxx..."
    assert shown({"x" * 100: 1}, 10) == "{'xxxxx..."


def test_of_a_large_value_only_the_beginning_is_looked_at() -> None:
    class Endless(list[int]):
        def __iter__(self) -> Iterator[int]:
            return itertools.count()

    assert shown(Endless(), 10) == "[0, 1, ..."
    assert shown({"a": Endless()}, 14) == "{'a': [0, 1..."


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


async def test_a_long_name_of_a_model_is_not_told_again(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/completions", json={"prompt": "a", "model": "x" * 10**6})
    assert answer.status_code == 404 and len(answer.text) < 500
