from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest

from quire.cli import chat
from quire.cli.chat import Conversation
from quire.outputs import CompletionOutput, RequestOutput
from quire.sampling_params import SamplingParams

Messages = list[dict[str, str]]


class FakeLLM:
    """Answers with the pieces it was given; an exception among them is raised."""

    def __init__(self, *answers: list[str | BaseException]) -> None:
        self._answers = list(answers)
        self.heard: list[Messages] = []
        self.num_closed = 0

    def stream_chat(
        self, messages: Messages, params: SamplingParams, options: object
    ) -> Iterator[RequestOutput]:
        self.heard.append(list(messages))
        try:
            for piece in self._answers.pop(0):
                if isinstance(piece, BaseException):
                    raise piece
                completion = CompletionOutput(0, piece, [1], None, None)
                yield RequestOutput("0", None, None, None, [completion], False)
        finally:
            self.num_closed += 1


def conversation(llm: Any, system: str | None = None) -> Conversation:
    return Conversation(llm, SamplingParams(), system)


def test_the_conversation_is_remembered() -> None:
    llm = FakeLLM(["Hello", " Alia."], ["Alia."])
    talk = conversation(llm, system="Be brief.")
    assert list(talk.say("I am Alia.")) == ["Hello", " Alia."]
    assert list(talk.say("Who am I?")) == ["Alia."]
    assert llm.heard[1] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "I am Alia."},
        {"role": "assistant", "content": "Hello Alia."},
        {"role": "user", "content": "Who am I?"},
    ]
    talk.clear()
    assert talk.messages == [{"role": "system", "content": "Be brief."}]


def test_ctrl_c_stops_the_answer_and_not_the_program(capsys: pytest.CaptureFixture[str]) -> None:
    llm = FakeLLM(["One", KeyboardInterrupt()], ["Two"])
    talk = conversation(llm)
    chat._print_answer(talk, "count", on_terminal=True)
    chat._print_answer(talk, "go on", on_terminal=True)
    assert capsys.readouterr().out == "One [stopped]\nTwo\n"
    assert llm.heard[1][1] == {"role": "assistant", "content": "One"}
    assert llm.num_closed == 2


def test_ctrl_c_ends_a_piped_chat() -> None:
    with pytest.raises(KeyboardInterrupt):
        chat._print_answer(conversation(FakeLLM([KeyboardInterrupt()])), "x", on_terminal=False)


def test_a_turn_that_fails_is_not_remembered(capsys: pytest.CaptureFixture[str]) -> None:
    talk = conversation(FakeLLM([ValueError("too long")], ["Yes."]))
    chat._print_answer(talk, "a long story", on_terminal=True)
    assert "error: too long" in capsys.readouterr().err
    assert talk.messages == []


def test_blank_lines_are_no_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(chat._piped_lines(io.StringIO("\n  a \n\nb"))) == ["a", "b"]
    lines = iter(["", " hello ", KeyboardInterrupt(), EOFError()])

    def read(prompt: str) -> str:
        line = next(lines)
        if isinstance(line, BaseException):
            raise line
        return line

    monkeypatch.setattr("builtins.input", read)
    assert list(chat._terminal_lines()) == ["hello"]
