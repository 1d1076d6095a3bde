"""The text of one completion, cut at its stop strings. Knows nothing about requests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from quire.engine.detokenizer import Detokenizer
from quire.engine.stop_strings import StopChecker


class NewText(NamedTuple):
    """The text that newly fed tokens added."""

    text: str
    num_tokens: int  # tokens used: all of them, or those up to the end of a stop string
    stop: str | None = None  # the stop string that ended the text


class CompletionText(Protocol):
    """Tokens in, text out."""

    def feed(self, token_ids: Sequence[int]) -> NewText: ...

    def finish(self) -> NewText: ...


class NoText:
    """For requests without detokenization or without a tokenizer: all text is empty."""

    def feed(self, token_ids: Sequence[int]) -> NewText:
        return NewText(text="", num_tokens=len(token_ids))

    def finish(self) -> NewText:
        return NewText(text="", num_tokens=0)


class PlainText:
    """For requests without stop strings: all new tokens are decoded at once."""

    def __init__(self, detokenizer: Detokenizer) -> None:
        self._detokenizer = detokenizer

    def feed(self, token_ids: Sequence[int]) -> NewText:
        return NewText(text=self._detokenizer.feed(token_ids), num_tokens=len(token_ids))

    def finish(self) -> NewText:
        return NewText(text=self._detokenizer.finish(), num_tokens=0)


class StoppableText:
    """For requests with stop strings: drops all tokens after the one that completes a stop
    string."""

    def __init__(self, detokenizer: Detokenizer, stop: StopChecker, min_tokens: int) -> None:
        self._detokenizer = detokenizer
        self._stop = stop
        self._num_unchecked = min_tokens  # next tokens, in whose text no stop string may end

    def feed(self, token_ids: Sequence[int]) -> NewText:
        if len(token_ids) <= 1 or self._num_unchecked > 0:
            return self._feed_one_by_one(token_ids)
        before = self._detokenizer.copy(), self._stop.copy()
        certain, stop = self._stop.feed(self._detokenizer.feed(token_ids))
        if stop is None:
            return NewText(text=certain, num_tokens=len(token_ids))
        self._detokenizer, self._stop = before
        return self._feed_one_by_one(token_ids)

    def _feed_one_by_one(self, token_ids: Sequence[int]) -> NewText:
        """Decode one token at a time, to find the one that completes a stop string."""
        pieces: list[str] = []
        for num_tokens, token_id in enumerate(token_ids, start=1):
            text = self._detokenizer.feed([token_id])
            if self._num_unchecked > 0:
                self._num_unchecked -= 1
                pieces.append(self._stop.pass_by(text))
                continue
            certain, stop = self._stop.feed(text)
            pieces.append(certain)
            if stop is not None:
                return NewText(text="".join(pieces), num_tokens=num_tokens, stop=stop)
        return NewText(text="".join(pieces), num_tokens=len(token_ids))

    def finish(self) -> NewText:
        certain, stop = self._stop.feed(self._detokenizer.finish())
        rest = "" if stop is not None else self._stop.finish()
        return NewText(text=certain + rest, num_tokens=0, stop=stop)
