"""Says whether a constraint can be followed, before a request is taken. Knows no model.

Every constraint is compiled once for a vocabulary of bytes: quick ones here, slow ones by a canary.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict

from quire.structured import GrammarSpec
from quire.structured_outputs.cache import key_of
from quire.structured_outputs.canary import Canary, is_slow
from quire.structured_outputs.check import check
from quire.structured_outputs.compile import GrammarCompiler, require_backend
from quire.structured_outputs.token_table import BYTES

LIMIT_S = 5.0
MAX_KNOWN = 4096


class GrammarVerifier:
    """Remembers its answers. May be called from several threads, and may take up to its limit."""

    def __init__(self, limit_s: float = LIMIT_S) -> None:
        self._canary = Canary(limit_s)
        self._compiler = GrammarCompiler(lambda: BYTES)
        self._lock = threading.Lock()
        self._known: OrderedDict[GrammarSpec, str | None] = OrderedDict()
        self.close = weakref.finalize(self, self._canary.close)

    def verify(self, spec: GrammarSpec) -> None:
        """``ValueError`` with what is wrong with it."""
        key = key_of(spec)
        if key not in self._known:
            error = self._try_out(key)
            with self._lock:
                self._known[key] = error
                if len(self._known) > MAX_KNOWN:
                    self._known.popitem(last=False)
        error = self._known.get(key)
        if error is not None:
            raise ValueError(error)

    def is_known(self, spec: GrammarSpec) -> bool:
        """Whether `verify` answers at once."""
        return key_of(spec) in self._known

    def _try_out(self, spec: GrammarSpec) -> str | None:
        try:
            check(spec)
            require_backend(spec)
            if is_slow(spec):
                self._canary.try_out(spec)
            else:
                self._compiler.compile(spec)
        except ValueError as error:
            return str(error)
        return None
