from __future__ import annotations

import argparse
import contextlib
import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from quire.cli import chat, main
from quire.cli.conversation import Conversation
from quire.outputs import CompletionOutput, RequestOutput
from quire.sampling_params import SamplingParams

Messages = list[dict[str, str]]


class Tokenizer:
    """One token a character; a message is its content and a line's end."""

    chat_template = "{% for message in messages %}{{ message.content }}\n{% endfor %}"

    def get_chat_template(self, given: str | None, tools: object) -> str:
        return given or self.chat_template

    def apply_chat_template(self, messages: Messages, **options: object) -> str:
        return "".join(message["content"] + "\n" for message in messages)

    def encode(self, text: str, **options: object) -> list[int]:
        return [ord(letter) for letter in text]


class FakeLLM:
    """Answers with the pieces it was given; an exception among them is raised."""

    def __init__(self, *answers: list[str | BaseException], context: int = 10_000) -> None:
        self._answers = list(answers)
        self.model_config = SimpleNamespace(max_model_len=context)
        self.heard: list[Messages] = []
        self.templates: list[str | None] = []
        self.num_closed = 0

    def get_tokenizer(self) -> Tokenizer:
        return Tokenizer()

    def stream_chat(
        self, messages: Messages, params: SamplingParams, *, chat_template: str | None
    ) -> Iterator[RequestOutput]:
        self.heard.append(list(messages))
        self.templates.append(chat_template)
        try:
            for piece in self._answers.pop(0):
                if isinstance(piece, BaseException):
                    raise piece
                reason = "length" if piece.endswith("...") else None
                completion = CompletionOutput(0, piece, [1], None, None, finish_reason=reason)
                yield RequestOutput("0", None, None, None, [completion], False)
        finally:
            self.num_closed += 1


def conversation(llm: Any, system: str | None = None) -> Conversation:
    return Conversation(llm, SamplingParams(max_tokens=None), system)


def said(talk: Conversation) -> list[str]:
    """What the model would hear before the next question."""
    return [message["content"] for message in talk.history.messages("?")[:-1]]


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
    assert said(talk) == ["Be brief."]


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
    assert said(talk) == []


def test_a_message_that_is_refused_makes_nothing_forgotten(
    capsys: pytest.CaptureFixture[str],
) -> None:
    llm = FakeLLM(["b" * 10], ["c" * 10], [ValueError("too long")], ["Yes."], context=100)
    talk = conversation(llm, system="Short")
    for line in ("1" * 10, "2" * 10):
        chat._print_answer(talk, line, on_terminal=True)
    capsys.readouterr()
    chat._print_answer(talk, "3" * 200, on_terminal=True)
    assert capsys.readouterr().err == "error: too long\n"
    assert said(talk) == ["Short", "1" * 10, "b" * 10, "2" * 10, "c" * 10]
    assert list(talk.say("4")) == ["Yes."]
    assert talk.num_forgotten == 0 and len(llm.heard[3]) == 6


@pytest.mark.parametrize("on_terminal", [True, False])
def test_the_oldest_turns_are_forgotten_when_the_context_is_full(
    capsys: pytest.CaptureFixture[str], on_terminal: bool
) -> None:
    """Of 60 tokens 15 are kept for an answer; a turn of these takes 22, the system message 6."""
    llm = FakeLLM(*[["b" * 10] for _ in range(4)], context=60)
    talk = conversation(llm, system="Short")
    for line in ("1" * 10, "2" * 10, "3" * 10):
        chat._print_answer(talk, line, on_terminal)
    captured = capsys.readouterr()
    assert captured.out == ("b" * 10 + "\n") * 3
    assert captured.err == (
        "[the conversation no longer fits in 60 tokens: its oldest turn is forgotten; "
        "/clear forgets all of it]\n"
    )
    assert [message["content"] for message in llm.heard[2]] == [
        *("Short", "2" * 10, "b" * 10, "3" * 10)
    ]
    chat._print_answer(talk, "4" * 30, on_terminal)
    assert "its oldest 2 turns are forgotten" in capsys.readouterr().err
    assert len(llm.heard[3]) == 2


