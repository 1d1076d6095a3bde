"""Log-probabilities as arrays, turned into the dicts that callers read."""

from __future__ import annotations

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
    # Its place among the best, or after them: equally likely tokens get different ranks.
    rank = best.index(own) + 1 if own in best else max(rank, len(best) + 1)
    texts = [None] * len(token_ids) if vocabulary is None else vocabulary.token_texts(token_ids)
    # Column 0 is the token itself; if it is among the best as well, its first place stays.
    found = {own: Logprob(values[0], rank, texts[0])}
    for k in range(1, len(token_ids)):
        if token_ids[k] not in found:
            found[token_ids[k]] = Logprob(values[k], k, texts[k])
    return found
