from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from quire.request import RowSampling
from quire.row_sampling import (
    MAX_BAD_WORD_BYTES,
    MAX_BAD_WORDS,
    MAX_STOP_TOKEN_IDS,
    SettledParams,
    num_beam_candidates,
    to_row_sampling,
)
from quire.sampling_params import BeamSearchParams, SamplingParams
from tests.fakes import tokenizers

TOKENS = {"bad": [5], " bad": [6], "very bad": [7, 6], " very bad": [8, 6]}
LINE = 98


def tokenize(text: str) -> list[int]:
    """A line break never joins with what follows."""
    head = [LINE] if text[:1] == "\n" else []
    return [*head, *TOKENS[text[len(head) :]]] if text != "\n" else head


def row(params: SamplingParams, **model: Any) -> RowSampling:
    facts: dict[str, Any] = {
        "eos_token_ids": [2, 3],
        "vocab_size": 100,
        "max_logprobs": 20,
        "seed": 77,
        "tokenize": tokenize,
    }
    return to_row_sampling(params, **{**facts, **model})


def test_defaults_are_those_of_a_row_with_the_models_stop_tokens() -> None:
    assert row(SamplingParams()) == RowSampling(seed=77, stop_token_ids=(2, 3))


@pytest.mark.parametrize("own_seed", [None, 4])
def test_rows_of_settled_parameters_are_made_once_and_have_seeds_of_their_own(
    own_seed: int | None,
) -> None:
    tokenized: list[str] = []

    def noting(text: str) -> list[int]:
        tokenized.append(text)
        return tokenize(text)

    params = SamplingParams(bad_words=["bad"], logit_bias={4: 1.5}, seed=own_seed)
    settled = SettledParams.of(params)
    for seed in (1, 2):
        assert row(settled, seed=seed, tokenize=noting) == row(params, seed=seed)
    assert (tokenized.count("bad"), tokenized.count(" bad")) == (1, 1)
    assert row(settled, token_strings=[9]).stop_token_ids == (2, 3, 9)


def test_parameters_of_a_class_of_somebodys_own_stay_what_they_are() -> None:
    class Cold(SamplingParams):
        @property
        def temperature(self) -> float:
            return 0.0

        @temperature.setter
        def temperature(self, value: float) -> None:
            pass

    assert row(SettledParams.of(Cold())).temperature == row(Cold()).temperature == 0.0


def test_settled_parameters_are_checked() -> None:
    params = SamplingParams()
    params.n = 0
    with pytest.raises(ValueError, match="n must be an integer from 1"):
        row(SettledParams.of(params))


def test_values_reach_the_row() -> None:
    params = SamplingParams(
        temperature=0.5,
        top_k=5,
        top_p=0.6,
        min_p=0.1,
        presence_penalty=1,
        frequency_penalty=0.2,
        repetition_penalty=1.1,
        seed=-9,
        logit_bias={4: 1.5},
        allowed_token_ids=[9, 4, 9],
        min_tokens=2,
        stop_token_ids=[10, 3],
        logprobs=4,
        prompt_logprobs=0,
    )
    assert row(params) == RowSampling(
        temperature=0.5,
        top_k=5,
        top_p=0.6,
        min_p=0.1,
        presence_penalty=1.0,
        frequency_penalty=0.2,
        repetition_penalty=1.1,
        seed=-9,
        logit_bias=((4, 1.5),),
        allowed_token_ids=(9, 4),
        min_tokens=2,
        stop_token_ids=(10, 3, 2),
        num_logprobs=4,
        num_prompt_logprobs=0,
    )


def test_ignore_eos_keeps_only_the_users_stop_tokens() -> None:
    found = row(SamplingParams(ignore_eos=True, stop_token_ids=[4]))
    assert (found.stop_token_ids, found.too_early_ids) == ((4,), ())


def test_an_ignored_eos_is_too_early_as_stop_tokens_are() -> None:
    found = row(SamplingParams(ignore_eos=True, stop_token_ids=[4], min_tokens=3))
    assert (found.stop_token_ids, found.too_early_ids) == ((4,), (4, 2, 3))
    own = row(SamplingParams(ignore_eos=True, stop_token_ids=[3, 4], min_tokens=3))
    assert (own.stop_token_ids, own.too_early_ids) == ((3, 4), (3, 4, 2))
    with pytest.raises(ValueError, match=r"each of allowed_token_ids \[2\] .* by min_tokens"):
        row(SamplingParams(ignore_eos=True, allowed_token_ids=[2], min_tokens=1))


@pytest.mark.parametrize(
    ("given", "used"), [(0.0, 0.0), (9e-6, 0.0), (1e-5, 0.01), (0.009, 0.01), (0.01, 0.01)]
)
def test_tiny_temperatures_are_greedy_or_raised(given: float, used: float) -> None:
    assert row(SamplingParams(temperature=given)).temperature == used


