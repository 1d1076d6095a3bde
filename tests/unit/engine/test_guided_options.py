"""Constraints that are given beside the parameters of a call."""

from __future__ import annotations

import json
from typing import Any

import pytest

from quire.engine.guided_options import (
    GuidedDecodingRequest,
    LLMGuidedOptions,
    with_guided_options,
)
from quire.sampling_params import (
    BeamSearchParams,
    GuidedDecodingParams,
    SamplingParams,
    StructuredOutputsParams,
)
from quire.structured import GrammarSpec

AB = {"guided_regex": "[ab]+"}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


def grammar(options: Any) -> GrammarSpec | None:
    params: Any = with_guided_options(SamplingParams(), options, 1)
    found: GrammarSpec | None = params.grammar
    return found


def of(**given: Any) -> GrammarSpec | None:
    return SamplingParams(structured_outputs=given).grammar


@pytest.mark.parametrize(
    ("options", "same_as"),
    [
        ({"guided_json": SCHEMA}, {"json": SCHEMA}),
        ({"guided_json": json.dumps(SCHEMA)}, {"json": SCHEMA}),
        ({"guided_json": False}, {"json": False}),
        (AB, {"regex": "[ab]+"}),
        ({"guided_choice": ["yes", "no"]}, {"choice": ["yes", "no"]}),
        ({"guided_grammar": 'root ::= "x"'}, {"grammar": 'root ::= "x"'}),
        ({"guided_json_object": True}, {"json_object": True}),
        ({"guided_json_object": False, **AB}, {"regex": "[ab]+"}),
        ({"guided_decoding_backend": "outlines", **AB}, {"regex": "[ab]+"}),
        (
            {"guided_json": SCHEMA, "guided_whitespace_pattern": " ?"},
            {"json": SCHEMA, "whitespace_pattern": " ?"},
        ),
    ],
)
def test_every_field_means_the_same_in_a_dict_and_in_an_object(
    options: Any, same_as: dict[str, Any]
) -> None:
    assert grammar(options) == of(**same_as)
    assert grammar(GuidedDecodingRequest(**options)) == of(**same_as)
    assert grammar(LLMGuidedOptions(**options)) == of(**same_as)


@pytest.mark.parametrize(
    "options", [{}, {"guided_regex": None}, {"guided_json_object": False}, GuidedDecodingRequest()]
)
def test_what_asks_for_nothing_changes_nothing(options: Any) -> None:
    constrained = SamplingParams(structured_outputs=StructuredOutputsParams(regex="x"))
    assert with_guided_options(constrained, options, 1) is constrained


def test_options_are_of_all_prompts_or_of_each() -> None:
    short, long = SamplingParams(max_tokens=1), SamplingParams(max_tokens=2)
    x = {"guided_choice": ["x"]}
    found: Any = with_guided_options([short, long], AB, 2)
    assert [(one.max_tokens, one.grammar) for one in found] == [
        (1, of(regex="[ab]+")),
        (2, of(regex="[ab]+")),
    ]
    found = with_guided_options(short, [AB, None, x], 3)
    assert [one.grammar for one in found] == [of(regex="[ab]+"), None, of(choice=["x"])]
    found = with_guided_options([short, long], [x, AB], 2)
    assert [(one.max_tokens, one.grammar) for one in found] == [
        (1, of(choice=["x"])),
        (2, of(regex="[ab]+")),
    ]
    assert short.grammar is None and long.grammar is None  # callers keep theirs


def test_beams_are_constrained_too() -> None:
    found: Any = with_guided_options(BeamSearchParams(beam_width=3, max_tokens=4), AB, 1)
    assert (found.beam.width, found.grammar) == (3, of(regex="[ab]+"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"guided_jsn": SCHEMA}, "has no field 'guided_jsn', .*did you mean guided_json"),
        ({"guided_json": SCHEMA, **AB}, "exactly one of .*, got guided_json and guided_regex"),
        ({"guided_decoding_backend": "auto"}, "exactly one of .*, got none"),
        ({"guided_regex": False}, "^guided_options_request: regex must be"),
        ({"guided_choice": []}, "^guided_options_request: choice must be a list of non-empty"),
        ({"guided_whitespace_pattern": " ", **AB}, "^guided_options_request: whitespace_pattern"),
        ("[ab]+", r"must be a dict or a GuidedDecodingRequest, got '\[ab\]\+'"),
        ([AB, AB], "2 values of guided_options_request were given for 3 prompts"),
    ],
)
def test_a_wrong_value_is_one_clear_error(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        with_guided_options(SamplingParams(), options, 3)


def test_an_object_is_checked_when_it_is_made() -> None:
    with pytest.raises(ValueError, match="got guided_json and guided_regex; keep one"):
        GuidedDecodingRequest(guided_json=SCHEMA, guided_regex="a")


@pytest.mark.parametrize(
    ("params", "name"),
    [
        (SamplingParams(structured_outputs={"regex": "a"}), "structured_outputs of SamplingParams"),
        (
            SamplingParams(guided_decoding=GuidedDecodingParams(regex="a")),
            "guided_decoding of SamplingParams",
        ),
        (
            BeamSearchParams(beam_width=2, max_tokens=4, structured_outputs={"regex": "a"}),
            "structured_outputs of BeamSearchParams",
        ),
    ],
)
def test_a_second_constraint_is_refused(params: Any, name: str) -> None:
    for given, options in ((params, AB), ([params], AB), (params, [AB])):
        with pytest.raises(ValueError, match=f"guided_options_request and {name} both constrain"):
            with_guided_options(given, options, 1)
