"""Prefix hashes: a name for the content of a full block and everything before it.

The chain makes equal names mean equal prefixes; the seed of the chain holds what else must agree:
the salt. Knows nothing about blocks.
"""

from __future__ import annotations

from hashlib import blake2b

import numpy as np

TOKEN_BYTES = 4  # int32
HASH_BYTES = 16  # 2^64 blocks before a collision is likely


def chain_seed(cache_salt: str | None) -> bytes:
    """The seed of a hash chain, which stands for the parent of the first block."""
    return blake2b(repr(cache_salt).encode(), digest_size=HASH_BYTES).digest()


def extend_chain(hashes: list[bytes], seed: bytes, token_ids: np.ndarray, block_size: int) -> None:
    """Append the hashes of the full blocks of ``token_ids`` [n] that ``hashes`` lacks.

    ``token_ids`` starts at position 0; blocks that have a hash already are not read again.
    """
    start = len(hashes) * block_size
    new = np.ascontiguousarray(token_ids[start:], dtype=np.int32).tobytes()
    parent = hashes[-1] if hashes else seed
    block_bytes = block_size * TOKEN_BYTES
    for first in range(0, len(new) - block_bytes + 1, block_bytes):
        named = parent + new[first : first + block_bytes]
        parent = blake2b(named, digest_size=HASH_BYTES).digest()
        hashes.append(parent)
