"""Tries a grammar out: compiles it, and writes some text by it.

Some grammars compile at once but cannot be followed: a mask needs more states than a backend has,
or a token more time than there is. That is found here, before a request is accepted.
"""

from __future__ import annotations

import random

import numpy as np

from quire.structured import Grammar, GrammarSpec
from quire.structured_outputs.blame import DEAD_END
from quire.structured_outputs.compile import GrammarCompiler

NUM_TOKENS = 256  # enough for the quadratic or worse cost of ambiguous grammars to show


def try_out(compiler: GrammarCompiler, spec: GrammarSpec) -> None:
    """``ValueError`` for what cannot be followed."""
    grammar = compiler.compile(spec)
    num_tokens, error = _walk(grammar, len(compiler.table))
    if error is None:
        return
    if error == DEAD_END and num_tokens == 0:
        error = (
            "allows no text at all: its rules lead to each other and never to an end, or the "
            "model's vocabulary lacks its characters"
        )
    raise ValueError(f"the {spec.kind} grammar {error}.")


def _walk(grammar: Grammar, vocab_size: int) -> tuple[int, str | None]:
    """Follow the grammar by random allowed tokens, always the same ones; returns their number and
    the error that stopped it, if any."""
    chance = random.Random(0)
    state = grammar.new_state()
    mask = np.zeros(-(-vocab_size // 32), dtype=np.int32)
    for num_tokens in range(NUM_TOKENS):
        state.fill(mask)
        allowed = np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little"))
        going_on = allowed[allowed != grammar.end_token_id]
        if state.error() is not None:
            return num_tokens, state.error()
        if not len(going_on) or not state.accept(int(chance.choice(going_on))):
            return num_tokens, state.error()
    return NUM_TOKENS, None
