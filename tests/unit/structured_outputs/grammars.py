"""Grammars over a vocabulary of bytes and some longer tokens, and whether a text follows them."""

from __future__ import annotations

from typing import Any

import numpy as np

from quire.structured import Grammar, to_grammar_spec
from quire.structured_outputs.check import check
from quire.structured_outputs.compile import GrammarCompiler
from quire.structured_outputs.token_table import TokenTable

LONGER = [b'{"', b'":', b'", "', b"ab", b"true", "é".encode()[:1], "日本".encode()]
NUM_TOKENS = 256 + len(LONGER) + 3
SPECIAL, OTHER_END, END = NUM_TOKENS - 3, NUM_TOKENS - 2, NUM_TOKENS - 1
TABLE = TokenTable(
    tokens=[*(bytes([byte]) for byte in range(256)), *LONGER, b"", b"", b""],
    end_token_ids=(END, OTHER_END),
)
NUM_WORDS = -(-NUM_TOKENS // 32)
_COMPILER = GrammarCompiler(lambda: TABLE)


def compiled(**constraint: Any) -> Grammar:
    spec = to_grammar_spec(constraint)
    check(spec)
    return _COMPILER.compile(spec)


def allowed(grammar: Grammar, token_ids: list[int]) -> set[int] | None:
    """What may follow these tokens; None if they are no beginning."""
    state = grammar.new_state()
    for token_id in token_ids:
        if not state.accept(token_id):
            return None
    mask = np.zeros((1, NUM_WORDS), dtype=np.int32)
    grammar.fill_all([state], mask)
    bits = np.unpackbits(mask.view(np.uint8), bitorder="little")
    return set(np.flatnonzero(bits[:NUM_TOKENS]).tolist())


def follows(grammar: Grammar, text: str) -> bool:
    """Byte by byte, by masks as an engine does, and whether the text may end there."""
    token_ids: list[int] = []
    for byte in text.encode():
        found = allowed(grammar, token_ids)
        if found is None or byte not in found:
            return False
        token_ids.append(byte)
    last = allowed(grammar, token_ids)
    return last is not None and END in last
