"""Turns token ids of one completion into text piece by piece, never splitting a character.

In a byte-level vocabulary every token stands for fixed bytes. Other decoders look at a token's
neighbours: the first loses its space, others are joined or separated. So a window of the
last tokens is decoded again and again, and what is new at its end is the new text:

    tokens  | forgotten | ......... window ......... |
    text                | ... sent ... | new | held  |

Held is at most one U+FFFD: the last one may still become a character, all before it are final.
Knows nothing about stop strings.
"""

from __future__ import annotations

import codecs
import copy
from collections.abc import Iterator, Sequence, Set
from itertools import groupby, islice
from typing import Protocol

from quire.tokenizer.vocabulary import REPLACEMENT, Vocabulary

_UTF8 = codecs.getincrementaldecoder("utf-8")
_LONGEST_CHARACTER = 4  # bytes, and so tokens


class Detokenizer(Protocol):
    """The pieces add up to ``decode(prompt + output)`` without its prefix ``decode(prompt)``."""

    def copy(self) -> Detokenizer:
        """A detokenizer in the same state."""
        ...

    def feed(self, token_ids: Sequence[int]) -> str:
        """The text that ``token_ids`` make certain."""
        ...

    def finish(self) -> str:
        """The rest of the text: U+FFFD if a character is incomplete."""
        ...


def make_detokenizer(
    vocabulary: Vocabulary,
    *,
    prompt_token_ids: Sequence[int] = (),
    skip_special_tokens: bool = True,
    spaces_between_special_tokens: bool = True,
) -> Detokenizer:
    """A detokenizer for a completion of this prompt; ids outside the vocabulary give no text."""
    skipped_ids = vocabulary.special_ids if skip_special_tokens else frozenset[int]()
    if vocabulary.is_byte_level:
        return _ByBytes(vocabulary, prompt_token_ids, skipped_ids)
    return _ByWindow(vocabulary, prompt_token_ids, skipped_ids, spaces_between_special_tokens)


class _ByBytes:
    """For byte-level vocabularies."""

    def __init__(
        self, vocabulary: Vocabulary, prompt_token_ids: Sequence[int], skipped_ids: Set[int]
    ) -> None:
        self._token_bytes = vocabulary.token_bytes
        self._skipped_ids = skipped_ids
        self._utf8 = _UTF8(errors="replace")
        self._begin(prompt_token_ids)

    def copy(self) -> _ByBytes:
        other = copy.copy(self)
        other._utf8 = _UTF8(errors="replace")
        other._utf8.setstate(self._utf8.getstate())
        return other

    def feed(self, token_ids: Sequence[int]) -> str:
        skipped, bytes_of = self._skipped_ids, self._token_bytes
        if len(token_ids) == 1:
            text = "" if token_ids[0] in skipped else self._utf8.decode(bytes_of(token_ids[0]))
        else:
            text = self._utf8.decode(b"".join(bytes_of(i) for i in token_ids if i not in skipped))
        return self._without_the_prompts(text) if self._num_shown and text else text

    def finish(self) -> str:
        rest = self._utf8.decode(b"", final=True)
        return self._without_the_prompts(rest) if self._num_shown and rest else rest

    def _begin(self, prompt_token_ids: Sequence[int]) -> None:
        """Feed the end of the prompt, which may be inside a character. The prompt's own text shows
        that as U+FFFD, or as two of them if it begins a surrogate, which never becomes a character.
        """
        shown = (i for i in reversed(prompt_token_ids) if i not in self._skipped_ids)
        pieces = filter(None, map(self._token_bytes, shown))
        for piece in reversed(list(islice(pieces, _LONGEST_CHARACTER))):
            self._utf8.decode(piece)
        pending, _ = self._utf8.getstate()
        self._num_shown = len(pending.decode(errors="replace"))  # shown U+FFFD, until there is text

    def _without_the_prompts(self, text: str) -> str:
        """Drop the U+FFFD that the prompt's text has shown; a character completed by the output
        stays."""
        shown, self._num_shown = REPLACEMENT * self._num_shown, 0
        return text.removeprefix(shown)


