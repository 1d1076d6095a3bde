"""Log-probabilities over HTTP: the right bytes and the true best tokens."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from quire.outputs import Logprob
from quire.server.logprobs import (
    LOWEST,
    CompletionLogprobs,
    TokenOffsets,
    _end_in,
    chat_logprobs,
    prompt_logprobs,
    token_bytes,
)
from quire.tokenizer.vocabulary import REPLACEMENT, Vocabulary
from tests.fakes import tokenizers

TEXTS = ["naïve café 🙂👍🏽", "你好世界 ☃ x", "\x00\x7f\xad ÿ\n\tend", "plain words"]


@pytest.mark.parametrize("family", [tokenizers.byte_level, tokenizers.byte_fallback])
@pytest.mark.parametrize("text", TEXTS)
def test_bytes_of_tokens_together_are_those_of_the_text(family: object, text: str) -> None:
    vocabulary = Vocabulary(family())  # type: ignore[operator]
    token_ids = vocabulary.tokenizer.encode(text, add_special_tokens=False)
    shown = vocabulary.token_texts(token_ids)
    pieces = [
        token_bytes(vocabulary, token_id, one)
        for token_id, one in zip(token_ids, shown, strict=True)
    ]
    assert b"".join(pieces).lstrip() == text.encode().lstrip()


def test_a_part_of_a_character_is_its_own_bytes() -> None:
    vocabulary = Vocabulary(tokenizers.byte_level())
    token_ids = vocabulary.tokenizer.encode("☃", add_special_tokens=False)
    assert len(token_ids) > 1
    assert vocabulary.token_texts(token_ids)[0] == REPLACEMENT
    first = token_bytes(vocabulary, token_ids[0], REPLACEMENT)
    assert first == "☃".encode()[: len(first)]


def test_bytes_of_an_added_token_are_those_that_a_text_gets_of_it() -> None:
    """Its letters are bytes to the decoder, and together no character."""
    backend = Tokenizer.from_str(tokenizers.byte_level().backend_tokenizer.to_str())
    backend.add_tokens(["naïve"])
    vocabulary = Vocabulary(PreTrainedTokenizerFast(tokenizer_object=backend))
    token_id = backend.token_to_id("naïve")
    (shown,) = vocabulary.token_texts([token_id])
    assert (shown, token_bytes(vocabulary, token_id, shown)) == ("na\ufffdve", b"na\xefve")


def test_top_tokens_are_the_true_best_even_when_another_was_chosen() -> None:
    position = {
        7: Logprob(-5.0, 40, "rare"),
        1: Logprob(-0.1, 1, "best"),
        2: Logprob(-2.0, 2, "good"),
    }
    (entry,) = chat_logprobs([7], [position], 2, None, False)["content"]
    assert (entry["token"], entry["logprob"]) == ("rare", -5.0)
    assert [one["token"] for one in entry["top_logprobs"]] == ["best", "good"]
    (whole,) = chat_logprobs([7], [position], -1, None, True)["content"]
    assert [one["token"] for one in whole["top_logprobs"]] == [
        "token_id:1",
        "token_id:2",
        "token_id:7",
    ]
    (none,) = chat_logprobs([7], [position], 0, None, False)["content"]
    assert none["top_logprobs"] == []


def test_completion_form_has_offsets_over_pieces() -> None:
    vocabulary = Vocabulary(tokenizers.byte_level())
    ids = vocabulary.tokenizer.encode("a cat")
    shown = CompletionLogprobs(vocabulary, False, TokenOffsets(vocabulary, []))
    first = shown.of(ids[:1], [{ids[0]: Logprob(-1.0, 1, "a"), 5: Logprob(-2.0, 2, "c")}])
    assert first == {
        "text_offset": [0],
        "token_logprobs": [-1.0],
        "tokens": ["a"],
        "top_logprobs": [{"a": -1.0, "c": -2.0}],
    }
    assert shown.of(ids[1:2], [{ids[1]: Logprob(-3.0, 1, "c")}])["text_offset"] == [1]


def test_tokens_may_have_their_ids_as_names() -> None:
    shown = CompletionLogprobs(None, True, TokenOffsets(None, []))
    positions = [{4: Logprob(-1.0, 1, "ab")}, {5: Logprob(-3.0, 1, "c")}]
    assert shown.of([4, 5], positions)["tokens"] == ["token_id:4", "token_id:5"]


FAMILIES = [
    tokenizers.byte_level,
    tokenizers.byte_fallback,
    tokenizers.unigram,
    tokenizers.slow_sentencepiece,
]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("is_text", [True, False])
def test_offsets_are_places_in_the_text_of_prompt_and_answer(
    family: Callable[[], Any], is_text: bool
) -> None:
    vocabulary = Vocabulary(family())
    tokenizer = vocabulary.tokenizer
    prompt, answer = "hello naïve world", " 1234 and dogs"
    ids = tokenizer.encode(prompt)
    if ids[-1] == tokenizer.eos_token_id:
        ids = ids[:-1]
    whole = tokenizer.encode(prompt + answer, add_special_tokens=False)
    output = whole[len(tokenizer.encode(prompt, add_special_tokens=False)) :]
    echo = prompt if is_text else tokenizer.decode(ids, skip_special_tokens=True)
    offsets = TokenOffsets(vocabulary, ids, echo=echo)
    places = [offsets.next(one) for one in [*ids, *output]]
    assert echo == prompt
    assert places == sorted(places)
    assert places[len(ids)] == len(prompt)
    _check_words(prompt + answer, vocabulary.token_texts([*ids, *output]), places)
    alone = TokenOffsets(vocabulary, ids)
    assert [alone.next(one) for one in output] == [
        place - len(prompt) for place in places[len(ids) :]
    ]


def _check_words(text: str, shown: list[str], places: list[int]) -> None:
    """Each token that is some letters stands where its offset says."""
    words = [(one, at) for one, at in zip(shown, places, strict=True) if one.strip().isalnum()]
    assert len(words) > 5
    for word, place in words:
        assert text[place:].lstrip().startswith(word.strip()), (word, place)


def test_tokens_of_one_character_have_one_offset() -> None:
    vocabulary = Vocabulary(tokenizers.byte_level())
    ids = vocabulary.tokenizer.encode("☃")
    assert len(ids) == 3
    offsets = TokenOffsets(vocabulary, [*ids, 40], echo="☃" + vocabulary.decode([40]))
    assert [offsets.next(one) for one in (*ids, 40, *ids, 41)] == [0, 0, 0, 1, 2, 2, 2, 3]


@pytest.mark.parametrize(("skips", "num_shown"), [(True, 0), (False, len("<|im_start|>"))])
def test_special_tokens_take_place_only_where_the_text_has_them(
    skips: bool, num_shown: int
) -> None:
    vocabulary = Vocabulary(tokenizers.byte_level())
    start = vocabulary.special_token_id("<|im_start|>")
    sent = "<|im_start|>a"
    ids = vocabulary.tokenizer.encode(sent)
    offsets = TokenOffsets(vocabulary, ids, echo=sent, skip_special_tokens=skips)
    found = [offsets.next(one) for one in (*ids, start, *ids[1:], ids[1])]
    assert found == [0, 12, 13, 13 + num_shown, 14 + num_shown]
    of_ids = TokenOffsets(vocabulary, ids, echo=vocabulary.decode(ids[1:] if skips else ids))
    assert [of_ids.next(one) for one in ids] == [0, num_shown]


@pytest.mark.parametrize(
    ("text", "start", "shown", "end"),
    [
        ("Hello x", 0, "Hello", 5),
        (" Hello x", 0, "Hello", 6),  # the decoder drops the first space
        ("Hello x", 0, " Hello", 5),  # the tokenizer adds one
        ("Hello x", 0, "hello", 5),  # it writes small letters
        ("Hello", 4, "oooo", 5),
        ("Hello", 2, "", 2),
    ],
)
def test_the_text_as_it_was_sent_may_differ_from_that_of_its_tokens(
    text: str, start: int, shown: str, end: int
) -> None:
    assert _end_in(text, start, shown) == end


def test_of_two_tokens_with_one_text_the_likelier_stays() -> None:
    position = {4: Logprob(-3.0, 2, "a"), 5: Logprob(-1.0, 1, "a")}
    offsets = TokenOffsets(None, [])
    plain = CompletionLogprobs(None, False, offsets).of([4], [position])
    assert plain["top_logprobs"] == [{"a": -1.0}]
    by_id = CompletionLogprobs(None, True, offsets).of([4], [position])
    assert by_id["top_logprobs"] == [{"token_id:4": -3.0, "token_id:5": -1.0}]


def test_minus_infinity_has_a_floor() -> None:
    position = {3: Logprob(-math.inf, 9, "x")}
    (entry,) = chat_logprobs([3], [position], 0, None, False)["content"]
    assert entry["logprob"] == LOWEST
    assert prompt_logprobs([None, position]) == [
        None,
        {"3": {"logprob": LOWEST, "rank": 9, "decoded_token": "x"}},
    ]