def test_raised_temperature_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        row(SamplingParams(temperature=0.001))
    assert "0.001 is raised to 0.01" in caplog.text


@pytest.mark.parametrize(("given", "used"), [(0, 0), (-1, 0), (99, 99), (100, 0), (10**9, 0)])
def test_top_k_of_all_tokens_is_off(given: int, used: int) -> None:
    assert row(SamplingParams(top_k=given)).top_k == used


def test_bad_words_are_tokenized_with_and_without_a_space() -> None:
    found = row(SamplingParams(bad_words=["bad", " very bad"])).bad_words_token_ids
    assert found == ((5,), (6,), (7, 6), (8, 6))


@pytest.mark.parametrize("family", [tokenizers.byte_fallback, tokenizers.unigram])
def test_bad_words_are_forbidden_right_behind_other_text(family: Callable[[], Any]) -> None:
    """Where a tokenizer puts a space before each text, the bare word is found behind an anchor."""
    tokenizer = family()
    encode = partial(tokenizer.encode, add_special_tokens=False)
    assert tokenizer.convert_ids_to_tokens(encode("city"))[0].startswith("▁")
    found = row(SamplingParams(bad_words=["city"]), tokenize=encode, vocab_size=len(tokenizer))
    spelled = [
        "".join(map(tokenizer.convert_ids_to_tokens, one)) for one in found.bad_words_token_ids
    ]
    assert spelled == ["▁city", "city"]


def test_what_the_end_of_a_bad_word_forbids_is_not_forbidden_twice() -> None:
    tokens = {**TOKENS, " bad": [9, 5]}
    found = row(SamplingParams(bad_words=["bad"]), tokenize=lambda text: tokens.get(text, []))
    assert found.bad_words_token_ids == ((5,),)


def test_bad_words_of_white_space_stand_for_themselves() -> None:
    tokens = {"\n": [11], " ": [12], "": []}
    found = row(SamplingParams(bad_words=["\n"]), tokenize=lambda text: tokens.get(text, []))
    assert found.bad_words_token_ids == ((11,),)


@pytest.mark.parametrize("word", ["\n", "\n\n", "\t", " "])
@pytest.mark.parametrize("family", [tokenizers.byte_fallback, tokenizers.byte_level])
def test_bad_words_of_white_space_are_forbidden_behind_other_text(
    family: Callable[[], Any], word: str
) -> None:
    tokenizer = family()
    encode = partial(tokenizer.encode, add_special_tokens=False)
    found = row(SamplingParams(bad_words=[word]), tokenize=encode, vocab_size=len(tokenizer))
    (forbidden,) = found.bad_words_token_ids
    assert encode(f"(a{word}(") == [*encode("(a"), *forbidden, *encode("(a(")[-1:]]