def test_a_template_of_the_users_own_is_kept() -> None:
    """Its heads of messages are longer, and so less fits."""
    llm = FakeLLM(["b" * 10], ["b" * 10], context=60)
    template = "{% for message in messages %}12345{{ message.content }}{% endfor %}"
    talk = Conversation(llm, SamplingParams(), chat_template=template)  # type: ignore[arg-type]
    assert list(talk.say("1" * 10)) == ["b" * 10]
    assert list(talk.say("2" * 10)) == ["b" * 10]
    assert talk.num_forgotten == 0
    assert llm.templates == [template] * 2


def test_an_answer_cut_by_length_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    talk = conversation(FakeLLM(["One", "two..."], ["three"]))
    chat._print_answer(talk, "count", on_terminal=False)
    assert capsys.readouterr() == ("Onetwo...\n", "[cut at the length limit]\n")
    chat._print_answer(talk, "go on", on_terminal=False)
    assert capsys.readouterr().err == ""


def test_figures_follow_an_answer_when_they_are_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    talk = conversation(FakeLLM(["A", "B", "C"], ["D"]))
    chat._print_answer(talk, "go on", on_terminal=False, stats=True)
    shown = capsys.readouterr()
    assert shown.out == "ABC\n"
    assert re.fullmatch(r"\[first token \d+ ms, 3 tokens, [\d.]+ tokens/s\]\n", shown.err)
    chat._print_answer(talk, "go on", on_terminal=False)
    assert capsys.readouterr().err == ""


def test_blank_lines_are_no_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(chat.piped_lines(["", "  a ", " ", "b"])) == ["  a ", "b"]
    with pytest.raises(ValueError, match="standard input has no text; give lines there"):
        list(chat.piped_lines([" "]))
    lines = iter(["", " hello ", KeyboardInterrupt(), EOFError()])

    def read(prompt: str) -> str:
        line = next(lines)
        if isinstance(line, BaseException):
            raise line
        return line

    monkeypatch.setattr("builtins.input", read)
    assert list(chat.terminal_lines()) == [" hello "]


def test_on_a_terminal_a_command_that_is_none_is_not_said_to_the_model(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    llm = FakeLLM(["A"], ["B"])
    lines = ["/foo ", " /etc/hosts is what?", "/ is a slash"]
    monkeypatch.setattr(chat, "terminal_lines", lambda: iter(lines))
    chat._converse(conversation(llm), "m", on_terminal=True)
    assert [heard[-1]["content"] for heard in llm.heard] == [line.strip() for line in lines[1:]]
    assert "there is no command /foo; /clear" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "max_tokens"),
    [
        ([], chat.DEFAULT_MAX_TOKENS),
        (["--url", "http://localhost:1"], None),  # a server knows what its context allows
        (["--url", "http://localhost:1", "--max-tokens", "7"], 7),
    ],
)
def test_only_an_answer_that_is_made_here_has_a_length_of_ours(
    monkeypatch: pytest.MonkeyPatch, words: list[str], max_tokens: int | None
) -> None:
    asked: list[int | None] = []

    @contextlib.contextmanager
    def talk(arguments: argparse.Namespace) -> Iterator[tuple[Conversation, str]]:
        asked.append(arguments.max_tokens)
        yield conversation(FakeLLM(["Yes."])), "m"

    monkeypatch.setattr(chat, "_talk", talk)
    assert main(["chat", *words, "-q", "Is it?"]) == 0
    assert asked == [max_tokens]


def test_a_misspelt_template_is_told_before_the_model_loads(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(chat, "open_llm", lambda arguments: pytest.fail("the model was loaded"))
    assert main(["chat", "-q", "Hi", "--chat-template", "vicunna"]) != 0
    assert "no chat template 'vicunna'; did you mean vicuna?" in capsys.readouterr().err
