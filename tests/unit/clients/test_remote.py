from __future__ import annotations

import socket

import pytest

from quire.clients.address import ServerError
from quire.clients.remote import RemoteModel, RemoteServer
from tests.fakes.sse_server import Script, events, fake_server, json_script

CARDS = {"data": [{"id": "first", "max_model_len": 64, "root": "/m"}, {"id": "second"}]}


def test_the_first_model_unless_one_is_named() -> None:
    with fake_server(lambda seen: json_script(CARDS)) as fake:
        server = RemoteServer(fake.url, "key")
        assert server.model() == RemoteModel(name="first", max_model_len=64, root="/m")
        assert server.model("second") == RemoteModel(name="second")
        assert server.model("hidden") == RemoteModel(name="hidden")
    assert fake.seen[0].headers["authorization"] == "Bearer key"


def test_a_server_need_not_list_a_model_that_is_named() -> None:
    with fake_server(lambda seen: json_script({}, status=404)) as fake:
        server = RemoteServer(fake.url)
        assert server.model("mine") == RemoteModel(name="mine")
        with pytest.raises(ServerError, match=r"answered 404.*; name a model with --model"):
            server.model()


def test_a_server_that_never_lists_its_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quire.clients.remote.GET_TIMEOUT_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        server = RemoteServer(f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(ServerError, match="cannot be reached: timed out"):
            server.model("mine")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"data": []}, "serves no model"),
        ({"x": 1}, "did not list its models; name a model with --model"),
    ],
)
def test_a_list_of_models_without_a_model(content: object, message: str) -> None:
    with fake_server(lambda seen: json_script(content)) as fake:
        server = RemoteServer(fake.url)
        with pytest.raises(ServerError, match=message):
            server.model()


def test_a_stream_is_its_events_up_to_done() -> None:
    pieces = events({"n": 1}, {"n": 2}, "[DONE]", {"n": 3})
    with fake_server(lambda seen: Script(pieces=pieces, keeps_alive=False)) as fake:
        got = list(RemoteServer(fake.url).stream("/v1/completions", {"prompt": "x"}))
    assert got == [{"n": 1}, {"n": 2}]
    assert fake.seen[0].body == {
        "prompt": "x",
        "stream": True,
        "stream_options": {"include_usage": True},
    }


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (json_script({"error": {"message": "no such model"}}, status=404), "404: no such model"),
        (Script(pieces=events({"error": {"message": "it died"}})), "it died"),
        (Script(pieces=events("nonsense")), "an event that is not JSON"),
        (Script(pieces=events([1])), r"an event that is not a JSON object: b'\[1\]'$"),
        (Script(pieces=events([1] * 99)), r"JSON object: b'\[1, 1, .*\.\.\.$"),
        (Script(pieces=events({"n": 1}), then_close=True), "in the middle of its answer"),
    ],
)
def test_a_stream_that_fails_says_why(script: Script, message: str) -> None:
    with (
        fake_server(lambda seen: script) as fake,
        pytest.raises(ServerError, match=message),
    ):
        list(RemoteServer(fake.url).stream("/v1/completions", {}))
