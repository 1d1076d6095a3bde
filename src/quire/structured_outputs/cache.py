"""Compiled grammars, the most recently used ones up to a number of bytes, and recent failures."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

from quire.structured import Grammar, GrammarSpec

MAX_BYTES = 256 << 20
MAX_FAILURES = 256


class GrammarCache:
    """Knows nothing about how grammars are made. A grammar that rows use lives on without it."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self._grammars: OrderedDict[GrammarSpec, Grammar] = OrderedDict()
        self._failures: OrderedDict[GrammarSpec, str] = OrderedDict()

    def __len__(self) -> int:
        return len(self._grammars)

    def get(self, spec: GrammarSpec) -> Grammar | None:
        found = self._grammars.get(key_of(spec))
        if found is not None:
            self._grammars.move_to_end(key_of(spec))
        return found

    def failure(self, spec: GrammarSpec) -> str | None:
        """Why it could not be compiled, if it was tried lately."""
        return self._failures.get(key_of(spec))

    def put(self, spec: GrammarSpec, grammar: Grammar) -> None:
        key = key_of(spec)
        if key in self._grammars:
            self._num_bytes -= self._grammars.pop(key).num_bytes
        self._grammars[key] = grammar
        self._num_bytes += grammar.num_bytes
        while self._num_bytes > self._max_bytes and len(self._grammars) > 1:
            _, old = self._grammars.popitem(last=False)
            self._num_bytes -= old.num_bytes

    def put_failure(self, spec: GrammarSpec, message: str) -> None:
        self._failures[key_of(spec)] = message
        if len(self._failures) > MAX_FAILURES:
            self._failures.popitem(last=False)


def key_of(spec: GrammarSpec) -> GrammarSpec:
    """Where thinking ends is no part of the grammar."""
    return spec if spec.starts_after is None else replace(spec, starts_after=None)
