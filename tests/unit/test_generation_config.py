"""What a model's generation config means, and what a user may override in it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from quire.errors import ModelLoadError
from quire.generation_config import (
    check_file,
    check_overrides,
    default_sampling_params,
    heeded,
    max_tokens_limit,
    not_heeded,
)
from quire.sampling_params import SamplingParams


def test_keys_become_sampling_params() -> None:
    config = {"temperature": 0.6, "top_k": 20, "top_p": 0.95, "max_new_tokens": 2048}
    expected = SamplingParams(temperature=0.6, top_k=20, top_p=0.95, max_tokens=2048)
    assert default_sampling_params(config) == expected


def test_penalties_and_special_tokens_are_heeded() -> None:
    config = {"presence_penalty": 1.9, "frequency_penalty": 1.8, "skip_special_tokens": False}
    check_overrides(config)
    assert default_sampling_params(config) == SamplingParams(
        presence_penalty=1.9, frequency_penalty=1.8, skip_special_tokens=False
    )


def test_defaults_are_told_as_the_file_calls_them() -> None:
    config = {"max_new_tokens": 9, "temperature": 0.6, "top_p": None, "do_sample": True}
    assert heeded(config) == ["temperature=0.6", "max_new_tokens=9"]


def test_only_max_new_tokens_limits() -> None:
    assert max_tokens_limit({"temperature": 0.6, "max_new_tokens": None}) is None
    assert max_tokens_limit({"max_new_tokens": 9}) == 9


def test_null_and_do_sample_change_nothing() -> None:
    config = {"max_new_tokens": None, "temperature": None, "do_sample": False, "max_length": 20}
    config |= {"length_penalty": 2.0, "early_stopping": True}
    assert default_sampling_params(config) == SamplingParams()
    assert not_heeded(config) == []


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"top_p": 0.0}, "has top_p = 0.0, which must be a number in (0, 1]; correct it"),
        ({"top_k": 50.5}, "has top_k = 50.5, which must be an integer of at least -1; "),
        ({"top_k": 2, "max_new_tokens": 0}, "has max_new_tokens = 0, which must be None or an int"),
        ({"max_new_tokens": "9"}, "has max_new_tokens = '9', which must be None or an integer"),
        ({"repetition_penalty": 0.0}, """'{"repetition_penalty": null}' for no value)"""),
        ({"temperature": float("nan")}, "ignore the file (--generation-config quire, in Python"),
    ],
)
def test_a_bad_value_in_a_file_is_named_with_the_remedies(
    config: dict[str, Any], message: str
) -> None:
    file = Path("model/generation_config.json")
    with pytest.raises(ModelLoadError, match=f"^{file} .*{re.escape(message)}"):
        check_file(file, config)


def test_a_long_value_is_shortened() -> None:
    config = {"top_p": list(range(100_000))}
    with pytest.raises(
        ModelLoadError, match=r"has top_p = \[0, 1, .*\.\.\., which must"
    ) as refused:
        check_file(Path("/m/generation_config.json"), config)
    assert len(str(refused.value)) < 500
    for overrides in (config, {"suppress_tokens": list(range(100_000))}):
        with pytest.raises(ValueError, match=r"\[0, 1, .*\.\.\.") as refused_override:
            check_overrides(overrides)
        assert len(str(refused_override.value)) < 500


def test_what_published_files_say_is_usable() -> None:
    for config in (
        {"temperature": 0.0, "top_p": 1.0, "top_k": 0, "min_p": 0},
        {"temperature": 1e-06, "top_k": -1, "repetition_penalty": 1},
        {"do_sample": False, "temperature": None, "top_p": None, "top_k": 1},
        {"top_h": "strange", "min_length": -1, "cache_implementation": 5, "eos_token_id": "bad"},
    ):
        check_file(Path("generation_config.json"), config)


def test_a_whole_number_may_be_written_with_a_point() -> None:
    config = {"top_k": 50.0, "max_new_tokens": 512.0}
    check_overrides(config)
    assert default_sampling_params(config) == SamplingParams(top_k=50, max_tokens=512)
    assert heeded(config) == ["top_k=50", "max_new_tokens=512"]


@pytest.mark.parametrize(
    ("config", "settings"),
    [
        (
            {"typical_p": 0.9, "no_repeat_ngram_size": 3},
            ["typical_p=0.9", "no_repeat_ngram_size=3"],
        ),
        ({"typical_p": 1.0, "num_beams": 1, "penalty_alpha": None, "bad_words_ids": []}, []),
        ({"suppress_tokens": [5]}, ["suppress_tokens=[5]"]),
        ({"invented_by_its_authors": 1, "eos_token_id": [1, 2]}, []),
    ],
)
def test_only_settings_that_would_change_the_output_are_told(
    config: dict[str, Any], settings: list[str]
) -> None:
    assert not_heeded(config) == settings


@pytest.mark.parametrize(
    "overrides", [{}, {"temperature": 0.1, "eos_token_id": 7}, {"do_sample": True, "num_beams": 1}]
)
def test_overrides_that_are_heeded_pass(overrides: dict[str, Any]) -> None:
    check_overrides(overrides)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"temprature": 0.1}, "unknown argument 'temprature'; did you mean temperature"),
        ({"num_beams": 4}, "num_beams=4 would have no effect"),
        ({"do_sample": False}, "do_sample=False would have no effect.* are temperature, "),
        ({"length_penalty": 2.0}, "length_penalty=2.0 would have no effect.*, eos_token_id$"),
        ({"early_stopping": True}, "early_stopping=True would have no effect"),
        ({"temperature": 5}, r"temperature must be a number in \[0, 2\], got 5; use 0 for greedy"),
        ({"max_new_tokens": 0}, "max_new_tokens must be None or an integer of at least 1, got 0"),
    ],
)
def test_other_overrides_are_refused(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^override_generation_config: {message}"):
        check_overrides(overrides)
