"""Tokens that are bytes, as byte-level tokenizers spell them: a letter for each byte.

The alphabet is GPT-2's (Radford et al. 2019): visible Latin-1 characters stand for themselves, the
other bytes follow from U+0100 on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

_VISIBLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_OTHERS = [byte for byte in range(256) if byte not in _VISIBLE]
_LETTERS = {byte: chr(byte) for byte in _VISIBLE} | {
    byte: chr(0x100 + i) for i, byte in enumerate(_OTHERS)
}
_BYTES = {letter: byte for byte, letter in _LETTERS.items()}


def letters_of_bytes(token: bytes) -> str:
    return "".join(_LETTERS[byte] for byte in token)


def bytes_of_letters(spelled: str) -> bytes | None:
    """The bytes of a token; None if it is not in this alphabet, such as one that a user added."""
    try:
        return bytes([_BYTES[letter] for letter in spelled])
    except KeyError:
        return None


def bytes_of_token(spelled: str) -> bytes:
    """The bytes that a byte-level decoder gives for a token: its text in UTF-8 if this alphabet
    cannot spell it, as for tokens that a user added."""
    found = bytes_of_letters(spelled)
    return spelled.encode() if found is None else found


def decoder_parts(tokenizer: Any) -> dict[str, Mapping[str, Any]]:
    """The parts of a `tokenizers.Tokenizer`'s decoder, by type; empty if none or opaque."""
    decoder = tokenizer.decoder
    if decoder is None:
        return {}
    try:
        written = decoder.__getstate__()  # as it is pickled: JSON, of the decoder alone
    except Exception:  # one in Python cannot be pickled; nothing more specific is raised
        return {}
    return {str(one["type"]): one for one in _parts(json.loads(written))}


def is_byte_level(tokenizer: Any) -> bool:
    """Whether the tokenizer's decoder only joins the bytes of the tokens."""
    return set(decoder_parts(tokenizer)) == {"ByteLevel"}


def _parts(decoder: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    if decoder["type"] == "Sequence":
        for one in decoder["decoders"]:
            yield from _parts(one)
    else:
        yield decoder
