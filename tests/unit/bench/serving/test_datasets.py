from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from quire.assets import TINY_CHAT
from quire.bench import serve
from quire.bench.serving.dataset_flags import settle_dataset
from quire.bench.serving.datasets import Source, load_requests
from quire.bench.serving.requests import BACKENDS, LoadRequest
from quire.bench.standard_workloads import standard_workload
from quire.cli.parser import Parser

VOCAB = 4096


def arguments(*words: str) -> Namespace:
    parser = Parser(prog="x", description=None)
    serve.add_arguments(parser)
    parsed = parser.parse(words)
    settle_dataset(parsed)
    return parsed


def load(*words: str) -> list[LoadRequest]:
    return load_requests(Source(arguments(*words), str(TINY_CHAT), VOCAB))


def write(folder: Path, content: Any) -> str:
    path = folder / "data"
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_text(text)
    return str(path)


def test_random_prompts_have_exact_lengths_and_depend_on_the_seed() -> None:
    words = ["--num-prompts", "5", "--random-input-len", "20", "--random-output-len", "7"]
    first = load(*words, "--random-prefix-len", "4")
    assert [(len(one.prompt), one.num_output_tokens) for one in first] == [(24, 7)] * 5
    assert len({tuple(one.prompt[:4]) for one in first}) == 1
    assert all(id < VOCAB for one in first for id in one.prompt if isinstance(id, int))
    assert first != load(*words, "--random-prefix-len", "4", "--seed", "1")


def test_lengths_vary_within_their_share() -> None:
    found = load("--num-prompts", "200", "--input-len", "100", "--random-range-ratio", "0.2")
    lengths = {one.num_prompt_tokens for one in found}
    assert min(lengths) >= 80 and max(lengths) <= 120 and len(lengths) > 10
    assert min(one.num_output_tokens for one in found) >= 102


def test_a_probe_is_another_prompt_of_the_same_length() -> None:
    (request,) = load("--num-prompts", "1", "--input-len", "8")
    probe = request.probe(2)
    assert probe.prompt == request.prompt[::-1] and probe.num_output_tokens == 2


def test_a_chat_gets_random_text() -> None:
    (request,) = load("--backend", "openai-chat", "--num-prompts", "1", "--input-len", "8")
    assert isinstance(request.prompt, str) and request.prompt
    body = BACKENDS["openai-chat"].body(request, {"model": "m"})
    assert body["messages"] == [{"role": "user", "content": request.prompt}]
    assert body["max_completion_tokens"] == 128 and body["stream"] is True


def test_prompts_that_begin_alike_come_in_groups() -> None:
    words = ["--dataset-name", "prefix_repetition", "--num-prompts", "12"]
    lengths = ["--prefix-repetition-prefix-len", "6", "--prefix-repetition-suffix-len", "3"]
    found = load(*words, *lengths, "--prefix-repetition-num-prefixes", "4")
    assert len(found) == 12 and {one.num_prompt_tokens for one in found} == {9}
    heads = [tuple(one.prompt[:6]) for one in found]
    assert len(set(heads)) == 4 and all(heads.count(head) == 3 for head in heads)
    with pytest.raises(ValueError, match="--num-prompts 12 are fewer than"):
        load(*words, "--prefix-repetition-num-prefixes", "13")