_KEPT = 6  # tokens; a character has at most 4 bytes, and each token at least one
_LONGEST = 24  # tokens in the window before it is shortened to _KEPT


class _ByWindow:
    """For all other vocabularies.

    Differs from decoding everything at once in one case: single-byte tokens (<0xE4>) that end
    inside a character give one U+FFFD here, where the decoder would also spoil the complete
    characters before it.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        prompt_token_ids: Sequence[int],
        skipped_ids: Set[int],
        spaces_between_special_tokens: bool,
    ) -> None:
        self._vocabulary = vocabulary
        self._skipped_ids = skipped_ids
        self._spaces = spaces_between_special_tokens
        self._utf8 = _UTF8(errors="replace")
        self._window: list[int] = []
        self._num_sent = 0  # characters of the window's text
        self._held = ""
        self._start_after(prompt_token_ids)

    def copy(self) -> _ByWindow:
        other = copy.copy(self)
        other._window = list(self._window)
        other._utf8 = _UTF8(errors="replace")
        other._utf8.setstate(self._utf8.getstate())
        return other

    def feed(self, token_ids: Sequence[int]) -> str:
        shown = list(self._shown(token_ids))
        byte_values = self._vocabulary.byte_values
        if not byte_values:
            return self._feed_text(shown)
        runs = groupby(shown, key=byte_values.__contains__)
        return "".join(
            self._feed_bytes(list(run)) if is_bytes else self._feed_text(list(run))
            for is_bytes, run in runs
        )

    def finish(self) -> str:
        rest = self._utf8.decode(b"", final=True) + self._held
        self._held = ""
        return rest

    def _feed_text(self, token_ids: list[int]) -> str:
        if not token_ids:
            return ""
        before = self._utf8.decode(b"", final=True)
        self._window += token_ids
        text = self._decode(self._window)
        end = len(text) - text.endswith(REPLACEMENT)
        new = text[self._num_sent : end]
        self._num_sent = max(self._num_sent, end)
        self._held = text[self._num_sent :]
        if len(self._window) > _LONGEST:
            self._shorten_window()
        return before + new

    def _feed_bytes(self, token_ids: list[int]) -> str:
        """Decode single-byte tokens beside the window; if it has no text yet, an anchor token
        stands for theirs, so that the next token keeps its space."""
        before, self._held = self._held, ""
        self._num_sent += len(before)
        values = self._vocabulary.byte_values
        new = self._utf8.decode(bytes(values[token_id] for token_id in token_ids))
        if self._num_sent == 0:
            self._window.append(self._vocabulary.anchor_id)
            self._num_sent = len(self._decode(self._window))
        return before + new

    def _shorten_window(self) -> None:
        window = self._window[-_KEPT:]
        num_sent = len(self._decode(window)) - len(self._held)
        if num_sent > 0:  # else nothing visible would stand before the next token
            self._window, self._num_sent = window, num_sent

    def _start_after(self, prompt_token_ids: Sequence[int]) -> None:
        """Begin the window with the end of the prompt, long enough to have a text."""
        size = _KEPT
        while True:
            tail = list(islice(self._shown(reversed(prompt_token_ids)), size))[::-1]
            self._window = [
                self._vocabulary.anchor_id if token_id in self._vocabulary.byte_values else token_id
                for token_id in tail
            ]
            self._num_sent = len(self._decode(self._window))
            if self._num_sent or len(tail) < size:
                return
            size *= 4

    def _shown(self, token_ids: Sequence[int] | Iterator[int]) -> Iterator[int]:
        skipped, is_token = self._skipped_ids, self._vocabulary.has
        return (i for i in token_ids if i not in skipped and is_token(i))

    def _decode(self, token_ids: list[int]) -> str:
        return self._vocabulary.decode(token_ids, self._spaces) if token_ids else ""
