"""Marks in a text, such as ``</think>``, as the tokens that a tokenizer writes them with.

Knows nothing of what marks mean.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import TYPE_CHECKING

from quire.structured import TokenMark

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class TokenMarks:
    """Turns marks into the tokens of one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer

    def of_all(self, texts: Iterable[str]) -> tuple[TokenMark, ...]:
        return tuple(self.of(text) for text in texts)

    def of(self, text: str) -> TokenMark:
        token_ids = [int(i) for i in self._tokenizer.encode(text, add_special_tokens=False)]
        added = [i for i in token_ids if i in self._added_ids]
        spelled = self._tokenizer.convert_ids_to_tokens(added)
        return TokenMark(
            text=text.encode(),
            token_ids=tuple(token_ids),
            added=tuple((i, str(one).encode()) for i, one in zip(added, spelled, strict=True)),
        )

    @functools.cached_property
    def _added_ids(self) -> frozenset[int]:
        ids = (*self._tokenizer.added_tokens_decoder, *self._tokenizer.all_special_ids)
        return frozenset(ids)