def test_groups_are_of_one_size_and_what_is_left_over_is_told(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quire.log.setup", lambda: None)
    words = ["--dataset-name", "prefix_repetition", "--num-prompts"]
    assert len(load(*words, "20")) == 20 and caplog.text == ""
    assert len(load(*words, "25")) == 20
    assert "--num-prompts 25 are not the same number for each of 10 prefixes; 20 are" in caplog.text


def test_a_standard_workload_is_itself() -> None:
    found = load("--dataset-name", "standard", "--workload", "decode8", "--scale", "0.1")
    workload = standard_workload("decode8", scale=0.1, vocab_size=VOCAB)
    assert [one.prompt for one in found] == workload.prompts
    assert [one.num_output_tokens for one in found] == workload.output_lens


def test_sharegpt_takes_first_turns_of_usual_lengths(tmp_path: Path) -> None:
    def talk(question: str, answer: str) -> dict[str, Any]:
        return {"conversations": [{"value": question}, {"value": answer}, {"value": "more"}]}

    question, answer = "What is the capital of France, please?", "It is Paris, of course."
    talks = [talk(question, answer), talk("x", answer), talk("y " * 3000, answer), {"id": 1}]
    words = ["--dataset-name", "sharegpt", "--dataset-path", write(tmp_path, talks)]
    found = load(*words, "--num-prompts", "3")
    assert [one.prompt for one in found] == [question] * 3
    assert found[0].num_output_tokens > 3
    (alone,) = load(*words, "--no-oversample", "--sharegpt-output-len", "9")
    assert alone.num_output_tokens == 9


@pytest.mark.parametrize("flag", ["--sharegpt-output-len", "--output-len"])
def test_a_length_that_is_given_may_be_short(tmp_path: Path, flag: str) -> None:
    question = "What is the capital of France, please?"
    talks = [{"conversations": [{"value": question}, {"value": "Paris"}]}]
    words = ["--dataset-name", "sharegpt", "--dataset-path", write(tmp_path, talks)]
    (found,) = load(*words, flag, "1", "--num-prompts", "1")
    assert (found.prompt, found.num_output_tokens) == (question, 1)


def test_turns_may_be_called_as_in_the_chat_api(tmp_path: Path) -> None:
    question, answer = "What is the capital of France, please?", "It is Paris, of course."
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    path = write(tmp_path, [{"conversation": turns}])
    (found,) = load("--dataset-name", "sharegpt", "--dataset-path", path, "--num-prompts", "1")
    assert found.prompt == question


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            '[{"conversations": []}, {"conversations": [{"text": "a"}, {"text": "b"}]}]',
            "entry 2 of .*data is unusable: KeyError.'content'",
        ),
        ([{"conversations": [{"content": ["a"]}, {"content": "b"}]}], "entry 1 .*is not a text"),
        ([["a", "b"]], "entry 1 of .*data is unusable"),
        ({"conversations": []}, "data must hold a JSON list of conversations"),
        ("[", "data is not JSON: "),
    ],
)
def test_conversations_that_are_wrong(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load("--dataset-name", "sharegpt", "--dataset-path", write(tmp_path, content))


def test_custom_prompts(tmp_path: Path) -> None:
    lines = '{"prompt": "Hi", "output_tokens": 5}\n\n{"prompt": "Ho", "output_tokens": 6.0}\n'
    words = ["--dataset-name", "custom", "--dataset-path", write(tmp_path, lines)]
    words += ["--num-prompts", "2", "--disable-shuffle"]
    plain = load(*words, "--skip-chat-template", "--custom-output-len", "-1")
    assert [(one.prompt, one.num_output_tokens) for one in plain] == [("Hi", 5), ("Ho", 6)]
    templated = load(*words)
    assert "Hi" in templated[0].prompt and templated[0].prompt != "Hi"
    assert templated[0].num_output_tokens == 256


def test_a_custom_prompt_may_be_token_ids_where_no_template_is_wanted(tmp_path: Path) -> None:
    words = ["--dataset-name", "custom", "--dataset-path", write(tmp_path, '{"prompt": [5, 6]}')]
    words += ["--num-prompts", "1"]
    (one,) = load(*words, "--skip-chat-template")
    assert (one.prompt, one.num_prompt_tokens) == ([5, 6], 2)
    with pytest.raises(ValueError, match=r"its prompt \[5, 6\] is not a string$"):
        load(*words)


def test_only_the_prompts_that_are_sent_are_tokenized(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts: list[str] = []
    monkeypatch.setattr(Source, "num_tokens", lambda self, text: texts.append(text) or 7)
    path = write(tmp_path, '{"prompt": "Hi"}\n' * 100)
    found = load("--dataset-name", "custom", "--dataset-path", path, "--num-prompts", "3")
    assert len(texts) == 3 and [one.num_prompt_tokens for one in found] == [7, 7, 7]


def test_a_custom_prompt_may_hold_every_separator_of_lines(tmp_path: Path) -> None:
    prompts = ["a\u2028b", "c\u2029d", "e\u0085f\u00a0"]
    path = tmp_path / "data"
    lines = [json.dumps({"prompt": one}, ensure_ascii=False) for one in prompts]
    path.write_text("\r\n".join(lines), encoding="utf-8", newline="")
    words = ["--dataset-name", "custom", "--dataset-path", str(path), "--num-prompts", "3"]
    found = load(*words, "--disable-shuffle", "--skip-chat-template")
    assert [one.prompt for one in found] == prompts


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}\n", "line 1 of .* is unusable: it is not a JSON object with the key prompt"),
        ("7\n", "it is not a JSON object with the key prompt"),
        ('{"prompt": "x"', "is unusable: Expecting"),
        ('{"prompt": 5}', "its prompt 5 is not a string"),
        ('{"prompt": ["x"]}', r"its prompt \['x'\] is not a string"),
        ('{"prompt": [-1]}', r"its prompt \[-1\] is not a string"),
        ('{"prompt": "x"}', "it is not a JSON object with the key output_tokens"),
        ('{"prompt": "x", "output_tokens": 3.9}', "its output_tokens 3.9 is not a whole number"),
        ('{"prompt": "x", "output_tokens": true}', "its output_tokens True is not a whole number"),
        ('{"prompt": "x", "output_tokens": 1e999}', "its output_tokens inf is not a whole number"),
        ('{"prompt": "x", "output_tokens": 0}', "its output_tokens 0 is not at least 1"),
        ("\n", "has no usable request"),
    ],
)
@pytest.mark.parametrize("flags", [[], ["--skip-chat-template"]])
def test_custom_files_that_are_wrong(
    tmp_path: Path, content: str, message: str, flags: list[str]
) -> None:
    words = ["--dataset-path", write(tmp_path, content), "--custom-output-len", "-1", *flags]
    with pytest.raises(ValueError, match=message):
        load("--dataset-name", "custom", *words)


