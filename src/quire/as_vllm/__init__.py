"""Runs programs that were written for vLLM: while the hook is installed, `import vllm` is Quire.

`python -m quire.as_vllm PROGRAM [ARGS]` installs it for a program and the Python processes that it
starts; `install()` does it for this process. Imports nothing heavy.
"""

from __future__ import annotations

from quire.as_vllm.finder import install

__all__ = ["install"]
