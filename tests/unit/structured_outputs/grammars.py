"""Grammars over a vocabulary of bytes and some longer tokens, and whether a text follows them."""

from __future__ import annotations

import random
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
_USUAL = [bytes([byte]) for byte in b'{}[],:"-.019abctrunlefs']
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


def random_text(grammar: Grammar, chance: random.Random, most: int = 100) -> str | None:
    """By tokens that are allowed, mostly of JSON's own characters; None if it does not end."""
    token_ids: list[int] = []
    while len(token_ids) < most:
        found = sorted(allowed(grammar, token_ids) or ())
        assert found, bytes(token_ids)
        if END in found and (len(found) == 1 or chance.random() < 0.3):
            return b"".join(TABLE.tokens[token_id] for token_id in token_ids).decode()
        going_on = [token_id for token_id in found if token_id != END]
        usual = [token_id for token_id in going_on if TABLE.tokens[token_id] in _USUAL]
        token_ids.append(chance.choice(usual if usual and chance.random() < 0.9 else going_on))
    return None
