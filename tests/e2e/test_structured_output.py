"""Constrained output of whole engines: every form of constraint, and what else a request may be."""

from __future__ import annotations

import json
import logging
import re
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from quire import LLM, SamplingParams
from quire.assets import TINY_CHAT
from quire.engine.guided_options import GuidedDecodingRequest
from quire.sampling_params import (
    BeamSearchParams,
    GuidedDecodingParams,
    StructuredOutputsParams,
)
from quire.structured_outputs import backend_llguidance
from tests.fakes.json_schemas import keywords_of, large_schema, random_schema

PROMPT = "Tell me about a person."
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 130},
        "born": {"type": "string", "format": "date"},
    },
    "required": ["name", "age", "born"],
}
TAG = {
    "structures": [{"begin": "<call=get>", "schema": PERSON, "end": "</call>"}],
    "triggers": ["<call="],
}
MANY_KINDS: list[dict[str, Any]] = [
    {"json": PERSON},
    {"regex": "[a-z]{3,9}@[a-z]{2,6}\\.(com|org)"},
    {"choice": ["yes", "no", "yes, but", "yes, but not now"]},
    {"grammar": 'start: "(" start ")" | /[a-z]{1,4}/'},
]


def engine(**options: Any) -> LLM:
    defaults: dict[str, Any] = {"dtype": "float32", "max_num_seqs": 8, "max_model_len": 512}
    return LLM(str(TINY_CHAT), device="cpu", seed=0, **{**defaults, **options})


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with engine(num_gpu_blocks_override=400) as made:
        yield made


def params(constraint: dict[str, Any] | None, **options: Any) -> SamplingParams:
    given = None if constraint is None else StructuredOutputsParams(**constraint)
    defaults = {"max_tokens": 120, "temperature": 1.0, "seed": 5, "structured_outputs": given}
    return SamplingParams(**{**defaults, **options})


def texts(llm: LLM, given: SamplingParams | list[SamplingParams], count: int = 1) -> list[str]:
    prompts = [PROMPT] * (len(given) if isinstance(given, list) else count)
    outputs = llm.generate(prompts, given, use_tqdm=False)
    ends = [one.finish_reason for output in outputs for one in output.outputs]
    assert set(ends) <= {"stop"}, ends
    return [one.text for output in outputs for one in output.outputs]


def assert_person(text: str) -> None:
    errors = list(
        Draft202012Validator(
            PERSON, format_checker=Draft202012Validator.FORMAT_CHECKER
        ).iter_errors(json.loads(text))
    )
    assert not errors, (text, errors)


def assert_follows(constraint: dict[str, Any], text: str) -> None:
    if "json" in constraint:
        assert_person(text)
    elif "regex" in constraint:
        assert re.fullmatch(constraint["regex"], text), text
    elif "choice" in constraint:
        assert text in constraint["choice"]
    else:
        inner = text.strip("()")
        depth = text.count("(")
        assert text == "(" * depth + inner + ")" * depth, text
        assert re.fullmatch("[a-z]{1,4}", inner), text


@pytest.mark.parametrize("constraint", MANY_KINDS, ids=[next(iter(one)) for one in MANY_KINDS])
def test_every_completion_follows_its_constraint(llm: LLM, constraint: dict[str, Any]) -> None:
    for text in texts(llm, params(constraint, n=4)):
        assert_follows(constraint, text)


def test_a_json_object_is_one(llm: LLM) -> None:
    output = llm.generate(PROMPT, params({"json_object": True}, n=4, max_tokens=300))[0]
    ended = [one.text for one in output.outputs if one.finish_reason == "stop"]
    assert ended
    assert all(isinstance(json.loads(text), dict) for text in ended)


def test_no_escape_slips_through_a_pattern(llm: LLM) -> None:
    """Though all that the model wants to write are backslashes."""
    pattern = r'^[^<>:"/\\|?*]+$'
    schema = {"properties": {"file": {"type": "string", "pattern": pattern}}, "required": ["file"]}
    vocabulary = llm.get_tokenizer().get_vocab()
    bias = {token_id: 8.0 for text, token_id in vocabulary.items() if text.startswith("\\")}
    assert bias
    given = params({"json": schema}, n=40, temperature=2.0, logit_bias=bias, max_tokens=60)
    output = llm.generate('A file named "', given, use_tqdm=False)[0]
    ended = [one.text for one in output.outputs if one.finish_reason == "stop"]
    assert ended
    assert all(re.search(pattern, json.loads(text)["file"]) for text in ended)


