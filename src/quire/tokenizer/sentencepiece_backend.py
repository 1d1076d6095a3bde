"""A sentencepiece vocabulary as a tokenizer of the `tokenizers` library, with the same token ids.

Splitting, normalization, byte fallback and decoding are rebuilt from the library's parts, so that
everything behind it is the same as for a `tokenizer.json`. Knows nothing about model families.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE, Unigram

from quire.tokenizer.sentencepiece_file import SPACE, Piece, PieceKind, SentencePieceFile

_NEVER = -1e6  # a score no path through a text would take
# Where two code points form one visible character, and a noncharacter that separates them. Marks
# newer than the regular expressions' version of Unicode are unassigned (Cn) there.
_JOINED = r"(?<=.)(?=[\p{M}\p{Sk}\p{Cn}\x{200c}\x{200d}\x{1100}-\x{11ff}])|(?<=\r)(?=\n)"
_WEDGE = "\U000ffffe"
_ALL = 1 << 16  # spaces
# Text spelled like a byte token is not that byte: it is split after its first character.
_BYTE_TEXT = r"<(?=0x[0-9A-F]{2}>)"
_WHOLE_BYTE_TEXT = r"\A<(?=0x[0-9A-F]{2}>\z)"


def sentencepiece_backend(
    file: SentencePieceFile,
    renamed: Mapping[int, str] | None = None,
    *,
    prefix_each_part: bool = True,
) -> Tokenizer:
    """A tokenizer for ``file``. ``renamed`` maps token ids to new texts; such tokens match only
    after the caller has added them. ``prefix_each_part`` puts the dummy prefix space after added
    tokens too, as calling sentencepiece for each part between them does."""
    pieces = [
        _renamed(piece, renamed[i]) if renamed and i in renamed else piece
        for i, piece in enumerate(file.pieces)
    ]
    symbols = [piece.text for piece in pieces if piece.kind is PieceKind.USER_DEFINED]
    tokenizer = Tokenizer(_bpe(pieces, file) if file.is_bpe else _unigram(pieces, file))
    tokenizer.normalizer = normalizers.Sequence(list(_normalizers(file, prefix_each_part)))
    steps = list(_pre_tokenizers(file, symbols, prefix_each_part))
    if steps:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.Sequence(list(_decoders(file)))
    return tokenizer


def _renamed(piece: Piece, text: str) -> Piece:
    fixed = piece.kind in (PieceKind.UNKNOWN, PieceKind.BYTE)
    return Piece(text, piece.score, piece.kind if fixed else PieceKind.CONTROL)


def any_of(texts: Iterable[str]) -> str:
    """A regular expression for the longest of ``texts`` at a position, fast even for thousands."""
    tree: dict[str, Any] = {}  # recursive type
    for text in texts:
        node = tree
        for char in text:
            node = node.setdefault(char, {})
        node[""] = {}
    return _branches(tree)


def _branches(node: dict[str, Any]) -> str:
    ends = "" in node
    parts = [re.escape(char) + _branches(rest) for char, rest in node.items() if char]
    if not parts:
        return ""
    inner = parts[0] if len(parts) == 1 and not ends else f"(?:{'|'.join(parts)})"
    return f"{inner}?" if ends else inner


def _bpe(pieces: list[Piece], file: SentencePieceFile) -> BPE:
    """Sentencepiece merges the two neighbours that make the piece with the best score; the library
    wants all such pairs in that order."""
    normal = {piece.text: piece.score for piece in pieces if piece.kind is PieceKind.NORMAL}
    merges = [
        (-score, i, (text[:cut], text[cut:]))
        for i, (text, score) in enumerate(normal.items())
        for cut in range(1, len(text))
        if text[:cut] in normal and text[cut:] in normal
    ]
    merges.sort()
    return BPE(
        vocab={piece.text: i for i, piece in enumerate(pieces)},
        merges=[pair for _, _, pair in merges],
        unk_token=_unknown(pieces)[1],
        fuse_unk=True,
        byte_fallback=file.byte_fallback,
        # User-defined symbols are pre-split into words of their own, and no merges produce them.
        ignore_merges=any(piece.kind is PieceKind.USER_DEFINED for piece in pieces),
    )


def _unigram(pieces: list[Piece], file: SentencePieceFile) -> Unigram:
    # -0.1 is sentencepiece's score for user-defined symbols. Normal pieces are logarithms of
    # probabilities, so this is better than most of what overlaps a symbol.
    fixed = {PieceKind.USER_DEFINED: -0.1}
    vocab = [
        (
            piece.text,
            piece.score if piece.kind is PieceKind.NORMAL else fixed.get(piece.kind, _NEVER),
        )
        for piece in pieces
    ]
    return Unigram(vocab, unk_id=_unknown(pieces)[0], byte_fallback=file.byte_fallback)


def _unknown(pieces: list[Piece]) -> tuple[int, str]:
    for i, piece in enumerate(pieces):
        if piece.kind is PieceKind.UNKNOWN:
            return i, piece.text
    raise ValueError("the sentencepiece vocabulary has no unknown piece")


def _normalizers(
    file: SentencePieceFile, prefix_each_part: bool
) -> Iterable[normalizers.Normalizer]:
    """The normalizers in order; the prefix comes first or last, which differs for blank texts. If
    only the first part gets one, `_pre_tokenizers` adds it."""
    prefix = normalizers.Prepend(" ") if file.add_dummy_prefix and prefix_each_part else None
    is_added_later = file.add_dummy_prefix and not prefix_each_part
    if prefix is not None and not file.remove_extra_whitespaces:
        yield prefix
    if file.charsmap:
        yield from _charsmap(file.charsmap)
    if file.remove_extra_whitespaces:
        end = rf"[ {SPACE}]+\z"
        yield normalizers.Replace(Regex(end if is_added_later else rf"\A +|{end}"), "")
        yield normalizers.Replace(Regex(" {2,}"), " ")
        if prefix is not None:
            yield prefix
        if is_added_later:
            return  # a space that begins the text, and is no SPACE, stands for the prefix
    yield normalizers.Replace(" ", SPACE)


def _pre_tokenizers(
    file: SentencePieceFile, symbols: list[str], prefix_each_part: bool
) -> Iterable[pre_tokenizers.PreTokenizer]:
    if file.add_dummy_prefix and not prefix_each_part:
        # Two, as one adds no SPACE before one that belongs to the text.
        yield pre_tokenizers.Metaspace(" ", prepend_scheme="first", split=False)
        yield pre_tokenizers.Metaspace(SPACE, prepend_scheme="never", split=False)
    if symbols and file.is_bpe:
        yield pre_tokenizers.Split(Regex(any_of(symbols)), "isolated")
    if file.byte_fallback:
        has_bracket = any(piece.text == "<" for piece in file.pieces)
        pattern = _WHOLE_BYTE_TEXT if has_bracket else _BYTE_TEXT
        if symbols or not has_bracket:
            yield pre_tokenizers.Split(Regex(pattern), "isolated")


def _charsmap(rules: bytes) -> Iterable[normalizers.Normalizer]:
    """The compiled rules. The library applies rules per grapheme and drops a mark after a character
    with a rule; sentencepiece applies the longest rule at a position. So texts are composed (NFC)
    first, and remaining graphemes split. Three differences stay: combining marks are reordered,
    user-defined symbols are normalized, and the noncharacter that splits is lost from a text."""
    mapped = normalizers.Precompiled(rules)
    if mapped.normalize_str("e\u0301") == "\u00e9":
        yield normalizers.NFC()
    yield normalizers.Replace(Regex(_JOINED), _WEDGE)
    yield mapped
    yield normalizers.Replace(_WEDGE, "")


def _decoders(file: SentencePieceFile) -> Iterable[decoders.Decoder]:
    yield decoders.Replace(SPACE, " ")
    if file.byte_fallback:
        yield decoders.ByteFallback()
    yield decoders.Fuse()
    if file.add_dummy_prefix or file.remove_extra_whitespaces:
        yield decoders.Strip(" ", _ALL if file.remove_extra_whitespaces else 1, 0)
