"""A prompt and its parameters become a request, or one clear error."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from quire.config import ModelConfig
from quire.engine.input_processor import InputProcessor, ProcessedRequest
from quire.prompts import ParsedPrompt, parse_prompts
from quire.request import Watch
from quire.row_sampling import num_beam_candidates
from quire.sampling_params import BeamSearchParams, RequestOutputKind, SamplingParams
from quire.tokenizer.vocabulary import Vocabulary
from tests.fakes import tokenizers

TOKENIZER = tokenizers.byte_level()
EOS = TOKENIZER.eos_token_id
START = TOKENIZER.convert_tokens_to_ids("<|im_start|>")


def processor(
    tokenizer: Any = TOKENIZER, eos: Sequence[int] = (EOS,), **changes: Any
) -> InputProcessor:
    settings = {"max_model_len": 20, "vocab_size": 500, "max_logprobs": 5, **changes}
    config = ModelConfig(
        model="m",
        path=Path("m"),
        tokenizer=Path("m"),
        hf_config={},
        generation_config={},
        architecture="LlamaForCausalLM",
        dtype="float32",
        **settings,
    )
    return InputProcessor(config, None if tokenizer is None else Vocabulary(tokenizer), eos)


def process(
    prompt: str | list[int], params: Any = None, inputs: InputProcessor | None = None, **more: Any
) -> ProcessedRequest:
    is_text = isinstance(prompt, str)
    parsed = ParsedPrompt(text=prompt) if is_text else ParsedPrompt(token_ids=prompt)
    return (inputs or processor()).process("r", parsed, params or SamplingParams(), **more)


def test_text_is_tokenized_and_returned_as_written() -> None:
    request = process("hello 你", arrival_time=5.0, priority=3, serial=8)
    assert request.engine.prompt_token_ids == TOKENIZER.encode("hello 你")
    assert request.prompt_text == "hello 你"
    engine = request.engine
    assert (engine.arrival_time, engine.priority, engine.serial) == (5.0, 3, 8)
    assert process([1, 2]).prompt_text is None


def test_special_tokens_are_not_added_to_a_rendered_chat() -> None:
    llama = tokenizers.byte_fallback()
    inputs = processor(llama)
    texts = ["hello", "<s> hello"]
    plain, chat = inputs.tokenize_all(
        [
            ParsedPrompt(text=texts[0]),
            ParsedPrompt(text=texts[1], add_special_tokens=False),
        ]
    )
    assert plain.token_ids == llama.encode("hello")
    assert plain.token_ids[0] == llama.bos_token_id
    assert chat.token_ids == llama.encode("<s> hello", add_special_tokens=False)
    assert chat.token_ids.count(llama.bos_token_id) == 1


def test_prompts_tokenized_together_are_those_tokenized_alone() -> None:
    prompts = [
        ParsedPrompt(text="hello"),
        ParsedPrompt(token_ids=[7, 8]),
        ParsedPrompt(text="numbers 12", add_special_tokens=False),
        ParsedPrompt(text=""),
    ]
    token_ids = [prompt.token_ids for prompt in processor().tokenize_all(prompts)]
    assert token_ids == [TOKENIZER.encode("hello"), [7, 8], TOKENIZER.encode("numbers 12"), []]


def test_output_ends_with_the_context() -> None:
    prompt = list(range(10, 22))
    assert process(prompt, SamplingParams(max_tokens=None)).engine.max_tokens == 8
    assert process(prompt, SamplingParams(max_tokens=99)).engine.max_tokens == 8
    assert process(prompt, SamplingParams(max_tokens=3)).engine.max_tokens == 3


def test_prompt_is_truncated_from_the_left() -> None:
    prompt = list(range(10, 40))
    last = process(prompt, SamplingParams(truncate_prompt_tokens=4))
    assert last.engine.prompt_token_ids == [36, 37, 38, 39]


@pytest.mark.parametrize(
    ("limits", "num_kept", "num_left"),
    [
        ({"max_tokens": 1}, 19, 1),
        ({"max_tokens": 5}, 15, 5),
        ({"max_tokens": 19}, 1, 19),
        ({"max_tokens": None}, 19, 1),
        ({"max_tokens": 20}, 19, 1),  # the whole context: no limit
        ({"max_tokens": 1000}, 19, 1),
        ({"max_tokens": None, "min_tokens": 3}, 17, 3),
    ],
)
def test_a_prompt_can_be_truncated_to_what_the_answer_leaves(
    limits: dict[str, Any], num_kept: int, num_left: int
) -> None:
    prompt = list(range(10, 40))
    params = SamplingParams(truncate_prompt_tokens=-1, **limits)
    request = process(prompt, params).engine
    assert (request.prompt_token_ids, request.max_tokens) == (prompt[-num_kept:], num_left)
    assert process(prompt[:num_kept], params).engine.prompt_token_ids == prompt[:num_kept]


@pytest.mark.parametrize(
    ("family", "num_first", "num_last"),
    [(tokenizers.byte_level, 0, 0), (tokenizers.byte_fallback, 1, 0), (tokenizers.unigram, 0, 1)],
)
def test_special_tokens_around_a_text_are_not_cut_off(
    family: Callable[[], Any], num_first: int, num_last: int
) -> None:
    tokenizer = family()
    inputs = processor(tokenizer, max_model_len=50)
    whole = tokenizer.encode("hello world with two spaces")
    first, last = whole[:num_first], whole[len(whole) - num_last :]
    inner = whole[num_first : len(whole) - num_last]
    prompt = ParsedPrompt(text="hello world with two spaces")

    def cut(prompt: ParsedPrompt, kept: int) -> list[int]:
        params = SamplingParams(truncate_prompt_tokens=kept)
        return inputs.process("r", prompt, params).engine.prompt_token_ids

    assert cut(prompt, 4) == [*first, *inner[num_first + num_last - 4 :], *last]
    right = inputs.truncated(replace(prompt, token_ids=whole), 4, "right")
    assert right == [*first, *inner[: 4 - num_first - num_last], *last]
    assert cut(prompt, 1) == whole[-1:]  # no room for anything but special tokens
    assert cut(prompt, len(whole)) == cut(prompt, 50) == whole
    plain = tokenizer.encode(prompt.text, add_special_tokens=False)
    assert cut(replace(prompt, add_special_tokens=False), 4) == plain[-4:]
    assert cut(ParsedPrompt(token_ids=whole), 4) == whole[-4:]
    foreign = list(range(100, 110))
    assert cut(ParsedPrompt(text="only passed on", token_ids=foreign), 4) == foreign[-4:]


def test_token_ids_are_truncated_without_a_tokenizer() -> None:
    prompt = ParsedPrompt(text="only passed on", token_ids=[5, 6, 7])
    params = SamplingParams(truncate_prompt_tokens=2)
    assert processor(None).process("r", prompt, params).engine.prompt_token_ids == [6, 7]


@pytest.mark.parametrize(
    ("prompt", "params", "message"),
    [
        ("", {}, "prompt is empty"),
        (list(range(20)), {}, r"has 20 tokens, but max_model_len is 20 .*truncate_prompt_tokens"),
        ([5], {"truncate_prompt_tokens": 21}, r"be -1 or from 1 to 20, the length .* got 21; use"),
        ([3, 500], {}, r"token id 500, which is outside the vocabulary, 0 to 499"),
        ("a", {"stop_token_ids": [500]}, "stop_token_ids"),
        ("a", {"logprobs": 6}, "max_logprobs=5"),
    ],
)
def test_wrong_input_is_one_clear_error(prompt: Any, params: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        process(prompt, SamplingParams(**params))


@pytest.mark.parametrize(("source", "helps"), [("user", True), ("config", False), ("auto", False)])
def test_a_longer_context_is_advised_only_to_who_chose_it(source: str, helps: bool) -> None:
    with pytest.raises(ValueError, match="set truncate_prompt_tokens") as caught:
        process([5] * 20, inputs=processor(max_model_len_source=source))
    assert ("larger max_model_len" in str(caught.value)) == helps


@pytest.mark.parametrize("salt", ["a/b", "a@b", "\\", "\0", "x" * 129])
def test_a_salt_is_a_plain_name(salt: str) -> None:
    prompt = ParsedPrompt(token_ids=[5], cache_salt=salt)
    with pytest.raises(ValueError, match=r"cache_salt must have 1 to 128 characters, none of them"):
        processor().process("r", prompt, SamplingParams())


def test_text_that_has_no_tokens_is_refused_under_its_name() -> None:
    inputs = processor(tokenizers.capital_letters("WordLevel"), [2])
    prompts = [ParsedPrompt(text=text, name=f"prompts[{i}]") for i, text in enumerate(["AB", "a"])]
    with pytest.raises(ValueError, match=r"prompts\[1\] cannot be tokenized by this model"):
        inputs.tokenize_all(prompts)
    params = SamplingParams(bad_words=["A"])  # with a space before it no token spells it
    request = inputs.process("a", prompts[0], params).engine
    assert request.prompt_token_ids == [5, 6]
    assert request.sampling.bad_words_token_ids == ((5,),)


def test_half_of_a_surrogate_pair_is_refused_under_its_name() -> None:
    prompts = parse_prompts(["whole \U0001f600", "half \ud83d"])
    message = r"prompts\[1\] has half of a surrogate pair, '\\ud83d' at character 5, .*leave it out"
    with pytest.raises(ValueError, match=message):
        processor().tokenize_all(prompts)
    with pytest.raises(ValueError, match="the prompt has half"):
        process("\udc80")
    for stop, name in (("\ud83d", "stop"), (["a", "\ud83d"], r"stop\[1\]")):
        with pytest.raises(ValueError, match=f"{name} has half of a surrogate pair"):
            process("a", SamplingParams(stop=stop))


def test_without_tokenizer_text_is_refused() -> None:
    inputs = processor(None)
    assert process([1, 2], inputs=inputs).engine.prompt_token_ids == [1, 2]
    with pytest.raises(ValueError, match="prompt_token_ids"):
        process("a", inputs=inputs)
    with pytest.raises(ValueError, match="stop strings need a tokenizer"):
        process([1], SamplingParams(stop=["x"]), inputs=inputs)


def test_stop_string_that_is_a_special_token_stops_in_the_core() -> None:
    params = SamplingParams(
        stop=["<|im_start|>"], stop_token_ids=[7], output_kind=RequestOutputKind.FINAL_ONLY
    )
    request = process("a", params)
    assert set(request.engine.sampling.stop_token_ids) == {7, EOS, START}
    assert request.stop.token_ids == {7, EOS, START}
    assert request.stop.token_strings == {START: "<|im_start|>"}
    assert request.engine.watch is Watch.AT_END


def test_other_stop_strings_are_looked_for_now_and_then() -> None:
    final = RequestOutputKind.FINAL_ONLY
    params = SamplingParams(stop=["<|im_start|>", "\n\n"], output_kind=final)
    assert process("a", params).engine.watch is Watch.NOW_AND_THEN
    assert process("a", SamplingParams(output_kind=final)).engine.watch is Watch.AT_END


def test_nobody_watches_completions_that_are_ranked_at_the_end() -> None:
    assert process("a", SamplingParams(n=2, best_of=2)).engine.watch is Watch.EVERY_STEP
    assert process("a", SamplingParams(n=2, best_of=3)).engine.watch is Watch.AT_END


def test_beams_bring_enough_candidates_for_every_stop_token() -> None:
    params = SamplingParams(use_beam_search=True, n=3, stop=["<|im_start|>"])
    sampling = process("a", params).engine.sampling
    assert set(sampling.stop_token_ids) == {EOS, START}
    assert sampling.num_logprobs == num_beam_candidates(3, 2)


def test_beams_end_at_tokens_only() -> None:
    params = SamplingParams(use_beam_search=True, n=3, stop=["<|im_start|>", " the", "\n"])
    with pytest.raises(
        ValueError, match=r"one special token .*stop=\[' the', '\\n'\]; use stop_to"
    ):
        process("a", params)
    chat = ParsedPrompt(text="hello", ends=("###",))
    beams = BeamSearchParams(beam_width=3, max_tokens=4)
    assert processor().process("r", chat, beams).stop.strings == ("###",)


@pytest.mark.parametrize(
    ("request_id", "priority", "message"),
    [
        (5, 0, "request_id must be a string, got 5"),
        ("r", "high", "priority must be an integer"),
        ("r", 2**63, "of 64 bits, got 9223372036854775808"),
        ("r", -(2**63) - 1, "of 64 bits"),
    ],
)
def test_what_another_process_could_not_read_is_refused(
    request_id: Any, priority: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        processor().process(
            request_id, ParsedPrompt(token_ids=[1]), SamplingParams(), priority=priority
        )


def test_ends_that_the_model_does_not_have_forbid_and_end_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        inputs = processor(eos=(EOS, -1, 500))
    assert "only those inside the vocabulary, 0 to 499, count" in caplog.text
    request = inputs.process("r", ParsedPrompt(token_ids=[5]), SamplingParams(min_tokens=2))
    assert request.engine.sampling.stop_token_ids == (EOS,)


def test_eos_can_be_ignored() -> None:
    request = process("a", SamplingParams(ignore_eos=True))
    assert request.engine.sampling.stop_token_ids == ()
    assert request.stop.eos_token_ids == frozenset()


def test_only_the_end_of_the_tokenizer_is_no_reason() -> None:
    inputs = processor(eos=(START, EOS))
    stop = process("a", inputs=inputs).stop
    assert (stop.token_ids, stop.eos_token_ids) == ({START, EOS}, {EOS})
    asked = process("a", SamplingParams(stop_token_ids=[START, EOS]), inputs).stop
    assert asked.eos_token_ids == {EOS}
    assert process([1], inputs=processor(None, eos=(START,))).stop.eos_token_ids == set()


def test_requests_without_seed_differ_and_engines_of_one_seed_repeat() -> None:
    first, second = processor(seed=1), processor(seed=1)
    seeds = [process("a", inputs=first).engine.sampling.seed for _ in range(3)]
    assert len(set(seeds)) == 3
    assert seeds == [process("a", inputs=second).engine.sampling.seed for _ in range(3)]
    assert process("a", inputs=processor(seed=2)).engine.sampling.seed not in seeds
    request = process("a", SamplingParams(seed=9, n=2))
    assert [request.engine.row_seed(index) for index in range(2)] == [9, 10]


def test_the_prefix_cache_is_left_out_where_asked_for() -> None:
    assert process("a").engine.use_prefix_cache
    assert not process("a", SamplingParams(skip_reading_prefix_cache=True)).engine.use_prefix_cache


def test_best_of_and_beams_set_the_number_of_completions() -> None:
    assert process("a", SamplingParams(n=2, best_of=4)).engine.n == 4
    beams = process("a", BeamSearchParams(beam_width=3, max_tokens=4, length_penalty=2.0)).engine
    assert beams.n == 3
    assert beams.beam is not None
    assert (beams.beam.width, beams.beam.length_penalty) == (3, 2.0)


def test_ends_of_a_chat_format_are_like_end_of_sequence_tokens() -> None:
    chat = ParsedPrompt(text="hello", ends=("<|im_start|>", "###"))
    request = processor().process("r", chat, SamplingParams(stop=["x", "###"]))
    assert set(request.engine.sampling.stop_token_ids) == {EOS, START}
    assert request.stop.eos_token_ids == {EOS, START}
    assert request.stop.strings == ("x", "###")
    assert request.stop.end_strings == set()
    assert request.stop.token_strings == {}
    assert request.engine.watch is Watch.EVERY_STEP
    ignoring = processor().process("r", chat, SamplingParams(ignore_eos=True))
    stop = ignoring.stop
    assert (stop.strings, stop.eos_token_ids, stop.token_ids) == ((), set(), set())
    assert set(ignoring.engine.sampling.ignored_eos_ids) == {EOS, START}
    silent = processor().process("r", chat, SamplingParams(stop=["x"])).stop
    assert (silent.strings, silent.end_strings) == (("x", "###"), {"###"})
    plain = processor().process("r", ParsedPrompt(text="hello"), SamplingParams()).stop
    assert (plain.strings, plain.eos_token_ids) == ((), {EOS})


def test_end_of_the_format_that_the_user_names_too_is_theirs_to_see() -> None:
    chat = ParsedPrompt(text="hello", ends=("<|im_start|>",))
    stop = processor().process("r", chat, SamplingParams(stop="<|im_start|>")).stop
    assert stop.token_strings == {START: "<|im_start|>"}
    assert stop.eos_token_ids == {EOS}
