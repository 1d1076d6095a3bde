"""Beam search against `transformers`' own, on the logits of a tiny random model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from quire.engine.beam_search import BeamAdvance, BeamState
from quire.request import BeamSearch, FinishReason
from quire.row_sampling import num_beam_candidates

VOCAB_SIZE = 24
PROMPT = [1, 5, 9]


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        initializer_range=0.6,  # sharp enough that paths differ in score
        eos_token_id=None,
        bos_token_id=None,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config).eval()


def search(
    model: LlamaForCausalLM, beam: BeamSearch, max_tokens: int, stop: list[int]
) -> tuple[BeamState, int]:
    """Drive a `BeamState` with whole-sequence forwards; also how many steps it took."""
    state = BeamState(beam, max_tokens=max_tokens, stop_token_ids=stop)
    count = min(VOCAB_SIZE, num_beam_candidates(beam.width, len(stop)))
    beams = [PROMPT]
    for step in range(1, max_tokens + 1):
        with torch.no_grad():
            logprobs = model(torch.tensor(beams)).logits[:, -1].float().log_softmax(-1)
        best = logprobs.topk(count, dim=-1)
        advance = state.advance(
            [(i.numpy(), p.numpy()) for i, p in zip(best.indices, best.values, strict=True)]
        )
        if advance.done:
            return state, step
        beams = [[*beams[choice.parent], choice.token_id] for choice in advance.beams]
    raise AssertionError("the search did not end at max_tokens")


def reference(
    model: LlamaForCausalLM, beam: BeamSearch, max_tokens: int, stop: list[int]
) -> tuple[list[tuple[list[int], float]], int]:
    """The same search by `generate`: generated tokens without padding and scores; steps."""
    out = model.generate(
        torch.tensor([PROMPT]),
        generation_config=GenerationConfig(
            num_beams=beam.width,
            num_return_sequences=beam.width,
            length_penalty=beam.length_penalty,
            early_stopping=beam.early_stopping,
            max_new_tokens=max_tokens,
            eos_token_id=stop or None,
            pad_token_id=0,
            do_sample=False,
            return_dict_in_generate=True,
            output_scores=True,
        ),
    )
    lengths = (out.beam_indices >= 0).sum(-1).tolist()
    generated = out.sequences[:, len(PROMPT) :].tolist()
    scores = out.sequences_scores.tolist()
    found = [
        (tokens[:length], score)
        for tokens, length, score in zip(generated, lengths, scores, strict=True)
    ]
    return found, len(out.scores)


@pytest.mark.parametrize("width", [2, 3])
@pytest.mark.parametrize("early_stopping", [True, False, "never"])
@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 2.0, -1.0])
@pytest.mark.parametrize(
    ("stop", "max_tokens"),
    [([], 5), ([7], 25), ([2, 7, 11, 20], 25)],
    ids=["no-eos", "eos", "four-eos"],
)
def test_hypotheses_equal_those_of_transformers(
    model: LlamaForCausalLM,
    width: int,
    early_stopping: bool | str,
    length_penalty: float,
    stop: list[int],
    max_tokens: int,
) -> None:
    beam = BeamSearch(width=width, length_penalty=length_penalty, early_stopping=early_stopping)
    state, num_steps = search(model, beam, max_tokens, stop)
    expected, expected_steps = reference(model, beam, max_tokens, stop)
    found = state.hypotheses()
    assert num_steps == expected_steps
    assert [one.token_ids for one in found] == [tokens for tokens, _ in expected]
    np.testing.assert_allclose(
        [one.score for one in found], [score for _, score in expected], rtol=1e-5
    )
    for one in found:
        assert (one.finish_reason is FinishReason.STOP) == (one.token_ids[-1] in stop)
        assert one.score == pytest.approx(one.sum_logprob / len(one.token_ids) ** length_penalty)


@pytest.mark.parametrize("width", [4, 5, 24])
def test_wide_searches_equal_those_of_transformers(model: LlamaForCausalLM, width: int) -> None:
    beam = BeamSearch(width=width)
    state, _ = search(model, beam, 9, [2, 7, 11, 20])
    expected, _ = reference(model, beam, 9, [2, 7, 11, 20])
    assert [one.token_ids for one in state.hypotheses()] == [tokens for tokens, _ in expected]


def test_one_beam_is_greedy_search(model: LlamaForCausalLM) -> None:
    state, _ = search(model, BeamSearch(width=1), 12, [])
    greedy = model.generate(
        torch.tensor([PROMPT]), max_new_tokens=12, do_sample=False, eos_token_id=None
    )
    assert state.hypotheses()[0].token_ids == greedy[0, len(PROMPT) :].tolist()


def test_early_stopping_true_ends_before_false_and_false_before_never(
    model: LlamaForCausalLM,
) -> None:
    steps = [
        search(model, BeamSearch(width=2, early_stopping=rule), 25, [2, 7, 11, 20])[1]
        for rule in (True, False, "never")
    ]
    assert steps[0] < steps[1] < steps[2]


def advance_once(width: int, logprobs: list[float], stop: list[int]) -> BeamAdvance:
    state = BeamState(BeamSearch(width=width), max_tokens=5, stop_token_ids=stop)
    order = np.argsort(-np.array(logprobs), kind="stable")
    return state.advance([(order, np.array(logprobs, dtype=np.float32)[order])])


def test_forbidden_tokens_are_no_continuations() -> None:
    advance = advance_once(3, [-1.0, -np.inf, -0.5, -np.inf, -np.inf, -np.inf], stop=[])
    assert [(one.parent, one.token_id) for one in advance.beams] == [(0, 2), (0, 0)]
    assert not advance.done


def test_search_without_a_living_beam_is_done() -> None:
    advance = advance_once(2, [-0.1, -np.inf, -np.inf, -np.inf], stop=[0])
    assert advance.done and advance.beams == []


def test_stop_token_outside_the_best_w_is_not_a_hypothesis() -> None:
    state = BeamState(BeamSearch(width=1), max_tokens=5, stop_token_ids=[1])
    advance = state.advance([(np.array([0, 1]), np.array([-0.2, -0.3], dtype=np.float32))])
    assert [one.token_id for one in advance.beams] == [0]
    assert state.hypotheses() == []
