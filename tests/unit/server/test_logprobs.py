"""Log-probabilities over HTTP: the right bytes and the true best tokens."""

from __future__ import annotations

import math

import pytest
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from quire.outputs import Logprob
from quire.server.logprobs import (
    LOWEST,
    CompletionLogprobs,
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


def test_completion_form_counts_offsets_over_pieces() -> None:
    shown = CompletionLogprobs(None, as_token_ids=False)
    first = shown.of([4], [{4: Logprob(-1.0, 1, "ab"), 5: Logprob(-2.0, 2, "c")}])
    assert first == {
        "text_offset": [0],
        "token_logprobs": [-1.0],
        "tokens": ["ab"],
        "top_logprobs": [{"ab": -1.0, "c": -2.0}],
    }
    assert shown.of([5], [{5: Logprob(-3.0, 1, "c")}])["text_offset"] == [2]


def test_offsets_are_those_of_the_text_even_if_tokens_have_their_ids_as_names() -> None:
    shown = CompletionLogprobs(None, as_token_ids=True)
    positions = [{4: Logprob(-1.0, 1, "ab")}, {5: Logprob(-3.0, 1, "c")}, {6: Logprob(-1, 1, "d")}]
    found = shown.of([4, 5, 6], positions)
    assert found["tokens"] == ["token_id:4", "token_id:5", "token_id:6"]
    assert found["text_offset"] == [0, 2, 3]


def test_of_two_tokens_with_one_text_the_likelier_stays() -> None:
    position = {4: Logprob(-3.0, 2, "a"), 5: Logprob(-1.0, 1, "a")}
    plain = CompletionLogprobs(None, as_token_ids=False).of([4], [position])
    assert plain["top_logprobs"] == [{"a": -1.0}]
    by_id = CompletionLogprobs(None, as_token_ids=True).of([4], [position])
    assert by_id["top_logprobs"] == [{"token_id:4": -3.0, "token_id:5": -1.0}]


def test_minus_infinity_has_a_floor() -> None:
    position = {3: Logprob(-math.inf, 9, "x")}
    (entry,) = chat_logprobs([3], [position], 0, None, False)["content"]
    assert entry["logprob"] == LOWEST
    assert prompt_logprobs([None, position]) == [
        None,
        {"3": {"logprob": LOWEST, "rank": 9, "decoded_token": "x"}},
    ]
