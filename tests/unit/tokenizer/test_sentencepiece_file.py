"""What is read of a sentencepiece vocabulary is what sentencepiece wrote."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from quire.tokenizer.sentencepiece_file import (
    PieceKind,
    UnreadVocabularyError,
    read_sentencepiece,
)
from tests.unit.tokenizer.vocabularies import original_sentencepiece, sentencepiece_model


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokenizer.model"


def test_pieces_scores_and_kinds(path: Path) -> None:
    model = sentencepiece_model(
        model_type="bpe", byte_fallback=True, user_defined_symbols=("<eoa>",), pad_id=3
    )
    path.write_bytes(model)
    original = original_sentencepiece(model)
    file = read_sentencepiece(path)
    assert [piece.text for piece in file.pieces] == [
        original.id_to_piece(i) for i in range(len(original))
    ]
    assert [piece.score for piece in file.pieces] == [
        original.get_score(i) for i in range(len(original))
    ]
    texts = {
        kind: tuple(piece.text for piece in file.pieces if piece.kind is kind) for kind in PieceKind
    }
    assert texts[PieceKind.UNKNOWN] == ("<unk>",)
    assert texts[PieceKind.CONTROL] == ("<s>", "</s>", "<pad>")
    assert texts[PieceKind.USER_DEFINED] == ("<eoa>",)
    assert texts[PieceKind.BYTE] == tuple(f"<0x{byte:02X}>" for byte in range(256))


def test_settings(path: Path) -> None:
    path.write_bytes(
        sentencepiece_model(
            model_type="unigram",
            add_dummy_prefix=False,
            remove_extra_whitespaces=True,
            normalization_rule_name="nmt_nfkc",
            bos_piece="<|startoftext|>",
        )
    )
    file = read_sentencepiece(path)
    assert (file.is_bpe, file.byte_fallback, file.add_dummy_prefix) == (False, False, False)
    assert file.remove_extra_whitespaces and file.charsmap
    assert (file.bos, file.eos) == ("<|startoftext|>", "</s>")


@pytest.mark.parametrize("data", [b"", b"no model", b"\x0a\xff", b"\x0a\x03\x0a\x05ab", b"\x0b"])
def test_other_files_are_refused(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with pytest.raises(ValueError, match="is not a sentencepiece vocabulary"):
        read_sentencepiece(path)


def test_every_cut_file_is_refused_or_shorter(path: Path) -> None:
    model = sentencepiece_model(model_type="bpe")
    for size in range(1, 400, 7):
        path.write_bytes(model[:size])
        try:
            assert len(read_sentencepiece(path).pieces) < 60
        except ValueError as error:
            assert str(path) in str(error)


def test_unread_kinds_are_named(path: Path) -> None:
    path.write_bytes(sentencepiece_model(model_type="char"))
    with pytest.raises(UnreadVocabularyError, match="neither unigram nor BPE"):
        read_sentencepiece(path)
    piece = b"\x0a\x01a\x15" + struct.pack("<f", 0.0) + b"\x18\x05"
    path.write_bytes(b"\x0a" + bytes([len(piece)]) + piece)
    with pytest.raises(UnreadVocabularyError, match="unused pieces"):
        read_sentencepiece(path)