def test_ebnf_and_tags_in_free_text(llm: LLM) -> None:
    for text in texts(llm, params({"grammar": 'root ::= "a" root "b" | "c"'}, n=3)):
        depth = text.count("a")
        assert text == "a" * depth + "c" + "b" * depth
    begins = {"logit_bias": {llm.get_tokenizer().encode("<", add_special_tokens=False)[0]: 30.0}}
    output = llm.generate(PROMPT, params({"structural_tag": TAG}, max_tokens=60, **begins))[0]
    calls = re.findall("<call=get>(.*?)</call>", output.outputs[0].text, re.DOTALL)
    assert output.outputs[0].text.count("<call=") <= len(calls) + 1
    for arguments in calls:
        assert_person(arguments)


def test_the_older_names_mean_the_same(llm: LLM) -> None:
    older = params(None, guided_decoding=GuidedDecodingParams(json=PERSON, backend="outlines"))
    plain = params(None, structured_outputs={"json": PERSON})
    assert texts(llm, older) == texts(llm, plain) == texts(llm, params({"json": PERSON}))


def test_the_oldest_form_is_an_argument_of_the_calls(llm: LLM) -> None:
    regex, choice = {"guided_regex": "[ab]{2}"}, GuidedDecodingRequest(guided_choice=["yes", "no"])
    free = params(None)
    (one,) = llm.generate(PROMPT, free, guided_options_request=regex, use_tqdm=False)
    assert re.fullmatch("[ab]{2}", one.outputs[0].text)
    two = llm.generate([PROMPT] * 2, guided_options_request=[regex, choice], use_tqdm=False)
    assert re.fullmatch("[ab]{2}", two[0].outputs[0].text)
    assert two[1].outputs[0].text in ("yes", "no")
    question = [{"role": "user", "content": PROMPT}]
    (said,) = llm.chat(question, free, guided_options_request=choice, use_tqdm=False)
    assert said.outputs[0].text in ("yes", "no")
    with pytest.raises(ValueError, match="guided_options_request and structured_outputs of"):
        llm.generate(PROMPT, params({"regex": "a"}), guided_options_request=regex)


def test_two_constraints_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="got json and regex; keep one"):
        StructuredOutputsParams(json=PERSON, regex="a")
    with pytest.raises(ValueError, match="guided_decoding is the older name"):
        params({"regex": "a"}, guided_decoding=GuidedDecodingParams(regex="a"))
    with pytest.raises(ValueError, match="allowed_token_ids cannot be combined"):
        params({"regex": "a"}, allowed_token_ids=[4])


def test_a_constraint_that_cannot_be_followed_is_an_error_before_anything_runs(llm: LLM) -> None:
    for constraint, message in [
        ({"json": {"properties": {"a": {"not": {"const": 1}}}}}, "'not' at #/properties/a/not"),
        ({"json": {"type": "integer", "minimum": 3, "maximum": 1}}, "Unsatisfiable"),
        ({"regex": "(a"}, "unclosed group"),
        ({"grammar": "root ::= nothing"}, "nothing"),
        ({"structural_tag": {"format": {"type": "what"}}}, "what"),
    ]:
        with pytest.raises(ValueError, match=re.escape(message)):
            llm.generate(PROMPT, params(constraint))


def test_beams_follow_their_grammar(llm: LLM) -> None:
    beams = params({"json": PERSON}, use_beam_search=True, n=3, temperature=0.0, seed=None)
    found = texts(llm, beams)
    assert len(found) == len(set(found)) == 3
    for text in found:
        assert_person(text)


def test_beam_search_follows_its_grammar(llm: LLM) -> None:
    schema = StructuredOutputsParams(json=PERSON)
    wanted = BeamSearchParams(beam_width=3, max_tokens=150, structured_outputs=schema)
    (found,) = llm.beam_search([PROMPT], wanted)
    assert len({beam.text for beam in found.sequences}) == 3
    for beam in found.sequences:
        assert beam.finish_reason == "stop"
        Draft202012Validator(PERSON).validate(json.loads(str(beam.text).removeprefix(PROMPT)))


