from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from quire.bench.serving import readiness
from quire.bench.serving.readiness import until_answered
from quire.clients.address import Address, CertificateError, ServerError

ADDRESS = Address.parse("http://host:1")
AWAY = ServerError("gone")


class Asked:
    """Raises each of ``errors`` once, then answers."""

    def __init__(self, errors: Sequence[ServerError]) -> None:
        self._errors = list(errors)

    async def __call__(self) -> str:
        if self._errors:
            raise self._errors.pop(0)
        return "answer"


async def never() -> str:
    await asyncio.Event().wait()
    return "never"


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "_CHECK_INTERVAL_S", 0.0)
    monkeypatch.setattr("quire.log.setup", lambda: None)  # its handler would hide the records


async def test_each_reason_to_wait_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    loading = ServerError("loading", 503)
    asked = Asked([AWAY, AWAY, loading, loading, ServerError("full", 429)])
    assert await until_answered(asked, ADDRESS, 60) == "answer"
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        f"waiting for http://host:1, up to 60 s: {it}" for it in ("gone", "loading", "full")
    ]


async def test_silence_is_told_and_ends(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(readiness, "_SILENCE_S", 0.0)
    with pytest.raises(ServerError, match=r"http://host:1 does not answer; gave up after 0.05 s"):
        await until_answered(never, ADDRESS, 0.05)
    assert "waiting for http://host:1, up to 0.05 s: http://host:1 does not answer" in caplog.text


async def test_the_end_of_waiting_says_what_was_wrong() -> None:
    with pytest.raises(ServerError, match=r"gone; gave up after 0.05 s \(--ready-check-timeout"):
        await until_answered(Asked([AWAY] * 10**6), ADDRESS, 0.05)


@pytest.mark.parametrize("error", [ServerError("no", 404), CertificateError("untrusted")])
async def test_what_waiting_does_not_cure_ends_at_once(
    error: ServerError, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ServerError, match=str(error)):
        await until_answered(Asked([error]), ADDRESS, 60)
    assert not caplog.records


async def test_a_certificate_need_not_be_checked() -> None:
    with pytest.raises(ServerError, match="untrusted, or add --insecure"):
        await until_answered(Asked([CertificateError("untrusted")]), ADDRESS, 60)


async def test_without_patience_there_is_one_try() -> None:
    with pytest.raises(ServerError, match=r"^gone$"):
        await until_answered(Asked([AWAY]), ADDRESS, 0)
    assert await until_answered(Asked([]), ADDRESS, 0) == "answer"