@pytest.mark.parametrize("length", ["0", "-7"])
def test_a_custom_length_is_one_that_servers_take(
    capsys: pytest.CaptureFixture[str], length: str
) -> None:
    with pytest.raises(SystemExit):
        arguments("--dataset-name", "custom", "--custom-output-len", length)
    assert f"{length} is no output length; give at least 1, or -1" in capsys.readouterr().err


def test_templated_prompts_are_counted(tmp_path: Path) -> None:
    words = ["--dataset-name", "custom", "--dataset-path", write(tmp_path, '{"prompt": "Hi"}')]
    words += ["--num-prompts", "1"]
    (one,) = load(*words)
    tokenizer = Source(arguments(), str(TINY_CHAT), VOCAB).tokenizer
    assert one.num_prompt_tokens == len(tokenizer.encode(one.prompt, add_special_tokens=False))
    (plain,) = load(*words, "--skip-chat-template")
    assert plain.num_prompt_tokens == 0


@pytest.mark.parametrize(
    ("flags", "count", "told"),
    [
        (["--num-prompts", "3"], 3, "some are sent several times"),
        (["--num-prompts", "3", "--no-oversample"], 2, "no more are sent"),
        (["--num-prompts", "2"], 2, None),
    ],
)
def test_too_few_prompts_are_told(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    flags: list[str],
    count: int,
    told: str | None,
) -> None:
    monkeypatch.setattr("quire.log.setup", lambda: None)
    path = write(tmp_path, '{"prompt": "Hi"}\n{"prompt": "Ho"}\n')
    words = ["--dataset-name", "custom", "--dataset-path", path, "--skip-chat-template"]
    assert len(load(*words, *flags)) == count
    shown = [record.getMessage() for record in caplog.records]
    expected = f"--dataset-path {path} has 2 usable prompts for --num-prompts 3; {told}"
    assert shown == ([] if told is None else [expected])


def test_files_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="name it with --dataset-path"):
        load("--dataset-name", "sharegpt")
    with pytest.raises(ValueError, match="is not a file"):
        load("--dataset-name", "custom", "--dataset-path", str(tmp_path))


def test_text_needs_a_tokenizer(tmp_path: Path) -> None:
    source = Source(arguments("--backend", "openai-chat"), str(tmp_path), None)
    with pytest.raises(ValueError, match=r"needs a tokenizer, and .* has none that loads"):
        load_requests(source)
