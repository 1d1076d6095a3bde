"""Log-probabilities in the forms of the HTTP API: OpenAI's two, and the prompt's.

Knows nothing about requests. A position is a dict of token ids to `Logprob`, as in `outputs.py`,
with the token itself first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from quire.engine.detokenizer import make_detokenizer
from quire.outputs import Logprob, PromptLogprobs
from quire.tokenizer.byte_level import bytes_of_letters
from quire.tokenizer.vocabulary import REPLACEMENT, Vocabulary

LOWEST = -9999.0  # in place of minus infinity, which JSON lacks

Position = Mapping[int, Logprob]


class TokenOffsets:
    """Where each token begins in the text of a choice: the prompt, if it is echoed, and the answer.
    A token that the text does not show has the place where it would stand."""

    def __init__(
        self,
        vocabulary: Vocabulary | None,
        prompt_token_ids: Sequence[int],
        *,
        echo: str | None = None,  # the prompt as it stands in the text
        skip_special_tokens: bool = True,
    ) -> None:
        self._vocabulary = vocabulary
        self._echo = echo or ""
        self._num_echoed = 0 if echo is None else len(prompt_token_ids)  # that are yet to come
        self._offset = 0 if self._num_echoed else len(self._echo)
        if vocabulary is not None:
            self._prompt = make_detokenizer(vocabulary)
            self._answer = make_detokenizer(
                vocabulary,
                prompt_token_ids=prompt_token_ids,
                skip_special_tokens=skip_special_tokens,
            )

    def next(self, token_id: int) -> int:
        """The offset of the next token, first of the echoed prompt's, then of the answer's."""
        start = self._offset
        if self._vocabulary is None:
            return start
        if self._num_echoed == 0:
            self._offset += len(self._answer.feed([token_id]))
            return start
        self._num_echoed -= 1
        shown = self._shown(self._vocabulary, token_id)
        self._offset = _end_in(self._echo, start, shown) if self._num_echoed else len(self._echo)
        return start

    def _shown(self, vocabulary: Vocabulary, token_id: int) -> str:
        """The text of an echoed token; of special ones the echo has only those that were sent."""
        if token_id not in vocabulary.special_ids:
            return self._prompt.feed([token_id])
        spelled = str(vocabulary.tokenizer.convert_ids_to_tokens(token_id))
        return spelled if self._echo.startswith(spelled, self._offset) else ""


def _end_in(text: str, start: int, shown: str) -> int:
    """Where a token's text ends; decoders may drop or add the space at the beginning of a text."""
    for place, piece in ((start, shown), (start + 1, shown), (start, shown.removeprefix(" "))):
        if text.startswith(piece, place):
            return place + len(piece)
    return min(start + len(shown), len(text))  # the tokenizer changed the text


class CompletionLogprobs:
    """The form of completions, built piece by piece: lists over tokens, and their offsets in the
    text."""

    def __init__(
        self, vocabulary: Vocabulary | None, as_token_ids: bool, offsets: TokenOffsets
    ) -> None:
        self._vocabulary = vocabulary
        self._as_token_ids = as_token_ids
        self._offsets = offsets

    def of(
        self, token_ids: Sequence[int], positions: Sequence[Position | None]
    ) -> dict[str, list[Any]]:
        """The form for the next tokens; a position is None for a prompt's first token."""
        tokens, values, tops, offsets = [], [], [], []
        for token_id, position in zip(token_ids, positions, strict=True):
            text = self._text(token_id, position)
            tokens.append(self._name(token_id, text))
            values.append(None if position is None else floored(position[token_id].logprob))
            tops.append(None if position is None else self._top(position))
            offsets.append(self._offsets.next(token_id))
        return {
            "text_offset": offsets,
            "token_logprobs": values,
            "tokens": tokens,
            "top_logprobs": tops,
        }

    def _top(self, position: Position) -> dict[str, float]:
        """Log-probabilities by text, as clients expect; of two tokens with one text, the higher."""
        top: dict[str, float] = {}
        for token_id, one in position.items():
            name = self._name(token_id, self._text(token_id, position))
            value = floored(one.logprob)
            top[name] = max(value, top.get(name, value))
        return top

    def _text(self, token_id: int, position: Position | None) -> str:
        if position is not None:
            return position[token_id].decoded_token or ""
        return "" if self._vocabulary is None else self._vocabulary.token_texts([token_id])[0]

    def _name(self, token_id: int, text: str) -> str:
        return token_name(token_id) if self._as_token_ids else text


def chat_logprobs(
    token_ids: Sequence[int],
    positions: Sequence[Position],
    num_top: int,  # -1: all
    vocabulary: Vocabulary | None,
    as_token_ids: bool,
) -> dict[str, list[Any]]:
    """The form of chat: every token with its bytes and the ``num_top`` most likely ones."""

    def entry(token_id: int, one: Logprob) -> dict[str, Any]:
        text = one.decoded_token or ""
        return {
            "token": token_name(token_id) if as_token_ids else text,
            "logprob": floored(one.logprob),
            "bytes": list(token_bytes(vocabulary, token_id, text)),
        }

    content = []
    for token_id, position in zip(token_ids, positions, strict=True):
        top = [entry(*pair) for pair in most_likely(position, num_top)]
        content.append({**entry(token_id, position[token_id]), "top_logprobs": top})
    return {"content": content}


def prompt_logprobs(positions: PromptLogprobs | None) -> list[dict[str, Any] | None] | None:
    """The log-probabilities of a prompt as JSON, with token ids as strings."""
    if positions is None:
        return None
    return [
        None
        if position is None
        else {
            str(token_id): {
                "logprob": floored(one.logprob),
                "rank": one.rank,
                "decoded_token": one.decoded_token,
            }
            for token_id, one in position.items()
        }
        for position in positions
    ]


def most_likely(position: Position, count: int) -> list[tuple[int, Logprob]]:
    """The ``count`` most likely tokens, or all for -1; the chosen one only if it is among them."""
    ranked = sorted(position.items(), key=lambda item: item[1].rank or 0)
    return (
        ranked if count < 0 else [pair for pair in ranked if (pair[1].rank or 0) <= count][:count]
    )


def token_bytes(vocabulary: Vocabulary | None, token_id: int, text: str) -> bytes:
    """The bytes that a token stands for, even if they are only a part of a character."""
    if vocabulary is not None and vocabulary.is_byte_level:
        return vocabulary.token_bytes(token_id)
    if vocabulary is None or REPLACEMENT not in text:
        return text.encode(errors="replace")
    if token_id in vocabulary.byte_values:
        return bytes([vocabulary.byte_values[token_id]])
    spelled: Any = vocabulary.tokenizer.convert_ids_to_tokens(token_id)
    if isinstance(spelled, bytes):  # tokenizers with code of their own
        return spelled
    found = bytes_of_letters(spelled or "")
    return text.encode() if found is None else found


def token_name(token_id: int) -> str:
    return f"token_id:{token_id}"


def floored(value: float) -> float:
    return value if value > LOWEST else LOWEST
