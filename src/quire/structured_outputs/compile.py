"""From a `GrammarSpec` to a `Grammar` for one vocabulary.

llguidance compiles all but EBNF and tags inside free text, which are left to xgrammar: it follows
every keyword of a JSON schema or refuses it, and takes next to no time. Backends and the token
table are made when first needed.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import threading
from collections.abc import Callable
from typing import Protocol

from quire.structured import Grammar, GrammarSpec
from quire.structured_outputs.backend_llguidance import LLGuidance, can_follow
from quire.structured_outputs.backend_xgrammar import XGrammar
from quire.structured_outputs.check import check
from quire.structured_outputs.token_table import TokenTable


class Backend(Protocol):
    def compile(self, spec: GrammarSpec) -> Grammar:
        """``ValueError`` says what is wrong with it."""
        ...


class GrammarCompiler:
    """Compiles grammars for one vocabulary; may be called from several threads."""

    def __init__(self, load_table: Callable[[], TokenTable]) -> None:
        self._load_table = load_table
        self._lock = threading.Lock()

    def compile(self, spec: GrammarSpec) -> Grammar:
        """``ValueError`` for a constraint that cannot be followed."""
        check(spec)
        return self._backend(backend_of(spec)).compile(spec)

    def prepare(self, spec: GrammarSpec) -> None:
        """Load the backend that compiles it, which may take seconds."""
        self._backend(backend_of(spec))

    def warm_up(self) -> None:
        """Load the backend of most grammars; an error is left to the first request that needs
        it."""
        if importlib.util.find_spec("llguidance") is not None:
            with contextlib.suppress(ValueError):
                self._backend("llguidance")

    def _backend(self, name: str) -> Backend:
        with self._lock:  # several threads may need it first
            return self._xgrammar if name == "xgrammar" else self._llguidance

    @functools.cached_property
    def table(self) -> TokenTable:
        return self._load_table()

    @functools.cached_property
    def _llguidance(self) -> Backend:
        return LLGuidance(self.table)

    @functools.cached_property
    def _xgrammar(self) -> Backend:
        return XGrammar(self.table)


def require_backend(spec: GrammarSpec) -> None:
    """``ValueError`` where the package that compiles it is not installed."""
    name = backend_of(spec)
    if importlib.util.find_spec(name) is None:
        raise ValueError(
            f"constrained output of the kind {spec.kind!r} needs the package {name!r}, which is "
            "not installed; install it with: pip install 'quire[structured]'"
        )


def backend_of(spec: GrammarSpec) -> str:
    """The name of the backend that compiles it."""
    return "llguidance" if can_follow(spec) else "xgrammar"
