"""Compiled grammars, the most recently used ones up to a number of bytes, and recent failures."""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice

from quire.structured import Grammar, GrammarSpec

MAX_BYTES = 256 << 20
MAX_FAILURES = 256
# Grammars grow by use, so those used last are measured again with each new one; there may be
# thousands, and steps wait meanwhile.
NUM_MEASURED = 256


class GrammarCache:
    """Knows nothing about how grammars are made. An evicted grammar lives on while rows use it."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._grammars: OrderedDict[GrammarSpec, Grammar] = OrderedDict()
        self._sizes: dict[GrammarSpec, int] = {}  # as last measured
        self._num_bytes = 0  # their sum
        self._failures: OrderedDict[GrammarSpec, str] = OrderedDict()

    def __len__(self) -> int:
        return len(self._grammars)

    def get(self, spec: GrammarSpec) -> Grammar | None:
        """The compiled grammar, or None; one that is spent is dropped."""
        found = self._grammars.get(spec)
        if found is not None and found.is_spent:
            self._drop(spec)
            return None
        if found is not None:
            self._grammars.move_to_end(spec)
        return found

    def failure(self, spec: GrammarSpec) -> str | None:
        """Why it could not be compiled, if it was tried lately."""
        return self._failures.get(spec)

    def put(self, spec: GrammarSpec, grammar: Grammar) -> None:
        self._failures.pop(spec, None)  # it was given up, but was compiled in the end
        self._grammars[spec] = grammar
        self._grammars.move_to_end(spec)
        for used, one in islice(reversed(self._grammars.items()), NUM_MEASURED):
            size = one.num_bytes
            self._num_bytes += size - self._sizes.get(used, 0)
            self._sizes[used] = size
        while self._num_bytes > self._max_bytes and len(self._grammars) > 1:
            self._drop(next(iter(self._grammars)))

    def put_failure(self, spec: GrammarSpec, message: str) -> None:
        self._failures[spec] = message
        if len(self._failures) > MAX_FAILURES:
            self._failures.popitem(last=False)

    def _drop(self, spec: GrammarSpec) -> None:
        del self._grammars[spec]
        self._num_bytes -= self._sizes.pop(spec)
