"""Whether this machine can compile C++ (`make test` installs what it needs, where it may)."""

from __future__ import annotations

import shutil

import pytest

needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None and shutil.which("c++") is None, reason="there is no C++ compiler"
)
