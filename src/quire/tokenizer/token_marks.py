"""Marks in a text, such as ``</think>``, as the tokens that a model writes them with.

A tokenizer may join what stands before a mark to its first token, and spaces behind it to its last.
Knows nothing of what marks mean.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from quire.structured import TokenMark
from quire.tokenizer.vocabulary import Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class TokenMarks:
    """Of one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer

    def of_all(self, texts: Iterable[str]) -> tuple[TokenMark, ...]:
        return tuple(self.of(text) for text in texts)

    def of(self, text: str) -> TokenMark:
        """A mark of one token is a token of its own, which nothing is joined to."""
        token_ids = [int(i) for i in self._tokenizer.encode(text, add_special_tokens=False)]
        places: list[tuple[int, ...]] = [(token_id,) for token_id in token_ids]
        if len(places) > 1:
            places[0] += self._like(token_ids[0], str.endswith)
            places[-1] += self._like(token_ids[-1], _only_adds_spaces)
        return tuple(places)

    def _like(self, token_id: int, is_like: Callable[[str, str], bool]) -> tuple[int, ...]:
        """Others whose text is like that of a token; none are like a special one."""
        if token_id in self._special_ids:
            return ()
        plain = self._texts[token_id]
        return tuple(
            i
            for i, text in self._texts.items()
            if i != token_id and i not in self._special_ids and is_like(text, plain)
        )

    @functools.cached_property
    def _texts(self) -> dict[int, str]:
        """Of all tokens; looked at only where a mark has several."""
        token_ids = list(self._tokenizer.get_vocab().values())
        return dict(zip(token_ids, self._vocabulary.token_texts(token_ids), strict=True))

    @functools.cached_property
    def _special_ids(self) -> frozenset[int]:
        return frozenset(self._tokenizer.added_tokens_decoder) | self._vocabulary.special_ids

    @functools.cached_property
    def _vocabulary(self) -> Vocabulary:
        return Vocabulary(self._tokenizer)


def _only_adds_spaces(text: str, plain: str) -> bool:
    return text.startswith(plain) and not text[len(plain) :].strip()
