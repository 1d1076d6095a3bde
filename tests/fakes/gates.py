"""A gate for engines that are tested without grammars."""

from __future__ import annotations

from quire.engine.grammar_gate import GrammarGate
from quire.structured import NO_TOKENS
from quire.structured_outputs.compile import GrammarCompiler
from quire.structured_outputs.token_table import BYTES
from quire.structured_outputs.workshop import Workshop


def open_gate() -> GrammarGate:
    return GrammarGate(Workshop(GrammarCompiler(lambda: BYTES)), NO_TOKENS)
