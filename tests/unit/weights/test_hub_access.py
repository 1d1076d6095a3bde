"""Hubs that cannot be reached or refuse: proxies, tokens and what is said about them."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import close_session
from modelscope_hub import HubApi

from quire.errors import ModelLoadError
from quire.weights.hub import resolve_model
from tests.fakes.hub import FILES, NAME, FakeHub, FakeRepository, file_names


def test_token_opens_a_private_model(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repositories[NAME].token = "secret"
    with pytest.raises(ModelLoadError, match="set HF_TOKEN if the model is private"):
        resolve_model(NAME)
    assert resolve_model(NAME, token="secret", what="config").is_dir()
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert "model.safetensors" in file_names(resolve_model(NAME))


def test_hugging_face_token_is_not_sent_to_modelscope(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repositories[NAME].token = "secret"
    monkeypatch.setenv("QUIRE_USE_MODELSCOPE", "1")
    monkeypatch.setenv("HF_TOKEN", "secret")
    with pytest.raises(ModelLoadError, match="neither a folder here nor a model on ModelScope"):
        resolve_model(NAME, token="secret")


def test_gated_model_says_where_to_accept(hub: FakeHub) -> None:
    hub.repositories[NAME].gated = True
    with pytest.raises(ModelLoadError, match=rf"restricted; accept its terms at {hub.url}/{NAME}"):
        resolve_model(NAME)


def test_unreachable_hub_falls_back_to_the_cached_copy(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = resolve_model(NAME)
    with socket.socket() as closed:  # a port on which nobody listens
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}")
        assert resolve_model(NAME) == cached
        with pytest.raises(ModelLoadError, match=r"cannot reach http://127.0.0.1:.* is not in"):
            resolve_model("owner/other")


def test_unreachable_modelscope_falls_back_to_the_cached_copy(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **kwargs: object) -> None:  # the client itself tries for 7 s
        raise ConnectionError("no route")

    monkeypatch.setenv("QUIRE_USE_MODELSCOPE", "true")
    cached = resolve_model(NAME)
    monkeypatch.setattr(HubApi, "list_repo_files", fail)
    assert resolve_model(NAME) == cached
    with pytest.raises(ModelLoadError, match=r"owner/other cannot be .* \(no route\)"):
        resolve_model("owner/other")


def test_modelscope_that_refuses_says_which_token(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUIRE_USE_MODELSCOPE", "true")
    hub.status = 403
    with pytest.raises(ModelLoadError, match=r"HTTP 403.*MODELSCOPE_API_TOKEN"):
        resolve_model(NAME)


@pytest.mark.parametrize("status", [401, 403])
def test_modelscope_that_refuses_a_file_says_which_token(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setenv("QUIRE_USE_MODELSCOPE", "1")
    hub.failing["model.safetensors"] = status
    with pytest.raises(ModelLoadError, match=rf"HTTP {status}\); set MODELSCOPE_API_TOKEN to a"):
        resolve_model(NAME)


def test_hub_that_refuses_says_which_token(hub: FakeHub) -> None:
    hub.status = 403
    with pytest.raises(ModelLoadError, match=r"HTTP 403.*HF_TOKEN"):
        resolve_model(NAME)


def test_failing_hub_is_named_with_its_status(hub: FakeHub) -> None:
    hub.status = 500
    with pytest.raises(ModelLoadError, match="answers HTTP 500"):
        resolve_model(NAME)


def login_page(value: Any) -> bytes:
    return b"<html>Log in to this network</html>"


def without_commit(value: Any) -> bytes:
    return json.dumps({key: one for key, one in value.items() if key != "sha"}).encode()


def with_another_tree(value: Any) -> bytes:
    return json.dumps({"files": value} if isinstance(value, list) else value).encode()


@pytest.mark.parametrize("answer", [login_page, without_commit, with_another_tree])
def test_what_answers_as_no_hub_does_leaves_the_whole_copy(
    hub: FakeHub,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    answer: Callable[[Any], bytes],
) -> None:
    whole = resolve_model(NAME, what="config")
    hub.repositories["owner/other"] = FakeRepository(dict(FILES))
    send_json = "tests.fakes.hub._Handler._send_json"
    monkeypatch.setattr(send_json, lambda self, value: self._send(200, answer(value)))
    with pytest.raises(
        ModelLoadError,
        match=rf"^{hub.url} does not answer as a hub does for owner/other .*check HF_ENDPOINT",
    ):
        resolve_model("owner/other")
    assert resolve_model(NAME, what="config") == whole
    if answer is not with_another_tree:  # nothing is missing, so that nobody asks for the tree
        assert f"as a hub does for {NAME} (" in caplog.text and "; using the copy in" in caplog.text


def test_missing_modelscope_client_names_the_extra(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUIRE_USE_MODELSCOPE", "1")
    monkeypatch.setitem(__import__("sys").modules, "modelscope", None)
    with pytest.raises(ModelLoadError, match=r"pip install 'quire\[modelscope\]'"):
        resolve_model(NAME)


@pytest.mark.parametrize("token", ["secret\n", " secret\r\n"])
def test_white_space_around_a_token_is_not_sent(
    any_hub: FakeHub, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    any_hub.repositories[NAME].token = "secret"
    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", token)
    assert resolve_model(NAME).is_dir()
    assert resolve_model(NAME, token=token).is_dir()


@pytest.mark.parametrize("character", ["\x7f", "ö"])
def test_token_that_cannot_be_sent_is_an_error_that_does_not_tell_it(
    any_hub: FakeHub, monkeypatch: pytest.MonkeyPatch, character: str
) -> None:
    token = f"secret{character}"
    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", token)
    with pytest.raises(ModelLoadError, match=r"^the token of .*_TOKEN has characters") as error:
        resolve_model(NAME)
    assert "secret" not in str(error.value)


def test_token_in_what_the_client_says_is_not_told(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise ConnectionError("header Bearer secret at http://me:password@mirror/x")

    monkeypatch.setenv("MODELSCOPE_API_TOKEN", "secret")
    monkeypatch.setenv("QUIRE_USE_MODELSCOPE", "1")
    monkeypatch.setattr(HubApi, "list_repo_files", fail)
    with pytest.raises(ModelLoadError, match=r"\(header Bearer \*\*\* at http://mirror/x\)"):
        resolve_model(NAME)


def test_password_of_the_endpoint_is_not_told(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.url.replace("//", "//me:pass@word@"))
    with pytest.raises(ModelLoadError, match=rf"nor a model on {hub.url};"):
        resolve_model("owner/unknown")
    hub.status = 500
    with pytest.raises(ModelLoadError, match=rf"^{hub.url} answers HTTP 500 for {NAME}"):
        resolve_model(NAME)


@pytest.mark.parametrize("refusal", [401, 403, 404, "gone"])
def test_hub_that_refuses_leaves_the_whole_copy(
    any_hub: FakeHub, caplog: pytest.LogCaptureFixture, refusal: int | str
) -> None:
    whole = resolve_model(NAME)
    if refusal == "gone":
        del any_hub.repositories[NAME]
    else:
        any_hub.status = int(refusal)
    assert resolve_model(NAME) == whole
    assert "; using the copy in" in caplog.text


def test_gated_update_leaves_the_whole_copy(hub: FakeHub, caplog: pytest.LogCaptureFixture) -> None:
    whole = resolve_model(NAME)
    hub.repositories[NAME].files["config.json"] = b"{}"
    hub.repositories[NAME].gated = True
    assert resolve_model(NAME) == whole
    assert f"access to {NAME} is restricted; using the copy in" in caplog.text


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("ALL_PROXY", "gopher://me:password@127.0.0.1:1", "Unknown scheme for proxy URL"),
        ("http_proxy", "http://me:password@127.0.0.1:port", "Invalid port"),
        ("SSL_CERT_FILE", "/nonexistent", "No such file or directory"),
    ],
)
def test_connection_that_the_client_cannot_open_names_the_variable(
    hub: FakeHub,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    variable: str,
    value: str,
    reason: str,
) -> None:
    cached = resolve_model(NAME)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    monkeypatch.setenv(variable, value)
    close_session()
    assert resolve_model(NAME) == cached
    with pytest.raises(ModelLoadError, match=rf"{reason}.*; correct or unset {variable}, or give"):
        resolve_model("owner/other")
    assert "password" not in caplog.text


@pytest.mark.parametrize("variable", ["HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"])
def test_cache_is_where_the_hubs_own_client_has_it(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str
) -> None:
    monkeypatch.setenv("FAST_DISK", str(tmp_path / "fast"))
    monkeypatch.setenv(variable, "$FAST_DISK/models")
    folder = resolve_model(NAME)
    below = "models/hub" if variable == "HF_HOME" else "models"
    assert tmp_path / "fast" / below / "models--owner--tiny-1.0" in folder.parents
