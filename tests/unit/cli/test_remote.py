"""`quire chat --url` and `quire complete` against a server that streams what it is told."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import pytest

from quire.cli import chat, main
from quire.cli.remote_chat import RemoteConversation
from quire.clients.remote import RemoteModel, RemoteServer
from tests.fakes.sse_server import FakeServer, Script, Seen, events, fake_server, json_script


class FakeModel:
    """Answers with the pieces that stand next, or deltas; the last of an answer ends it."""

    def __init__(
        self, *answers: Sequence[str | dict[str, str]], context: int = 1000, total: int = 0
    ) -> None:
        self._answers = list(answers)
        self._card = {"id": "m", "max_model_len": context}
        self._total = total
        self.bodies: list[dict[str, Any]] = []

    def __call__(self, seen: Seen) -> Script:
        if seen.path == "/v1/models":
            return json_script({"data": [self._card]})
        self.bodies.append(seen.body)
        is_chat = seen.path == "/v1/chat/completions"
        chunks = [self._chunk(piece, is_chat) for piece in self._answers.pop(0)]
        if self._total:
            total = self._total * len(self.bodies)
            chunks.append({"choices": [], "usage": {"total_tokens": total}})
        return Script(pieces=events(*chunks, "[DONE]"), keeps_alive=False)

    @staticmethod
    def _chunk(piece: str | dict[str, str], is_chat: bool) -> dict[str, Any]:
        delta = {"content": piece} if isinstance(piece, str) else piece
        reason = "length" if "".join(delta.values()).endswith("...") else None
        text = {"delta": delta} if is_chat else {"text": piece}
        return {"choices": [{"index": 0, "finish_reason": reason, **text}]}


def feed(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


def test_a_piped_chat_remembers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = FakeModel(["Hello", " Alia."], ["Alia", "..."], ["Who?"])
    feed(monkeypatch, "I am Alia.\nWho am I?\n/clear\nAnd now?\n/exit\nnever said\n")
    with fake_server(model) as server:
        words = ["--system-prompt", "Be brief.", "--temperature", "0", "--top-k", "4"]
        assert main(["chat", "--url", f"{server.url}/v1", *words]) == 0
    captured = capsys.readouterr()
    assert captured.out == "Hello Alia.\nAlia...\nWho?\n"
    assert "[cut at the length limit]" in captured.err
    system = {"role": "system", "content": "Be brief."}
    assert model.bodies[1]["messages"] == [
        system,
        {"role": "user", "content": "I am Alia."},
        {"role": "assistant", "content": "Hello Alia."},
        {"role": "user", "content": "Who am I?"},
    ]
    assert model.bodies[2]["messages"] == [system, {"role": "user", "content": "And now?"}]
    body = model.bodies[0]
    assert (body["model"], body["temperature"], body["top_k"]) == ("m", 0.0, 4)
    assert "max_tokens" not in body and "top_p" not in body  # the server's own


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_thoughts_are_shown_apart_from_the_answer(
    capsys: pytest.CaptureFixture[str], field: str
) -> None:
    model = FakeModel([{field: "Let me "}, {field: "see."}, "Yes", "."])
    with fake_server(model) as server:
        assert main(["chat", "--url", server.url, "-q", "Is it?"]) == 0
    assert capsys.readouterr() == ("Yes.\n", "[thoughts] Let me see.\n")


def test_thoughts_are_dim_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with fake_server(FakeModel([{"reasoning": "Hm."}, "Yes."])) as server:
        assert main(["chat", "--url", server.url, "-q", "Is it?"]) == 0
    assert capsys.readouterr() == ("Yes.\n", "\x1b[2mHm.\x1b[0m\n")


def test_an_answer_that_was_cut_within_its_thoughts_says_so_and_its_question_stays(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = FakeModel([{"reasoning": "Well..."}], [{"reasoning": "Ah."}, "Alia."])
    feed(monkeypatch, "I am Alia.\nWho am I?\n")
    with fake_server(model) as server:
        assert main(["chat", "--url", server.url]) == 0
    captured = capsys.readouterr()
    assert captured.out == "\nAlia.\n"
    assert captured.err.splitlines() == [
        "[thoughts] Well...",
        "[cut at the length limit while still thinking; raise --max-tokens]",
        "[cut at the length limit]",
        "[thoughts] Ah.",
    ]
    assert model.bodies[1]["messages"] == [
        {"role": "user", "content": "I am Alia."},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": "Who am I?"},
    ]


def test_a_quick_question(capsys: pytest.CaptureFixture[str]) -> None:
    model = FakeModel(["Yes."])
    with fake_server(model) as server:
        assert main(["chat", "--url", server.url, "--model-name", "other", "-q", "Is it?"]) == 0
    assert capsys.readouterr().out == "Yes.\n"
    assert model.bodies[0]["model"] == "other"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dtype", "float32"], "--dtype configures an engine, but --url uses a server"),
        (["--quantization", "awq"], "--quantization configures an engine, but --url"),
        (["--chat-template", "x"], "--chat-template configures answers, but --url"),
        (["--top-p", "9"], "top_p must be"),
    ],
)
def test_flags_that_a_server_would_not_see_are_refused(
    capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["chat", "--url", "http://localhost:1", *words]) == 1
    assert message in capsys.readouterr().err


def test_a_server_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    with fake_server(FakeModel()) as server:
        url = server.url
    assert main(["chat", "--url", url, "-q", "x"]) == 1
    assert f"{url} cannot be reached: Connection refused" in capsys.readouterr().err


def talk_with(server: FakeServer, context: int) -> RemoteConversation:
    model = RemoteModel(name="m", max_model_len=context)
    return RemoteConversation(RemoteServer(server.url), model, {"max_tokens": 100})


def said(talk: RemoteConversation) -> list[str]:
    """What the model would hear before the next question."""
    return [message["content"] for message in talk.history.messages("?")[:-1]]


def test_the_oldest_turns_are_forgotten_when_the_context_is_full() -> None:
    """A turn takes 200 tokens, an answer's room is 100, the next turn's guess 16."""
    with fake_server(FakeModel(*[["b"]] * 5, total=200)) as server:
        talk = talk_with(server, context=520)
        forgotten = []
        for text in ("1", "2", "3", "4"):
            assert "".join(talk.say(text)) == "b"
            forgotten.append(talk.num_forgotten)
        assert forgotten == [0, 0, 0, 1]
        assert said(talk) == ["2", "b", "3", "b", "4", "b"]
        talk.clear()
        assert said(talk) == []
        list(talk.say("5"))
        assert talk.num_forgotten == 0


def is_too_long(seen: Seen) -> bool:
    return len(seen.body["messages"][-1]["content"]) > 500


def test_a_message_that_the_server_refuses_makes_nothing_forgotten(
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = FakeModel(["b"], ["Yes."], total=200)
    refusal = json_script({"error": {"message": "too long"}}, status=400)
    with fake_server(lambda seen: refusal if is_too_long(seen) else model(seen)) as server:
        talk = talk_with(server, context=520)
        list(talk.say("1"))
        chat._print_answer(talk, "2" * 1000, on_terminal=True)
        assert "error: " in (told := capsys.readouterr().err)
        assert "too long" in told and "forgotten" not in told
        assert said(talk) == ["1", "b"]
        assert list(talk.say("3")) == ["Yes."]
    assert len(model.bodies[1]["messages"]) == 3


def test_what_is_forgotten_is_told_before_the_first_thought(
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = FakeModel(["b"], [{"reasoning": "Hm."}, "Yes."], total=500)
    with fake_server(model) as server:
        talk = talk_with(server, context=520)
        list(talk.say("1"))
        chat._print_answer(talk, "2", on_terminal=False)
    note, thought = capsys.readouterr().err.splitlines()
    assert "its oldest turn is forgotten" in note and thought == "[thoughts] Hm."


def test_figures_of_a_turn_that_makes_others_forgotten_begin_with_its_first_token() -> None:
    model = FakeModel(["b"], [{"role": "assistant"}, {"content": ""}, "Yes."], total=500)
    with fake_server(model) as server:
        talk = talk_with(server, context=520)
        list(talk.say("1"))
        assert list(talk.say("2")) == ["Yes."]
        assert talk.num_forgotten == 1


def test_what_is_forgotten_for_an_empty_answer_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with fake_server(FakeModel(["b"], [""], total=500)) as server:
        talk = talk_with(server, context=520)
        list(talk.say("1"))
        chat._print_answer(talk, "2", on_terminal=False)
    assert "its oldest turn is forgotten" in capsys.readouterr().err


def test_thoughts_take_no_room_in_the_next_turns() -> None:
    usage = {
        "total_tokens": 900,
        "completion_tokens": 850,
        "completion_tokens_details": {"reasoning_tokens": 800},
    }
    delta = {"reasoning": "Hm.", "content": "Yes."}
    chunk = {"choices": [{"index": 0, "delta": delta}], "usage": usage}
    script = Script(pieces=events(chunk, "[DONE]"), keeps_alive=False)
    with fake_server(lambda seen: script) as server:
        talk = talk_with(server, context=1000)
        assert list(talk.say("Is it?")) == ["", "Yes."]
        assert talk.num_tokens == 850
        list(talk.say("And now?"))
        assert talk.num_forgotten == 0


def test_an_answer_that_is_stopped_stays_as_far_as_it_came() -> None:
    with fake_server(FakeModel(["One", "two"])) as server:
        talk = talk_with(server, context=0)
        pieces = talk.say("count")
        assert next(pieces) == "One"
        pieces.close()
    assert said(talk) == ["count", "One"]


def test_prompts_are_continued(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = FakeModel([" one", " two"], [" b"], [" c"])
    with fake_server(model) as server:
        words = ["complete", "--url", server.url]
        assert main([*words, "--prompt", "zero", "--seed", "7", "--max-tokens", "2"]) == 0
        assert main([*words, "-q", "a"]) == 0
        feed(monkeypatch, "\nline\n")
        assert main(words) == 0
    assert capsys.readouterr().out == "zero one two\na b\nline c\n"
    body = model.bodies[0]
    assert (body["prompt"], body["max_tokens"], body["seed"]) == ("zero", 2, 7)


def test_prompts_keep_their_spaces(monkeypatch: pytest.MonkeyPatch) -> None:
    model = FakeModel([" one"], [" two"])
    feed(monkeypatch, "  def f(): \r\n \n\tthree \n")
    with fake_server(model) as server:
        assert main(["complete", "--url", server.url]) == 0
    assert [body["prompt"] for body in model.bodies] == ["  def f(): ", "\tthree "]
