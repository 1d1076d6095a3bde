"""The bytes of every token, as they stand inside a text: what grammars are matched against.

Special tokens have none: no grammar ever produces them. Knows no backend.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quire.tokenizer.byte_level import bytes_of_token, decoder_parts
from quire.tokenizer.vocabulary import REPLACEMENT, Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NO_TEXT = b""


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenTable:
    """The tokens of a whole vocabulary: as many as the model has logits."""

    tokens: Sequence[bytes]  # [V]; empty where a token is special or has no text
    end_token_ids: tuple[int, ...]  # those that end a text; never empty

    def __len__(self) -> int:
        return len(self.tokens)


# The smallest vocabulary: a grammar that compiles for it is right for any model.
BYTES = TokenTable(tokens=[*(bytes([byte]) for byte in range(256)), NO_TEXT], end_token_ids=(256,))


def token_table(
    tokenizer: PreTrainedTokenizerBase, vocab_size: int, end_token_ids: Collection[int]
) -> TokenTable:
    """The table of a tokenizer; ``ValueError`` if no token ends a text."""
    ends = tuple(i for i in dict.fromkeys(end_token_ids) if 0 <= i < vocab_size)
    if not ends:
        raise ValueError(
            "structured_outputs need a token that ends the text, but the model names no "
            "end-of-sequence token; set eos_token_id in its generation_config.json."
        )
    vocabulary = Vocabulary(tokenizer)
    bytes_of = _reader_of_decoder(tokenizer) or _reader_of_texts(vocabulary)
    spelled = {token_id: text for text, token_id in tokenizer.get_vocab().items()}
    # If two tokens have one id, texts contain the added one.
    spelled |= {i: token.content for i, token in tokenizer.added_tokens_decoder.items()}
    hidden = vocabulary.special_ids | set(ends)
    tokens = [NO_TEXT] * vocab_size
    for token_id, text in spelled.items():
        if token_id < vocab_size and token_id not in hidden:
            tokens[token_id] = bytes_of(token_id, text)
    return TokenTable(tokens=tokens, end_token_ids=ends)


_BytesOf = Callable[[int, str], bytes]
_BYTE = re.compile("<0x([0-9A-Fa-f]{2})>")


def _reader_of_decoder(tokenizer: PreTrainedTokenizerBase) -> _BytesOf | None:
    """A reader by the rules of the tokenizer's decoder, right for tokens that users added too; None
    if the rules are not known here."""
    if not tokenizer.is_fast:
        return None
    parts = decoder_parts(tokenizer.backend_tokenizer)
    if "ByteLevel" in parts:
        return lambda token_id, text: bytes_of_token(text)
    mark = _space_mark(parts)
    if mark is None:
        return None
    has_bytes = "ByteFallback" in parts
    return lambda token_id, text: _marked(text, mark, has_bytes)


def _space_mark(parts: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The text that stands for a space; None if it is not known."""
    if "Metaspace" in parts:
        return str(parts["Metaspace"]["replacement"])
    replace = parts.get("Replace")
    if replace is None or replace["content"] != " ":
        return None
    pattern = replace["pattern"]
    return str(pattern["String"]) if "String" in pattern else None


def _marked(text: str, mark: str, has_bytes: bool) -> bytes:
    byte = _BYTE.fullmatch(text) if has_bytes else None
    return text.replace(mark, " ").encode() if byte is None else bytes.fromhex(byte[1])


def _reader_of_texts(vocabulary: Vocabulary) -> _BytesOf:
    """A reader that decodes each token; parts of characters look alike then, and get no bytes."""

    def bytes_of(token_id: int, text: str) -> bytes:
        if token_id in vocabulary.byte_values:
            return bytes([vocabulary.byte_values[token_id]])
        (decoded,) = vocabulary.token_texts([token_id])
        return NO_TEXT if REPLACEMENT in decoded else decoded.encode()

    return bytes_of
