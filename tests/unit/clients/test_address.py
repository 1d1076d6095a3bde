from __future__ import annotations

import json

import pytest

from quire.clients.address import Address, api_key, refusal


@pytest.mark.parametrize(
    ("text", "url", "authority"),
    [
        ("http://localhost:8000", "http://localhost:8000/v1/models", "localhost:8000"),
        ("http://localhost:8000/v1/", "http://localhost:8000/v1/models", "localhost:8000"),
        ("https://host/api/v1", "https://host/api/v1/models", "host"),
        ("http://[::1]:80/x", "http://[::1]/x/v1/models", "[::1]"),
    ],
)
def test_the_api_is_found_with_and_without_its_version(text: str, url: str, authority: str) -> None:
    address = Address.parse(text)
    assert address.url("/v1/models") == url
    assert address.authority == authority


@pytest.mark.parametrize("text", ["localhost:8000", "ftp://x", "http://", "http://x:99999"])
def test_what_is_no_url_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"not the URL|out of range"):
        Address.parse(text)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (json.dumps({"error": {"message": "too long", "code": 400}}).encode(), "400: too long"),
        (json.dumps({"type": "error", "error": {"message": "m"}}).encode(), "400: m"),
        (json.dumps({"message": "old form"}).encode(), "400: old form"),
        (b"<h1>Bad</h1>", "400: <h1>Bad</h1>"),
        (b"", "400: without a reason"),
    ],
)
def test_a_refusal_says_what_the_server_says(body: bytes, message: str) -> None:
    error = refusal(400, body)
    assert str(error).endswith(message) and error.status == 400


def test_a_given_key_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert api_key(None) is None
    monkeypatch.setenv("OPENAI_API_KEY", "theirs")
    assert api_key(None) == "theirs"
    monkeypatch.setenv("QUIRE_API_KEY", "ours")
    assert api_key(None) == "ours"
    assert api_key("said") == "said"
