"""Deltas of the core become the outputs that callers expect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quire.config import ModelConfig
from quire.engine.input_processor import InputProcessor, ProcessedRequest
from quire.engine.output_processor import OutputProcessor
from quire.outputs import RequestOutput
from quire.prompts import ParsedPrompt
from quire.request import FinishReason
from quire.sampling_params import BeamSearchParams, RequestOutputKind, SamplingParams
from quire.step import TokenLogprobs
from quire.step_output import CompletionDelta, CompletionTiming
from quire.tokenizer.vocabulary import Vocabulary
from tests.fakes import tokenizers

TOKENIZER = tokenizers.byte_level()
VOCABULARY = Vocabulary(TOKENIZER)
EOS = TOKENIZER.eos_token_id
START = TOKENIZER.convert_tokens_to_ids("<|im_start|>")
CONFIG = ModelConfig(
    model="m",
    path=Path("m"),
    tokenizer=Path("m"),
    hf_config={},
    generation_config={},
    architecture="LlamaForCausalLM",
    dtype="float32",
    max_model_len=1000,
    vocab_size=400,
)


def encode(text: str) -> list[int]:
    return TOKENIZER.encode(text)


def request(request_id: str = "r", params: Any = None, **fields: Any) -> ProcessedRequest:
    inputs = InputProcessor(CONFIG, VOCABULARY, (EOS,))
    params = params or SamplingParams(max_tokens=100, **fields)
    return inputs.process(request_id, ParsedPrompt(text="hello"), params, arrival_time=10.0)


def outputs_of(*requests: ProcessedRequest) -> OutputProcessor:
    outputs = OutputProcessor(VOCABULARY)
    for one in requests:
        outputs.add(one)
    return outputs


def delta(
    token_ids: list[int], finish: FinishReason | None = None, index: int = 0, **fields: Any
) -> CompletionDelta:
    fields = {"request_id": "r", **fields}
    return CompletionDelta(index=index, new_token_ids=token_ids, finish_reason=finish, **fields)


def one(outputs: list[RequestOutput]) -> RequestOutput:
    (output,) = outputs
    return output


def run(
    params: SamplingParams, token_ids: list[int], finish: FinishReason, step_size: int = 1
) -> tuple[RequestOutput, list[tuple[str, int]]]:
    """All tokens in steps of this size; the last output and what the core was told to end."""
    outputs = outputs_of(request(params=params))
    last, aborted = None, []
    for start in range(0, len(token_ids), step_size):
        piece = token_ids[start : start + step_size]
        is_last = start + step_size >= len(token_ids)
        step = outputs.process([delta(piece, finish if is_last else None)])
        last = step.outputs[-1] if step.outputs else last
        aborted += step.to_abort
    assert last is not None
    return last, aborted


def test_cumulative_outputs_grow() -> None:
    outputs = outputs_of(request())
    first = one(outputs.process([delta(encode(" world"), num_cached_tokens=4)]).outputs)
    last = one(outputs.process([delta([*encode(" and"), EOS], FinishReason.STOP)]).outputs)
    assert (first.prompt, first.prompt_token_ids) == ("hello", encode("hello"))
    assert (first.outputs[0].text, first.finished, first.num_cached_tokens) == (" world", False, 4)
    assert first.outputs[0].token_ids == encode(" world")
    assert last.finished and len(outputs) == 0
    completion = last.outputs[0]
    assert (completion.text, completion.finish_reason) == (" world and", "stop")
    assert completion.stop_reason is None
    assert completion.token_ids == [*encode(" world"), *encode(" and"), EOS]


def test_which_of_several_end_tokens_it_was_is_told_but_for_that_of_the_tokenizer() -> None:
    inputs = InputProcessor(CONFIG, VOCABULARY, (EOS, START))
    for end, reason in ((EOS, None), (START, START)):
        made = inputs.process("r", ParsedPrompt(text="hello"), SamplingParams(max_tokens=100))
        step = outputs_of(made).process([delta([*encode("a"), end], FinishReason.STOP)])
        completion = one(step.outputs).outputs[0]
        assert (completion.text, completion.finish_reason) == ("a", "stop")
        assert completion.stop_reason == reason


@pytest.mark.parametrize("include", [False, True])
@pytest.mark.parametrize("at_end", [False, True])
def test_a_text_that_ends_a_turn_is_no_stop_string(include: bool, at_end: bool) -> None:
    """Also where the text is complete only at the very end, as half a character may be."""
    inputs = InputProcessor(CONFIG, VOCABULARY, (EOS,))
    end = "\nUser:\ufffd" if at_end else "\nUser:"
    params = SamplingParams(max_tokens=100, stop=["dogs"], include_stop_str_in_output=include)
    for text, expected, reason in (
        ("Fine.\nUser:", "Fine.", None),
        ("Fine. dogs", "Fine. dogs" if include else "Fine. ", "dogs"),
    ):
        made = inputs.process("r", ParsedPrompt(text="hello", ends=(end,)), params)
        tokens = [*encode(text), *(encode("☃")[:1] if at_end and reason is None else ())]
        outputs = outputs_of(made)
        steps = [outputs.process([delta([token])]) for token in tokens[:-1]]
        last = outputs.process([delta(tokens[-1:], FinishReason.LENGTH)])
        assert all(not step.to_abort for step in steps)
        completion = one(last.outputs).outputs[0]
        assert (completion.text, completion.finish_reason) == (expected, "stop")
        assert completion.stop_reason == reason


def test_the_prompt_of_outputs_is_the_callers_own() -> None:
    made = request()
    outputs = outputs_of(made)
    first = one(outputs.process([delta(encode(" world"))]).outputs)
    assert first.prompt_token_ids == encode("hello")
    first.prompt_token_ids += first.outputs[0].token_ids
    assert made.engine.prompt_token_ids == encode("hello")
    last = one(outputs.process([delta(encode(" and"), FinishReason.LENGTH)]).outputs)
    assert last.prompt_token_ids is first.prompt_token_ids  # one copy a request


def test_deltas_hold_only_what_is_new() -> None:
    outputs = outputs_of(request(n=2, output_kind=RequestOutputKind.DELTA))
    step = outputs.process([delta(encode(" world")), delta(encode(" a"), index=1)])
    assert [(o.index, o.text) for o in one(step.outputs).outputs] == [(0, " world"), (1, " a")]
    step = outputs.process([delta(encode("!"), FinishReason.LENGTH, index=1)])
    (only,) = one(step.outputs).outputs
    assert (only.index, only.text, only.token_ids) == (1, "!", encode("!"))
    assert only.finish_reason == "length"
    assert not one(step.outputs).finished


def test_final_only_is_one_output_with_all_completions() -> None:
    outputs = outputs_of(request(n=2, output_kind=RequestOutputKind.FINAL_ONLY))
    assert outputs.process([delta(encode("a"), FinishReason.LENGTH, 1)]).outputs == []
    step = outputs.process([delta(encode("b"), FinishReason.LENGTH, 0)])
    assert [(o.index, o.text) for o in one(step.outputs).outputs] == [(0, "b"), (1, "a")]


@settings(max_examples=60, deadline=None)
@given(
    stop=st.lists(st.sampled_from(["wo", "d a", "ld", " and ", "<|im_start|>"]), min_size=1),
    include=st.booleans(),
    min_tokens=st.integers(0, 6),
    step_size=st.integers(1, 20),
)
def test_stop_string_cuts_text_and_tokens(
    stop: list[str], include: bool, min_tokens: int, step_size: int
) -> None:
    token_ids = encode(" world and world and world")
    params = SamplingParams(
        max_tokens=100,
        stop=stop,
        include_stop_str_in_output=include,
        min_tokens=min_tokens,
    )
    output, aborted = run(params, token_ids, FinishReason.LENGTH, step_size)
    completion = output.outputs[0]
    num_skipped = len(TOKENIZER.decode(token_ids[:min_tokens]))
    for count in range(min_tokens + 1, len(token_ids) + 1):
        text = TOKENIZER.decode(token_ids[:count])
        places = [
            (place, s) for s in stop for place in range(len(text)) if text[place:].startswith(s)
        ]
        ends = [(place + len(s), place, s) for place, s in places if place + len(s) > num_skipped]
        if ends:
            end, start, found = min(ends)
            assert completion.stop_reason == found
            assert completion.finish_reason == "stop"
            assert completion.text == text[: end if include else start]
            assert completion.token_ids == token_ids[:count]
            assert aborted == (
                [] if step_size * -(-count // step_size) >= len(token_ids) else [("r", 0)]
            )
            return
    assert (completion.finish_reason, completion.stop_reason) == ("length", None)
    assert completion.token_ids == token_ids
    assert completion.text == " world and world and world"


def test_after_a_stop_string_the_core_is_not_listened_to() -> None:
    outputs = outputs_of(request(stop=["x"], n=2))
    step = outputs.process([delta(encode("x")), delta(encode("a"), index=1)])
    assert step.to_abort == [("r", 0)]
    assert not one(step.outputs).finished
    step = outputs.process([delta(encode("more"))])
    assert (step.outputs, step.to_abort) == ([], [])
    step = outputs.process([delta(encode("b"), FinishReason.LENGTH, index=1)])
    assert [o.text for o in one(step.outputs).outputs] == ["", "ab"]


def test_possible_stop_string_is_held_back_until_the_end() -> None:
    outputs = outputs_of(request(stop=["</end>"], output_kind=RequestOutputKind.DELTA))
    assert one(outputs.process([delta(encode("a </"))]).outputs).outputs[0].text == "a "
    step = outputs.process([delta(encode("end"), FinishReason.LENGTH)])
    assert one(step.outputs).outputs[0].text == "</end"


@pytest.mark.parametrize(("include", "skip"), [(False, True), (True, True), (True, False)])
def test_special_token_as_stop_string(include: bool, skip: bool) -> None:
    params = SamplingParams(
        max_tokens=100,
        stop=["<|im_start|>"],
        include_stop_str_in_output=include,
        skip_special_tokens=skip,
    )
    output, _ = run(params, [*encode(" world"), START], FinishReason.STOP, step_size=99)
    completion = output.outputs[0]
    assert completion.text == " world" + ("<|im_start|>" if include else "")
    assert (completion.finish_reason, completion.stop_reason) == ("stop", "<|im_start|>")
    assert completion.token_ids == [*encode(" world"), START]


def test_stop_token_is_hidden_unless_included() -> None:
    (bang,) = encode("!")
    hidden, _ = run(SamplingParams(stop_token_ids=[bang]), encode(" world!"), FinishReason.STOP)
    shown, _ = run(
        SamplingParams(stop_token_ids=[bang], include_stop_str_in_output=True),
        encode(" world!"),
        FinishReason.STOP,
    )
    assert (hidden.outputs[0].text, hidden.outputs[0].stop_reason) == (" world", bang)
    assert hidden.outputs[0].token_ids == encode(" world!")
    assert shown.outputs[0].text == " world!"


def test_incomplete_character_ends_as_replacement() -> None:
    half = encode("\U0001f9ff")[:-1]
    output, _ = run(SamplingParams(), [*encode("a"), *half], FinishReason.LENGTH)
    assert output.outputs[0].text == "a\ufffd"


def logprobs_of(token_id: int, logprob: float, rank: int, best: list[tuple[int, float]]) -> Any:
    return TokenLogprobs(
        token_ids=np.array([[token_id, *(i for i, _ in best)]], dtype=np.int32),
        logprobs=np.array([[logprob, *(value for _, value in best)]], dtype=np.float32),
        ranks=np.array([rank], dtype=np.int32),
    )


def test_logprobs_have_the_token_first_then_the_best() -> None:
    outputs = outputs_of(request(logprobs=2))
    (a,), (b,), (c,) = encode("a"), encode("b"), encode("c")
    step = outputs.process(
        [
            delta(
                [a, b],
                FinishReason.LENGTH,
                logprobs=[
                    logprobs_of(a, -3.0, 7, [(b, -0.5), (c, -1.0)]),
                    logprobs_of(b, -0.5, 1, [(b, -0.5), (c, -1.5)]),
                ],
            )
        ]
    )
    completion = one(step.outputs).outputs[0]
    assert completion.logprobs is not None
    first, second = completion.logprobs
    assert [(i, p.logprob, p.rank, p.decoded_token) for i, p in first.items()] == [
        (a, -3.0, 7, "a"),
        (b, -0.5, 1, "b"),
        (c, -1.0, 2, "c"),
    ]
    assert [(i, p.rank) for i, p in second.items()] == [(b, 1), (c, 2)]
    assert completion.cumulative_logprob == -3.5


def test_logprobs_end_with_the_stop_string() -> None:
    outputs = outputs_of(request(stop=["b"], logprobs=0))
    token_ids = encode("a") + encode("b") + encode("c")
    logprobs = [logprobs_of(token_id, -1.0, 1, []) for token_id in token_ids]
    step = outputs.process([delta(token_ids, logprobs=logprobs, cumulative_logprob=-3.0)])
    completion = one(step.outputs).outputs[0]
    assert completion.token_ids == token_ids[:2]
    assert completion.logprobs is not None and len(completion.logprobs) == 2
    assert completion.cumulative_logprob == -2.0


@pytest.mark.parametrize("kind", [RequestOutputKind.CUMULATIVE, RequestOutputKind.DELTA])
def test_prompt_logprobs_begin_with_none(kind: RequestOutputKind) -> None:
    outputs = outputs_of(request(prompt_logprobs=0, output_kind=kind))
    (a,) = encode("a")
    first = one(outputs.process([delta([a], prompt_logprobs=logprobs_of(a, -2.0, 3, []))]).outputs)
    assert first.prompt_logprobs is not None
    nothing, second = first.prompt_logprobs
    assert nothing is None and second is not None
    assert (second[a].logprob, second[a].rank, second[a].decoded_token) == (-2.0, 3, "a")
    later = one(outputs.process([delta([a])]).outputs)
    assert (later.prompt_logprobs is None) == (kind is RequestOutputKind.DELTA)


@pytest.mark.parametrize(("asked", "expected"), [(2, [None]), (None, None)])
def test_prompt_logprobs_of_one_token(asked: int | None, expected: list[None] | None) -> None:
    """The core computes none: nothing comes before the token."""
    params = SamplingParams(max_tokens=1, prompt_logprobs=asked)
    inputs = InputProcessor(CONFIG, VOCABULARY, (EOS,))
    prompt = ParsedPrompt(token_ids=encode("a"))
    outputs = outputs_of(inputs.process("r", prompt, params, arrival_time=10.0))
    output = one(outputs.process([delta(encode("b"), FinishReason.LENGTH)]).outputs)
    assert output.prompt_logprobs == expected


def test_best_of_returns_the_most_likely() -> None:
    outputs = outputs_of(request(n=2, best_of=3))
    (a,) = encode("a")
    for index, logprob in enumerate([-5.0, -1.0, -2.0]):
        step = outputs.process(
            [
                delta(
                    [a + index],
                    FinishReason.LENGTH,
                    index,
                    logprobs=[logprobs_of(a + index, logprob, 1, [])],
                )
            ]
        )
        assert bool(step.outputs) == (index == 2)
    best = one(step.outputs).outputs
    assert [(o.index, o.token_ids, o.cumulative_logprob) for o in best] == [
        (0, [a + 1], -1.0),
        (1, [a + 2], -2.0),
    ]
    assert best[0].logprobs is None


def test_beams_carry_their_scores() -> None:
    outputs = outputs_of(request(params=BeamSearchParams(beam_width=2, max_tokens=5)))
    step = outputs.process(
        [
            delta([*encode(" a"), EOS], FinishReason.STOP, 0, score=-0.5, cumulative_logprob=-1.0),
            delta(encode(" b"), FinishReason.LENGTH, 1, score=-0.7, cumulative_logprob=-0.7),
        ]
    )
    first, second = one(step.outputs).outputs
    assert (first.text, first.score, first.cumulative_logprob) == (" a", -0.5, -1.0)
    assert (second.text, second.score, second.finish_reason) == (" b", -0.7, "length")


def test_fewer_beams_than_asked_for_end_the_request() -> None:
    outputs = outputs_of(request(params=BeamSearchParams(beam_width=3, max_tokens=5)))
    step = outputs.process([delta(encode("a"), FinishReason.LENGTH, score=-1.0)])
    final = one(step.outputs)
    assert final.finished and len(outputs) == 0
    assert [beam.text for beam in final.outputs] == ["a"]


def test_samples_that_failed_are_not_chosen_but_told_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    outputs = outputs_of(request(n=1, best_of=3))
    deltas = [delta([], FinishReason.ERROR, index=i, error="broken") for i in (0, 2)]
    likelihood = [logprobs_of(7, -1.0, 1, [])]
    deltas.append(delta([7], FinishReason.LENGTH, index=1, logprobs=likelihood))
    step = outputs.process(deltas)
    assert [list(o.token_ids) for o in one(step.outputs).outputs] == [[7]]
    assert "2 of 3 samples failed, and the best of the others are chosen: broken" in caplog.text


def test_best_n_beams_are_returned() -> None:
    outputs = outputs_of(request(n=1, best_of=2, use_beam_search=True))
    step = outputs.process(
        [
            delta(encode("ab"), FinishReason.LENGTH, 0, score=-0.5, cumulative_logprob=-1.0),
            delta(encode("c"), FinishReason.LENGTH, 1, score=-0.7, cumulative_logprob=-0.7),
        ]
    )
    assert [beam.text for beam in one(step.outputs).outputs] == ["ab"]


def test_beam_that_an_end_of_the_chat_format_cuts_is_ranked_as_the_others() -> None:
    params = SamplingParams(n=2, best_of=3, use_beam_search=True, max_tokens=100)
    chat = ParsedPrompt(text="hello", ends=("###",))
    outputs = outputs_of(InputProcessor(CONFIG, VOCABULARY, (EOS,)).process("r", chat, params))
    step = outputs.process(
        [
            delta(encode("a"), FinishReason.LENGTH, 0, score=-0.9, cumulative_logprob=-0.9),
            delta(encode("b###c"), FinishReason.LENGTH, 1, score=-0.5, cumulative_logprob=-2.5),
            delta(encode("d###"), FinishReason.LENGTH, 2, score=-0.7, cumulative_logprob=-2.8),
        ]
    )
    found = one(step.outputs).outputs
    assert [(beam.text, beam.score) for beam in found] == [("b", -0.5), ("d", -0.7)]
    # The core's sum is of all its tokens.
    assert [beam.cumulative_logprob for beam in found] == [None, -2.8]


@pytest.mark.parametrize("kind", [RequestOutputKind.DELTA, RequestOutputKind.CUMULATIVE])
def test_stream_interval_joins_tokens(kind: RequestOutputKind) -> None:
    outputs = outputs_of(request(stream_interval=3, output_kind=kind))
    token_ids = [token_id for letter in "abcdefgh" for token_id in encode(letter)]
    texts = []
    for position, token_id in enumerate(token_ids, start=1):
        end = FinishReason.LENGTH if position == len(token_ids) else None
        texts += [o.outputs[0].text for o in outputs.process([delta([token_id], end)]).outputs]
    if kind is RequestOutputKind.DELTA:
        assert texts == ["a", "bcd", "efg", "h"]
    else:
        assert texts == ["a", "abcd", "abcdefg", "abcdefgh"]


def test_late_delta_of_an_earlier_request_with_the_same_id_is_ignored() -> None:
    inputs = InputProcessor(CONFIG, VOCABULARY, (EOS,))
    prompt, params = ParsedPrompt(text="hello"), SamplingParams(max_tokens=100)
    outputs = outputs_of(inputs.process("r", prompt, params, serial=1))
    outputs.abort("r")
    outputs.add(inputs.process("r", prompt, params, serial=2))
    assert outputs.process([delta(encode("old"), serial=1)]).outputs == []
    assert one(outputs.process([delta(encode("new"), serial=2)]).outputs).outputs[0].text == "new"


def test_news_of_a_completion_in_one_step_are_one_output() -> None:
    outputs = outputs_of(request(output_kind=RequestOutputKind.DELTA))
    step = outputs.process([delta(encode("a")), delta(encode("b"))])
    assert [o.text for o in one(step.outputs).outputs] == ["ab"]


def test_cached_tokens_are_those_of_the_first_completion() -> None:
    outputs = outputs_of(request(n=2))
    sibling = delta(encode("a"), FinishReason.LENGTH, 1, num_cached_tokens=0)
    outputs.process([sibling])
    step = outputs.process([delta(encode("a"), FinishReason.LENGTH, 0, num_cached_tokens=4)])
    assert one(step.outputs).num_cached_tokens == 4


def test_error_keeps_the_likelihood_so_far() -> None:
    outputs = outputs_of(request(logprobs=0))
    (a,) = encode("a")
    outputs.process([delta([a], logprobs=[logprobs_of(a, -2.0, 1, [])])])
    step = outputs.process([delta([], FinishReason.ERROR, error="broken")])
    assert one(step.outputs).outputs[0].cumulative_logprob == -2.0


def test_metrics_span_all_completions() -> None:
    outputs = outputs_of(request(n=2))
    timings = [
        CompletionTiming(
            arrival_time=10.0,
            scheduled_time=11.0 + index,
            first_token_time=12.0 + index,
            finished_time=20.0 + index,
            num_preemptions=index,
        )
        for index in range(2)
    ]
    step = outputs.process(
        [delta([5, 6], FinishReason.LENGTH, i, timing=timings[i]) for i in range(2)]
    )
    metrics = one(step.outputs).metrics
    assert metrics is not None
    assert (metrics.arrival_time, metrics.scheduled_ts, metrics.first_token_ts) == (
        10.0,
        11.0,
        12.0,
    )
    assert (metrics.last_token_ts, metrics.num_preemptions) == (21.0, 1)
    assert (metrics.num_generation_tokens, metrics.first_token_latency) == (4, 2.0)
    assert metrics.time_in_queue == 1.0


def test_metrics_after_a_stop_string_know_when_the_core_began() -> None:
    outputs = outputs_of(request(stop=["d"], output_kind=RequestOutputKind.DELTA))
    first, *rest = encode(" world and")
    begun = CompletionTiming(
        arrival_time=10.0, scheduled_time=11.0, first_token_time=12.0, finished_time=12.0
    )
    outputs.process([delta([first], timing=begun)])
    metrics = one(outputs.process([delta(rest)]).outputs).metrics
    assert metrics is not None
    assert (metrics.scheduled_ts, metrics.first_token_ts) == (11.0, 12.0)
    assert metrics.last_token_ts > 12.0


def test_metrics_after_a_stop_string_come_from_this_side() -> None:
    output, _ = run(SamplingParams(stop=["d"]), encode(" world and"), FinishReason.LENGTH)
    assert output.metrics is not None
    assert output.metrics.last_token_ts >= output.metrics.first_token_ts > 10.0


def test_aborted_request_keeps_what_it_has() -> None:
    outputs = outputs_of(request(stop=["zz"], n=2))
    outputs.process([delta(encode("az")), delta(encode("b"), FinishReason.LENGTH, 1)])
    output = one(outputs.abort("r"))
    assert output.finished
    assert [(o.text, o.finish_reason) for o in output.outputs] == [("az", "abort"), ("b", "length")]
    assert outputs.abort("r") == []
    assert outputs.process([delta(encode("late"))]).outputs == []


def test_failed_completion_tells_why() -> None:
    outputs = outputs_of(request())
    step = outputs.process([delta([], FinishReason.ERROR, error="no luck")])
    completion = one(step.outputs).outputs[0]
    assert (completion.finish_reason, completion.error) == ("error", "no luck")
    assert step.to_abort == []


def test_duplicate_id_is_refused() -> None:
    outputs = outputs_of(request())
    with pytest.raises(ValueError, match="'r' is in use"):
        outputs.add(request())
    assert "r" in outputs and len(outputs) == 1


def test_no_text_is_made_when_nobody_wants_it() -> None:
    output, _ = run(SamplingParams(detokenize=False), encode(" world"), FinishReason.LENGTH)
    assert (output.outputs[0].text, output.outputs[0].token_ids) == ("", encode(" world"))
    without = OutputProcessor(None)
    without.add(request(logprobs=0))
    (a,) = encode("a")
    step = without.process([delta([a], logprobs=[logprobs_of(a, -1.0, 1, [])])])
    completion = one(step.outputs).outputs[0]
    assert completion.text == ""
    assert completion.logprobs is not None
    assert completion.logprobs[0][a].decoded_token is None
