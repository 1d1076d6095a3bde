"""What becomes of the flags of vLLM's `run-batch` that Quire's lacks."""

from __future__ import annotations

import logging

import pytest

from quire.batch_files.other_flags import VERDICTS
from quire.cli import run_batch
from quire.cli.parser import Parser
from quire.compat import settle_other_flags


def settle(words: str) -> list[str]:
    """The attributes that are left for the command."""
    parser = Parser(prog="quire run-batch", description=None)
    run_batch.add_arguments(parser)
    arguments = parser.parse(["-i", "in", "-o", "out", *words.split()])
    settle_other_flags(arguments, VERDICTS)
    return [name for name in VERDICTS if hasattr(arguments, name)]


@pytest.mark.parametrize(
    "words",
    [
        "--host 0.0.0.0",
        "--port 9000",
        "--max-log-len 100",
        "--enable-prompt-tokens-details",
        "--enable-force-include-usage",
        "--enable-server-load-tracking",
        "--enable-tokenizer-info-endpoint",
        "--log-error-stack",
    ],
)
def test_a_flag_without_effect_is_noted(words: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="quire"):
        assert settle(words) == []
    (record,) = caplog.records
    assert "is accepted and has no effect" in record.getMessage()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--enable-metrics --url localhost", "leave out --enable-metrics, --host, --port and --"),
        ("--tool-server demo", "tools do not run in the server"),
        ("--log-config-file x.json", "use QUIRE_LOGGING_LEVEL"),
        ("--enable-log-outputs", "answers are never logged"),
    ],
)
def test_a_flag_for_something_else_is_refused(words: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settle(words)
