"""The progress bar of LLM's calls, on a core that repeats the prompt."""

from __future__ import annotations

import errno
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from quire.engine.llm_engine import LLMEngine
from quire.llm import LLM
from quire.sampling_params import BeamSearchParams, SamplingParams
from tests.fakes.configs import fake_config
from tests.fakes.fake_core import BUILD_FAKE_CORE

FOUR = SamplingParams(max_tokens=4)


@pytest.fixture
def llm(byte_tokenizer: Path) -> Iterator[LLM]:
    config = fake_config(folder=byte_tokenizer, skip_tokenizer_init=False)
    with LLM.from_engine(LLMEngine(config, build=BUILD_FAKE_CORE)) as made:
        yield made


def test_progress_bar_can_be_the_callers(llm: LLM) -> None:
    bars: list[Bar] = []

    class Bar:
        def __init__(self, total: int, **options: object) -> None:
            self.left, self.closed, self.postfix = total, False, ""
            bars.append(self)

        def update(self, count: int) -> None:
            self.left -= count

        def set_postfix_str(self, text: str, refresh: bool) -> None:
            self.postfix = text

        def close(self) -> None:
            self.closed = True

    llm.generate(["ab", "cd"], FOUR, use_tqdm=Bar)
    (bar,) = bars
    assert (bar.left, bar.closed) == (0, True)
    assert "tok/s" in bar.postfix


def test_progress_bar_of_the_callers_needs_no_method_for_the_postfix(llm: LLM) -> None:
    bars: list[Any] = []

    class Bar:
        def __init__(self, **options: object) -> None:
            bars.append(self)

        def update(self, count: int) -> None:
            pass

        def close(self) -> None:
            pass

    (output,) = llm.generate("abc", FOUR, use_tqdm=Bar)
    assert output.outputs[0].text == "abca"
    assert "tok/s" in bars[0].postfix


def test_progress_bar_is_for_terminals(
    llm: LLM, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    llm.generate("ab", FOUR)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    llm.generate("ab", FOUR, use_tqdm=False)
    llm.generate([], FOUR)
    assert capsys.readouterr().err == ""
    llm.generate("ab", FOUR)
    assert "Processed prompts" in capsys.readouterr().err


def test_progress_bar_that_was_asked_for_needs_no_terminal(
    llm: LLM, capsys: pytest.CaptureFixture[str]
) -> None:
    conversation = [{"role": "user", "content": "Hi"}]
    beams = BeamSearchParams(beam_width=1, max_tokens=1)
    for call in (
        lambda use_tqdm: llm.generate("ab", FOUR, use_tqdm=use_tqdm),
        lambda use_tqdm: llm.chat(conversation, FOUR, use_tqdm=use_tqdm),
        lambda use_tqdm: llm.beam_search("ab", beams, use_tqdm=use_tqdm),
    ):
        call(None)
        assert capsys.readouterr().err == ""
        call(True)
        shown = capsys.readouterr().err
        assert "Processed prompts: 100%" in shown and "tok/s" in shown


def test_progress_bar_is_for_notebooks_too(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = type("OutStream", (io.StringIO,), {"__module__": "ipykernel.iostream"})()
    monkeypatch.setattr(sys, "stderr", notebook)
    llm.generate("ab", FOUR)
    assert "Processed prompts" in notebook.getvalue()


class WriteOnly:
    """What programs put in the place of stderr to send it to a log."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        pass


def test_stderr_that_can_only_write_has_no_onlooker(
    llm: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = WriteOnly()
    monkeypatch.setattr(sys, "stderr", log)
    llm.generate("ab", FOUR)
    assert log.text == ""
    llm.generate("ab", FOUR, use_tqdm=True)
    assert "Processed prompts: 100%" in log.text


class FullDisk(WriteOnly):
    def write(self, text: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("stderr", [None, FullDisk()])
def test_progress_bar_that_cannot_be_written_is_lost_alone(
    llm: LLM, monkeypatch: pytest.MonkeyPatch, stderr: object
) -> None:
    monkeypatch.setattr(sys, "stderr", stderr)
    (output,) = llm.generate("abc", FOUR, use_tqdm=True)
    assert output.outputs[0].text == "abca"