@pytest.mark.parametrize("budget", [None, 2])
def test_a_grammar_begins_behind_a_thought_however_the_model_spells_its_end(
    budget: int | None,
) -> None:
    """The tag is ``he``, ``l``, ``p`` to the tokenizer; the model writes `` help``."""
    greedy = params(
        {"choice": ["yes", "no"]}, temperature=0.0, seed=None, thinking_token_budget=budget
    )
    warm = params({"choice": ["yes", "no"]}, n=8, thinking_token_budget=budget)
    with engine(reasoning_parser="tags:Hello,help") as llm:
        outputs = llm.chat([[{"role": "user", "content": "Hello"}]] * 2, [greedy, warm])
    assert outputs[0].outputs[0].text.startswith("Hello! ")
    answers = [one for output in outputs for one in output.outputs]
    ended = [one.text for one in answers if one.finish_reason == "stop"]
    assert len(ended) > 2
    assert all(re.fullmatch("(?s:Hello.*?help)?(yes|no)", text) for text in ended), ended
    assert all("help" not in one.text for one in answers if one.text not in ended)


@pytest.mark.parametrize(
    "options",
    [
        {"reasoning_parser": "tags:<think>,</think>"},
        {"structured_outputs_config": {"reasoning_parser": "qwen3"}},
    ],
)
def test_named_reasoning_parser_limits_thoughts_and_keeps_grammars_out_of_them(
    options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    choice = {"choice": ["yes", "no"]}
    greedy: dict[str, Any] = {"temperature": 0.0, "seed": None, "max_tokens": 40}
    with caplog.at_level(logging.WARNING, logger="quire"), engine(**options) as llm:
        tokenizer = llm.get_tokenizer()
        before = [tokenizer.encode("Hi <think>"), tokenizer.encode("Hi <think> a </think>")]
        (thought, answer) = llm.generate(
            [{"prompt_token_ids": prompt} for prompt in before],
            params(choice, thinking_token_budget=5, **greedy),
        )
        (prefill,) = llm.chat(
            [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "<think> so"}],
            params(None, thinking_token_budget=3, ignore_eos=True, **greedy),
            add_generation_prompt=False,
            continue_final_message=True,
        )
    end = tokenizer.encode("</think>", add_special_tokens=False)
    assert list(thought.outputs[0].token_ids[5 : 5 + len(end)]) == end
    assert re.fullmatch(r"(?s).*</think>\s*(yes|no)", thought.outputs[0].text)
    assert answer.outputs[0].text in ("yes", "no")
    assert list(prefill.outputs[0].token_ids[3 : 3 + len(end)]) == end
    assert [record for record in caplog.records if "no effect" in record.getMessage()] == []


def test_what_is_complete_ends_whatever_else_was_asked(llm: LLM) -> None:
    ignoring = params({"regex": "[a-z]{4}"}, ignore_eos=True)
    assert all(len(text) == 4 for text in texts(llm, ignoring, 3))
    late = params({"regex": "[a-z]{1,9}"}, ignore_eos=True)
    assert all(len(text) == 9 for text in texts(llm, late, 3))  # nothing else may follow
    many = params({"choice": ["a", "b"]}, min_tokens=50)
    assert set(texts(llm, many, 3)) <= {"a", "b"}


