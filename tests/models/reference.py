"""What transformers says about the answers of an engine, and when two answers count as equal.

Answers are checked by one forward of the reference over prompt and answer together: it sees no
blocks, batches or steps. Float32 sums differ in their last bits with the shape of a step, so a
token is compared only where that could not have changed it: `TOLERANCE` is the one place that says
how close two log-probabilities must be for the tokens to be exchangeable.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from quire.outputs import CompletionOutput, Logprob, RequestOutput
from quire.sampling_params import SamplingParams

TOLERANCE = 2e-4  # between log-probabilities


@dataclass(frozen=True, slots=True)
class Beam:
    token_ids: list[int]  # generated, with the stop token that ended it
    score: float


class Reference:
    """A model of transformers in float32."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self.vocab_size: int = model.config.vocab_size

    def random_prompts(self, lengths: Sequence[int], seed: int = 1) -> list[list[int]]:
        generator = torch.Generator().manual_seed(seed)
        return [
            torch.randint(self.vocab_size, (length,), generator=generator).tolist()
            for length in lengths
        ]

    def logprobs(self, tokens: Sequence[int]) -> Tensor:
        """[tokens, V]; line p is about token p + 1."""
        with torch.inference_mode():
            logits: Tensor = self._model(torch.tensor([list(tokens)])).logits[0]
        return logits.float().log_softmax(dim=-1)

    def check(self, output: RequestOutput, params: SamplingParams) -> None:
        """Every completion: greedy tokens are the best ones, log-probabilities are right."""
        prompt = output.prompt_token_ids or []
        for completion in output.outputs:
            tokens = list(completion.token_ids)
            assert tokens, completion
            expected = self.logprobs([*prompt, *tokens])[len(prompt) - 1 : -1]
            if params.temperature == 0:
                assert_greedy(expected, tokens)
            if params.logprobs is not None:
                _check_positions(expected, tokens, completion, params.logprobs)
        if params.prompt_logprobs is not None:
            assert output.prompt_logprobs is not None and output.prompt_logprobs[0] is None
            expected = self.logprobs(prompt)[:-1]
            found = [one for one in output.prompt_logprobs[1:] if one is not None]
            _check_dicts(expected, prompt[1:], found, params.prompt_logprobs)

    def beams(
        self,
        prompt: list[int],
        *,
        width: int,
        max_tokens: int,
        stop_token_ids: Collection[int] | None = None,
        length_penalty: float = 1.0,
        early_stopping: bool | str = False,
    ) -> list[Beam]:
        """What ``generate`` finds, best first; stop tokens are the model's unless given."""
        if stop_token_ids is None:
            eos = self._model.generation_config.eos_token_id
            stop_token_ids = eos if isinstance(eos, list) else [eos]
        found = self._model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            do_sample=False,
            num_beams=width,
            num_return_sequences=width,
            max_new_tokens=max_tokens,
            eos_token_id=list(stop_token_ids),
            pad_token_id=0,
            length_penalty=length_penalty,
            early_stopping=early_stopping,
            output_scores=True,
            return_dict_in_generate=True,
        )
        return [
            Beam(up_to_stop(tokens[len(prompt) :], stop_token_ids), score)
            for tokens, score in zip(
                found.sequences.tolist(), found.sequences_scores.tolist(), strict=True
            )
        ]


def assert_greedy(expected: Tensor, tokens: Sequence[int]) -> None:
    """Each token is the most likely one, or so close to it that rounding may have chosen."""
    best, best_ids = expected.max(dim=-1)
    for position, token in enumerate(tokens):
        lacks = float(best[position] - expected[position, token])
        assert lacks <= TOLERANCE, (
            f"token {position} is {token}; {int(best_ids[position])} is better by {lacks:.2e}"
        )


def up_to_stop(tokens: list[int], stop_token_ids: Collection[int]) -> list[int]:
    """Without the padding behind the first stop token."""
    ends = [index for index, token in enumerate(tokens) if token in stop_token_ids]
    return tokens[: ends[0] + 1] if ends else tokens


def _check_positions(
    expected: Tensor, tokens: list[int], completion: CompletionOutput, count: int
) -> None:
    assert completion.logprobs is not None
    _check_dicts(expected, tokens, completion.logprobs, count)
    own = [found[token].logprob for found, token in zip(completion.logprobs, tokens, strict=True)]
    assert completion.cumulative_logprob is not None
    assert abs(completion.cumulative_logprob - sum(own)) < 1e-4


def _check_dicts(
    expected: Tensor, tokens: Sequence[int], found: Sequence[dict[int, Logprob]], count: int
) -> None:
    assert len(found) == len(tokens) == len(expected)
    for line, token, at_position in zip(expected, tokens, found, strict=True):
        _check_dict(line, token, at_position, len(line) if count == -1 else count)


def _check_dict(line: Tensor, token: int, found: dict[int, Logprob], count: int) -> None:
    """The token itself comes first, then the ``count`` best; each with its rank."""
    assert next(iter(found)) == token
    own_rank = found[token].rank
    assert own_rank is not None
    ranks = sorted(one.rank or 0 for one in found.values())
    assert ranks == [*range(1, count + 1), *([own_rank] if own_rank > count else [])]
    ids = torch.tensor(list(found))
    exact = line[ids]
    got = torch.tensor([one.logprob for one in found.values()])
    assert float((got - exact).abs().max()) < TOLERANCE
    better = (line[None, :] > exact[:, None] + TOLERANCE).sum(dim=1)
    not_worse = (line[None, :] > exact[:, None] - TOLERANCE).sum(dim=1)
    for one, least, most in zip(found.values(), better.tolist(), not_worse.tolist(), strict=True):
        assert one.rank is not None and least < one.rank <= most
