"""Reads a sentencepiece vocabulary, `tokenizer.model`, without any package for it.

The file is a protocol buffer, `ModelProto` of sentencepiece_model.proto; only the pieces and the
few settings that decide how a text is split are read. Knows nothing about tokenizers.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SPACE = "\u2581"  # how pieces spell a space


class UnreadVocabularyError(ValueError):
    """The file is a vocabulary, but of a kind that is not read here."""


class PieceKind(enum.IntEnum):
    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3  # never the result of splitting a text
    USER_DEFINED = 4  # always one piece, wherever it stands in a text
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True, slots=True)
class Piece:
    text: str
    score: float
    kind: PieceKind


@dataclass(frozen=True, kw_only=True, slots=True)
class SentencePieceFile:
    pieces: tuple[Piece, ...]  # by token id
    is_bpe: bool  # else unigram
    byte_fallback: bool
    charsmap: bytes  # normalization rules, compiled; empty for none
    add_dummy_prefix: bool  # a space before every text
    remove_extra_whitespaces: bool
    bos: str
    eos: str
    pad: str


def read_sentencepiece(file: Path) -> SentencePieceFile:
    """Read ``file``; ``ValueError`` if it is something else, or of an unsupported kind."""
    try:
        model = _Message(file.read_bytes())
        pieces = tuple(_piece(_Message(one)) for one in model.all(1))
        trainer, normalizer = _Message(model.bytes(2)), _Message(model.bytes(3))
    except (struct.error, IndexError, UnicodeDecodeError, TypeError) as error:
        raise ValueError(f"{file} is not a sentencepiece vocabulary ({error})") from None
    if not pieces:
        raise ValueError(f"{file} is not a sentencepiece vocabulary (it has no pieces)")
    kind = trainer.number(3, 1)
    unread = {
        "the model type is neither unigram nor BPE": kind not in (1, 2),
        "treat_whitespace_as_suffix": trainer.number(24, 0) == 1,
        "escape_whitespaces is off": normalizer.number(5, 1) == 0,
        "unused pieces": any(piece.kind is PieceKind.UNUSED for piece in pieces),
    }
    for what, is_so in unread.items():
        if is_so:
            raise UnreadVocabularyError(
                f"{file} is a kind of sentencepiece vocabulary that is not read here: {what}"
            )
    return SentencePieceFile(
        pieces=pieces,
        is_bpe=kind == 2,
        byte_fallback=trainer.number(35, 0) == 1,
        charsmap=normalizer.bytes(2),
        add_dummy_prefix=normalizer.number(3, 1) == 1,
        remove_extra_whitespaces=normalizer.number(4, 1) == 1,
        bos=trainer.bytes(46, b"<s>").decode(),
        eos=trainer.bytes(47, b"</s>").decode(),
        pad=trainer.bytes(48, b"<pad>").decode(),
    )


def _piece(message: _Message) -> Piece:
    (score,) = struct.unpack("<f", message.bytes(2, bytes(4)))
    return Piece(message.bytes(1).decode(), score, PieceKind(message.number(3, PieceKind.NORMAL)))


class _Message:
    """The fields of one message: https://protobuf.dev/programming-guides/encoding"""

    def __init__(self, data: bytes) -> None:
        self._fields: dict[int, list[int | bytes]] = {}
        for number, value in _fields(data):
            self._fields.setdefault(number, []).append(value)

    def all(self, number: int) -> list[bytes]:
        values = self._fields.get(number, [])
        return [bytes(value) for value in values if isinstance(value, bytes)]

    def bytes(self, number: int, default: bytes = b"") -> bytes:
        value = self._fields.get(number, [default])[-1]
        if not isinstance(value, bytes):
            raise TypeError(f"field {number} is a number")
        return value

    def number(self, number: int, default: int) -> int:
        value = self._fields.get(number, [default])[-1]
        if not isinstance(value, int):
            raise TypeError(f"field {number} is not a number")
        return value


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(field number, value) pairs: varints as ints, everything else as bytes."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == 0:
            value, position = _varint(data, position)
            yield number, value
            continue
        if wire_type == 2:
            size, position = _varint(data, position)
        else:
            size = {1: 8, 5: 4}.get(wire_type, -1)
        if size < 0 or position + size > len(data):
            raise IndexError(f"byte {position}")
        yield number, data[position : position + size]
        position += size


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