def test_a_grammar_that_is_used_up_serves_all_who_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What all its texts have in common has a limit, which no text must be the victim of."""
    monkeypatch.setattr(backend_llguidance, "MAX_SHARED_STATES", 150)
    pattern = "(.*[aeiou].{0,40}[aeiou]){3}x{0,9}"
    with engine() as fresh:
        for _ in range(3):
            given = [params({"regex": pattern}, seed=i, max_tokens=30) for i in range(4)]
            ends = run(fresh, given)
            assert {end for _, end in ends} <= {"stop", "length"}, ends
            assert all(re.fullmatch(pattern, text) for text, end in ends if end == "stop"), ends


def test_min_tokens_keeps_a_text_going_that_may_end(llm: LLM) -> None:
    output = llm.generate(PROMPT, params({"regex": "[a-z]{1,60}"}, min_tokens=12, n=4))[0]
    assert all(len(one.token_ids) >= 12 for one in output.outputs)
    assert all(re.fullmatch("[a-z]{1,60}", one.text) for one in output.outputs)


def test_a_stop_string_cuts_a_constrained_text(llm: LLM) -> None:
    (text,) = texts(llm, params({"json": PERSON}, stop=['"age"']))
    assert text.startswith("{") and '"age"' not in text and "name" in text


def test_penalties_filters_and_logprobs_go_with_a_grammar(llm: LLM) -> None:
    options = {"presence_penalty": 1.0, "top_p": 0.9, "top_k": 30, "repetition_penalty": 1.2}
    assert_person(texts(llm, params({"json": PERSON}, **options))[0])
    output = llm.generate(PROMPT, params({"choice": ["yes", "no"]}, logprobs=2))[0].outputs[0]
    assert output.logprobs is not None and output.text in ("yes", "no")
    assert len(output.logprobs) == len(output.token_ids)


def test_what_forbids_the_only_token_ends_its_request_alone(llm: LLM) -> None:
    token_id = llm.get_tokenizer().encode("z", add_special_tokens=False)[0]
    impossible = params({"regex": "z"}, logit_bias={token_id: float("-inf")})
    first, second = llm.generate([PROMPT] * 2, [impossible, params({"regex": "[ab]"})])
    assert first.outputs[0].finish_reason == "error"
    assert "left no token that its grammar allows" in str(first.outputs[0].error)
    assert first.outputs[0].is_refusal
    assert second.outputs[0].text in ("a", "b")


def mixed(count: int) -> list[SamplingParams]:
    """Constrained ones of every kind, and others among them."""
    kinds: list[dict[str, Any] | None] = [*MANY_KINDS, None]
    return [
        params(kinds[i % len(kinds)], seed=i, max_tokens=60 if kinds[i % len(kinds)] else 12)
        for i in range(count)
    ]


def run(llm: LLM, given: list[SamplingParams]) -> list[tuple[str, str | None]]:
    outputs = llm.generate([f"{PROMPT} {i}" for i in range(len(given))], given, use_tqdm=False)
    return [(one.outputs[0].text, one.outputs[0].finish_reason) for one in outputs]


@pytest.mark.parametrize(
    "options",
    [
        {"steps_in_flight": 2},
        {"steps_in_flight": 3, "max_num_batched_tokens": 24},
        {"num_gpu_blocks_override": 18, "block_size": 8, "max_model_len": 128},
        {"enable_prefix_caching": False, "max_num_seqs": 2},
        {"num_gpu_blocks_override": 18, "block_size": 8, "max_model_len": 128, "max_num_seqs": 6,
         "steps_in_flight": 3, "max_num_batched_tokens": 16},
    ],
    ids=["run ahead", "chunks", "preemption", "few rows", "all at once"],
)  # fmt: skip
def test_answers_are_those_of_a_calm_engine(llm: LLM, options: dict[str, Any]) -> None:
    given = mixed(15)
    calm = run(llm, given)
    with engine(**options) as other:
        assert run(other, given) == calm
        stats = other.llm_engine.stats()
        assert stats.num_waiting == stats.num_running == 0
        is_tight = "num_gpu_blocks_override" in options
        assert not is_tight or stats.num_preemptions > 0


def check_schemas(
    llm: LLM, schemas: list[dict[str, Any]], max_tokens: int
) -> tuple[Counter[str], Counter[str], Counter[str]]:
    """How the answers to these schemas end, and by keyword how many were valid or cut off."""
    given = [
        params({"json": schema}, seed=i, max_tokens=max_tokens) for i, schema in enumerate(schemas)
    ]
    ends: Counter[str] = Counter()
    valid: Counter[str] = Counter()
    cut: Counter[str] = Counter()
    for schema, (text, end) in zip(schemas, run(llm, given), strict=True):
        ends[str(end)] += 1
        if end == "stop":
            validator = Draft202012Validator(
                schema, format_checker=Draft202012Validator.FORMAT_CHECKER
            )
            errors = list(validator.iter_errors(json.loads(text)))
            assert not errors, (schema, text, errors)
        (valid if end == "stop" else cut).update(set(keywords_of(schema)))
    return ends, valid, cut


def test_answers_to_random_schemas_are_valid(llm: LLM) -> None:
    schemas = [random_schema(seed) for seed in range(40)]
    ends, valid, _ = check_schemas(llm, schemas, max_tokens=350)
    assert set(ends) <= {"stop", "length"} and ends["stop"] >= 30, ends
    assert len(valid) >= 20, valid


@pytest.mark.soak
def test_answers_to_a_thousand_random_schemas_are_valid() -> None:
    schemas = {
        "random": [random_schema(seed) for seed in range(1000)],
        "large": [large_schema(seed) for seed in range(100)],
    }
    with engine(max_num_seqs=64, max_model_len=2048, num_gpu_blocks_override=4000) as llm:
        for name, least in (("random", 850), ("large", 65)):
            started = time.monotonic()
            ends, valid, cut = check_schemas(llm, schemas[name], max_tokens=1500)
            took = time.monotonic() - started
            print(f"\n{name}: {dict(ends)} in {took:.0f} s; answers valid and cut off by keyword:")
            for keyword in sorted({*valid, *cut}):
                print(f"  {keyword}: {valid[keyword]} {cut[keyword]}")
            assert set(ends) <= {"stop", "length"} and ends["stop"] >= least, ends
