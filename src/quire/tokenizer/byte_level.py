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
    """None for what is not written in this alphabet, such as a token that a user added."""
    try:
        return bytes([_BYTES[letter] for letter in spelled])
    except KeyError:
        return None


def bytes_of_token(spelled: str) -> bytes:
    """What a byte-level decoder makes of a token, also of one that a user added: plain text is only
    what this alphabet cannot write."""
    found = bytes_of_letters(spelled)
    return spelled.encode() if found is None else found


def decoder_parts(tokenizer: Any) -> dict[str, Mapping[str, Any]]:
    """What the decoder of a `tokenizers.Tokenizer` does, by the type of each of its parts; nothing
    where nobody can tell."""
    decoder = tokenizer.decoder
    if decoder is None:
        return {}
    try:
        written = decoder.__getstate__()  # as it is pickled: JSON, of the decoder alone
    except Exception:  # one in Python cannot be; the library raises nothing more exact
        return {}
    return {str(one["type"]): one for one in _parts(json.loads(written))}


def is_byte_level(tokenizer: Any) -> bool:
    """Whether all that its decoder does is to join the bytes of the tokens."""
    return set(decoder_parts(tokenizer)) == {"ByteLevel"}


def _parts(decoder: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    if decoder["type"] == "Sequence":
        for one in decoder["decoders"]:
            yield from _parts(one)
    else:
        yield decoder
