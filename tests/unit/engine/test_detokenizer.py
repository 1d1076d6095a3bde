"""The pieces of a text join to the whole, however the tokens come and whatever the tokenizer."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from quire.engine.detokenizer import make_detokenizer
from quire.tokenizer.byte_level import letters_of_bytes
from quire.tokenizer.vocabulary import Vocabulary
from tests.fakes import tokenizers

VOCABULARIES = {name: Vocabulary(make()) for name, make in tokenizers.FAMILIES.items()}
TEXTS = st.one_of(
    st.text(max_size=40),
    st.text(alphabet="ab é你好🙂👨‍👩‍👧 \n", max_size=40),
    st.lists(st.sampled_from(tokenizers.SENTENCES), max_size=2).map(" ".join),
)
quick = settings(max_examples=60, deadline=None)


def chunks(token_ids: list[int], sizes: list[int]) -> list[list[int]]:
    """Cut into pieces of these sizes, then of one token."""
    pieces, start = [], 0
    for size in [*sizes, *[1] * len(token_ids)]:
        pieces.append(token_ids[start : start + size])
        start += size
    return [piece for piece in pieces if piece]


def stream(
    vocabulary: Vocabulary, token_ids: list[int], sizes: list[int], **options: Any
) -> list[str]:
    detokenizer = make_detokenizer(vocabulary, **options)
    return [*map(detokenizer.feed, chunks(token_ids, sizes)), detokenizer.finish()]


def whole(vocabulary: Vocabulary, token_ids: list[int], skip_special_tokens: bool = True) -> str:
    return vocabulary.tokenizer.decode(
        token_ids,
        skip_special_tokens=skip_special_tokens,
        clean_up_tokenization_spaces=False,
    )


def byte_ids(vocabulary: Vocabulary, some: bytes) -> list[int]:
    """A token for each byte, whatever longer ones there are."""
    return [
        vocabulary.tokenizer.convert_tokens_to_ids(letters_of_bytes(bytes([byte]))) for byte in some
    ]


@pytest.mark.parametrize("family", VOCABULARIES)
@quick
@given(data=st.data())
def test_pieces_join_to_the_whole_text(family: str, data: st.DataObject) -> None:
    vocabulary = VOCABULARIES[family]
    token_ids = vocabulary.tokenizer.encode(data.draw(TEXTS))
    prompt_len = data.draw(st.integers(0, len(token_ids)))
    sizes = data.draw(st.lists(st.integers(0, 9), max_size=10))
    prompt = whole(vocabulary, token_ids[:prompt_len])
    text = whole(vocabulary, token_ids)
    assume(text.startswith(prompt))  # else the prompt ends inside a character
    pieces = stream(
        vocabulary, token_ids[prompt_len:], sizes, prompt_token_ids=token_ids[:prompt_len]
    )
    assert "".join(pieces) == text[len(prompt) :]


@pytest.mark.parametrize("family", sorted(set(VOCABULARIES) - {"byte_fallback"}))
@quick
@given(data=st.data())
def test_any_tokens_join_to_the_whole_text(family: str, data: st.DataObject) -> None:
    """Random tokens: broken characters, special tokens, runs of spaces."""
    vocabulary = VOCABULARIES[family]
    token_ids = data.draw(st.lists(st.integers(0, vocabulary.size - 1), max_size=60))
    skip = data.draw(st.booleans())
    sizes = data.draw(st.lists(st.integers(0, 9), max_size=10))
    pieces = stream(vocabulary, token_ids, sizes, skip_special_tokens=skip)
    assert "".join(pieces) == whole(vocabulary, token_ids, skip)


@quick
@given(data=st.data())
def test_broken_byte_tokens_spoil_only_their_own_character(data: st.DataObject) -> None:
    vocabulary = VOCABULARIES["byte_fallback"]
    bytes_first = st.integers(3, 258)
    token_ids = data.draw(
        st.lists(st.one_of(bytes_first, st.integers(0, vocabulary.size - 1)), max_size=50)
    )
    sizes = data.draw(st.lists(st.integers(0, 9), max_size=10))
    expected, run = "", b""
    for token_id, token in zip(
        token_ids, vocabulary.tokenizer.convert_ids_to_tokens(token_ids), strict=True
    ):
        if token_id in vocabulary.special_ids:
            continue
        if token_id in vocabulary.byte_values:
            run += bytes([vocabulary.byte_values[token_id]])
            continue
        expected += run.decode(errors="replace") + token.replace("▁", " ")
        run = b""
    expected += run.decode(errors="replace")
    first = next((i for i in token_ids if i not in vocabulary.special_ids), None)
    if first not in vocabulary.byte_values and expected.startswith(" "):
        expected = expected[1:]
    assert "".join(stream(vocabulary, token_ids, sizes)) == expected


@quick
@given(text=TEXTS, cut=st.integers(0, 10**6))
def test_all_text_but_an_incomplete_character_comes_at_once(text: str, cut: int) -> None:
    vocabulary = VOCABULARIES["byte_level"]
    token_ids = vocabulary.tokenizer.encode(text)
    token_ids = token_ids[: cut % (len(token_ids) + 1)]
    pieces = stream(vocabulary, token_ids, [])
    known = whole(vocabulary, token_ids)
    assert "".join(pieces[:-1]) == known.removesuffix("\ufffd")
    assert pieces[-1] == known[len(known.removesuffix("\ufffd")) :]


@pytest.mark.parametrize("family", VOCABULARIES)
def test_work_per_token_does_not_grow(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    vocabulary = VOCABULARIES[family]
    token_ids = vocabulary.tokenizer.encode(" ".join(tokenizers.SENTENCES[:36]))[:1000]
    decoded: list[int] = []
    decode = vocabulary.decode
    monkeypatch.setattr(
        vocabulary,
        "decode",
        lambda ids, spaces=True: decoded.append(len(ids)) or decode(ids, spaces),
    )
    stream(vocabulary, token_ids, [])
    assert sum(decoded) < 40 * len(token_ids)


def test_endless_invalid_bytes_are_not_held_back() -> None:
    vocabulary = VOCABULARIES["byte_level"]
    invalid = vocabulary.tokenizer.convert_tokens_to_ids("ÿ")  # the byte 0xFF
    detokenizer = make_detokenizer(vocabulary)
    emitted = ""
    for count in range(1, 101):
        emitted += detokenizer.feed([invalid])
        assert emitted == "\ufffd" * count
    assert detokenizer.finish() == ""


@pytest.mark.parametrize(
    ("prompt", "output", "text"),
    [(b"ab\xe4\xbd", b"\xa0c", "你c"), (b"ab\xe4\xbd", b"cd", "cd"), (b"ab\xe4\xbd", b"", "")],
)
def test_a_character_that_the_prompt_begins_is_told_once_it_is_one(
    prompt: bytes, output: bytes, text: str
) -> None:
    vocabulary = VOCABULARIES["byte_level"]
    ids = byte_ids(vocabulary, prompt + output)
    pieces = stream(vocabulary, ids[len(prompt) :], [], prompt_token_ids=ids[: len(prompt)])
    assert "".join(pieces) == text


SOME_BYTES = st.binary(max_size=6) | st.lists(
    st.sampled_from(b"a\x80\x90\xa0\xa7\xbd\xbf\xc3\xe4\xed\xef\xf0\xf4\xff"), max_size=6
).map(bytes)


@settings(max_examples=300, deadline=None)
@given(prompt=SOME_BYTES, output=SOME_BYTES, sizes=st.lists(st.integers(0, 4), max_size=4))
@example(prompt=b"\xed\xa7", output=b"890wo", sizes=[])  # shown as two U+FFFD, as it begins
@example(prompt=b"a\xed\xa0", output=b"", sizes=[])  # a surrogate
def test_broken_characters_of_the_prompt_are_told_no_more(
    prompt: bytes, output: bytes, sizes: list[int]
) -> None:
    vocabulary = VOCABULARIES["byte_level"]
    ids = byte_ids(vocabulary, prompt + output)
    pieces = stream(vocabulary, ids[len(prompt) :], sizes, prompt_token_ids=ids[: len(prompt)])
    text, shown = whole(vocabulary, ids), whole(vocabulary, ids[: len(prompt)])
    if not text.startswith(shown):  # what the prompt shows as U+FFFD has become a character
        shown = shown.removesuffix("\ufffd")
    assert text.startswith(shown)
    assert "".join(pieces) == text.removeprefix(shown)


def test_first_word_after_a_prompt_keeps_its_space() -> None:
    vocabulary = VOCABULARIES["byte_fallback"]
    prompt = vocabulary.tokenizer.encode("hello")
    token_ids = vocabulary.tokenizer.encode("world", add_special_tokens=False)
    assert "".join(stream(vocabulary, token_ids, [], prompt_token_ids=prompt)) == " world"
    assert "".join(stream(vocabulary, token_ids, [], prompt_token_ids=prompt[:1])) == "world"


def test_special_tokens_are_shown_on_demand() -> None:
    vocabulary = VOCABULARIES["byte_level"]
    token_ids = vocabulary.tokenizer.encode("hi<|im_end|>")
    assert "".join(stream(vocabulary, token_ids, [])) == "hi"
    shown = stream(vocabulary, token_ids, [], skip_special_tokens=False)
    assert "".join(shown) == "hi<|im_end|>"


@pytest.mark.parametrize("family", VOCABULARIES)
def test_ids_that_the_tokenizer_lacks_have_no_text(family: str) -> None:
    vocabulary = VOCABULARIES[family]
    assert "".join(stream(vocabulary, [vocabulary.size + 7], [])) == ""
