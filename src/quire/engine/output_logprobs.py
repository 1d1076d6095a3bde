"""Log-probabilities as arrays, turned into the dicts that callers read."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, repeat

from quire.outputs import Logprob
from quire.step import TokenLogprobs
from quire.tokenizer.vocabulary import Vocabulary


def to_dicts(logprobs: TokenLogprobs, vocabulary: Vocabulary | None) -> list[dict[int, Logprob]]:
    """One dict per position: the token itself first, then the most likely ones, best first."""
    rows = logprobs.token_ids.tolist()
    values = logprobs.logprobs.tolist()
    ranks = logprobs.ranks.tolist()
    return [
        _to_dict(row, row_values, rank, vocabulary)
        for row, row_values, rank in zip(rows, values, ranks, strict=True)
    ]


def _to_dict(
    token_ids: list[int], values: list[float], rank: int, vocabulary: Vocabulary | None
) -> dict[int, Logprob]:
    own, *best = token_ids
    texts: Iterator[str | None]
    texts = repeat(None) if vocabulary is None else iter(vocabulary.token_texts(token_ids))
    # If it is none of the best, it comes after them: equally likely tokens get different ranks.
    found = {own: Logprob(values[0], max(rank, len(token_ids)), next(texts))}
    found.update(zip(best, map(Logprob, values[1:], count(1), texts), strict=True))
    return found
