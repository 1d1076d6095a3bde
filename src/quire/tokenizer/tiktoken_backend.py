"""A tiktoken vocabulary as a tokenizer of the `tokenizers` library, with the same token ids.

The file has a line for each token: its bytes in base64, and its rank, which is its id and its merge
priority. Knows nothing about model families.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE

from quire.tokenizer.byte_level import letters_of_bytes


def read_ranks(file: Path) -> dict[bytes, int]:
    """Token -> rank; ``ValueError`` if the file is not a tiktoken vocabulary."""
    ranks = {}
    for number, line in enumerate(file.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error):
            raise ValueError(f"{file} is not a tiktoken vocabulary (line {number})") from None
    missing = [byte for byte in range(256) if bytes([byte]) not in ranks]
    if missing:
        raise ValueError(f"{file} is not a tiktoken vocabulary (no token for byte {missing[0]})")
    return ranks


def tiktoken_backend(
    ranks: Mapping[bytes, int], special: Mapping[str, int], *, pattern: str, nfc: bool
) -> Tokenizer:
    """A tokenizer for ``ranks``; ``pattern`` is the regex of a word, ``nfc`` composes texts
    first."""
    vocab = {letters_of_bytes(token): rank for token, rank in ranks.items()}
    core = BPE(
        # The library takes special tokens from here too, at the ids that they have.
        vocab={**vocab, **special},
        merges=_merges(ranks),
        ignore_merges=True,  # tiktoken looks up whole words first
    )
    tokenizer = Tokenizer(core)
    if nfc:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(text, special=True, normalized=False) for text in special]
    )
    return tokenizer


def _merges(ranks: Mapping[bytes, int]) -> list[tuple[str, str]]:
    """tiktoken merges the neighbours that make the token with the lowest rank; the library wants
    all such pairs in that order."""
    pairs = sorted(
        (rank, token[:cut], token[cut:])
        for token, rank in ranks.items()
        for cut in range(1, len(token))
        if token[:cut] in ranks and token[cut:] in ranks
    )
    return [(letters_of_bytes(left), letters_of_bytes(right)) for _, left, right in pairs]