def test_too_many_bad_words_are_refused() -> None:
    words = [f"word{i}" for i in range(MAX_BAD_WORDS // 2 + 1)]
    with pytest.raises(ValueError, match="at most 128 token sequences, got 130 from 65 words"):
        row(
            SamplingParams(bad_words=words),
            tokenize=lambda text: (
                [] if text[0] in "\n(" else [int(text.strip()[4:]), int(text[0] == " ")]
            ),
        )


def test_very_many_bad_words_are_refused_before_they_are_tokenized() -> None:
    tokenized: list[str] = []

    def tokenize(text: str) -> list[int]:
        tokenized.append(text)
        return [5]

    with pytest.raises(ValueError, match="from 100000 words"):
        row(SamplingParams(bad_words=[f"bad{i}" for i in range(100_000)]), tokenize=tokenize)
    assert tokenized == []


@pytest.mark.parametrize("words", [["hello world " * 699_048], ["b" * 2000, "c" * 2000, "é" * 49]])
@pytest.mark.parametrize("has_tokenizer", [True, False])
def test_long_bad_words_are_refused_before_they_are_tokenized(
    words: list[str], has_tokenizer: bool
) -> None:
    num_bytes = sum(len(word.encode()) for word in words)
    message = f"at most 4096 bytes together, got {num_bytes}; use fewer or shorter"
    with pytest.raises(ValueError, match=message) as caught:
        row(SamplingParams(bad_words=words), tokenize={}.__getitem__ if has_tokenizer else None)
    assert len(str(caught.value)) < 200


def test_bad_words_may_be_as_long_as_the_limit() -> None:
    found = row(SamplingParams(bad_words=["b" * MAX_BAD_WORD_BYTES]), tokenize=lambda _: [5])
    assert found.bad_words_token_ids == ((5,),)


FORBIDDING: list[dict[str, Any]] = [
    {"allowed_token_ids": [5], "bad_words": ["bad"]},
    {"allowed_token_ids": [5, 9], "bad_words": ["bad"], "logit_bias": {9: float("-inf")}},
    {"allowed_token_ids": [5, 2], "bad_words": ["bad"], "min_tokens": 1},
    {"allowed_token_ids": [9], "logit_bias": {9: -1e39}},
    {"logit_bias": dict.fromkeys(range(100), float("-inf"))},
    {"stop_token_ids": list(range(100)), "min_tokens": 3},
]


@pytest.mark.parametrize("fields", FORBIDDING, ids=str)
def test_what_forbids_every_token_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no token can be sampled"):
        row(SamplingParams(**fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"allowed_token_ids": [5, 9], "bad_words": ["bad"]},
        {"allowed_token_ids": [6], "bad_words": ["very bad"]},  # not after "very"
        {"allowed_token_ids": [9], "logit_bias": {9: -1e6}},
        {"logit_bias": dict.fromkeys(range(99), float("-inf"))},
        {"stop_token_ids": list(range(100))},
    ],
    ids=str,
)
def test_what_leaves_a_token_is_accepted(fields: dict[str, Any]) -> None:
    assert row(SamplingParams(**fields))


def test_hundreds_of_stop_tokens_are_accepted_and_thousands_refused() -> None:
    many = list(range(MAX_STOP_TOKEN_IDS))
    facts = {"vocab_size": 200_000, "eos_token_ids": [150_000]}
    assert row(SamplingParams(stop_token_ids=many), **facts).stop_token_ids == (*many, 150_000)
    with pytest.raises(ValueError, match=r"at most 1024 tokens, .* got 20000; name fewer"):
        row(SamplingParams(stop_token_ids=list(range(20_000))), **facts)
    with pytest.raises(ValueError, match="at most 1024 tokens"):
        row(SamplingParams(stop_token_ids=many), **facts, token_strings=[1024])


def test_bad_word_with_half_of_a_surrogate_pair_is_named() -> None:
    with pytest.raises(ValueError, match=r"bad_words\[1\] has half of a surrogate pair"):
        row(SamplingParams(bad_words=["bad", "\ud83d"]))


def test_bad_words_need_a_tokenizer() -> None:
    with pytest.raises(ValueError, match="bad_words need a tokenizer"):
        row(SamplingParams(bad_words=["bad"]), tokenize=None)


@pytest.mark.parametrize(
    "fields",
    [{"stop_token_ids": [100]}, {"allowed_token_ids": [1, 100]}, {"logit_bias": {100: 1.0}}],
    ids=str,
)
def test_token_ids_outside_the_vocabulary_are_refused(fields: dict[str, Any]) -> None:
    (name,) = fields
    with pytest.raises(ValueError, match=f"{name} must be inside the vocabulary, 0 to 99, got 100"):
        row(SamplingParams(**fields))


@pytest.mark.parametrize("name", ["logprobs", "prompt_logprobs"])
def test_too_many_logprobs_are_refused(name: str) -> None:
    for count in (21, -1):
        with pytest.raises(ValueError, match=f"{name} must be at most max_logprobs=20, got"):
            row(SamplingParams(**{name: count}))  # type: ignore[arg-type]
        assert row(SamplingParams(**{name: count}), max_logprobs=-1)  # type: ignore[arg-type]
    assert row(SamplingParams(**{name: 20}))  # type: ignore[arg-type]


def test_best_of_asks_for_the_log_probabilities_it_ranks_by() -> None:
    assert row(SamplingParams(n=1, best_of=3)).num_logprobs == 0
    assert row(SamplingParams(n=1, best_of=3, logprobs=2)).num_logprobs == 2
    assert row(SamplingParams(n=3, best_of=3)).num_logprobs is None


def test_beams_ask_for_their_candidates() -> None:
    found = row(BeamSearchParams(beam_width=4, max_tokens=9).to_sampling_params())
    assert found.num_logprobs == num_beam_candidates(4, 2) == 12
    assert found.processed_logprobs is True
    assert found.is_greedy
    assert row(SamplingParams(n=4, use_beam_search=True)).is_greedy
    assert row(SamplingParams(n=4, use_beam_search=True, temperature=0.5)).temperature == 0.5
    assert num_beam_candidates(4, 0) == 8


def test_parameters_changed_since_construction_are_checked_again() -> None:
    params = SamplingParams()
    params.min_p = 3.0
    with pytest.raises(ValueError, match="min_p must be"):
        row(params)


def test_minimum_that_leaves_no_token_is_refused() -> None:
    with pytest.raises(ValueError, match=r"each of allowed_token_ids \[7\] .* by min_tokens"):
        row(SamplingParams(min_tokens=1, allowed_token_ids=[7], stop_token_ids=[7, 8]))
