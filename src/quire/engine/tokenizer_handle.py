"""`engine.tokenizer` in every form that callers of other engines' versions expect.

It acts as the tokenizer itself, has it as ``.tokenizer``, which may be assigned, and can be awaited
for it.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from quire.engine.front import Front


class TokenizerHandle:
    """A front's tokenizer. `isinstance` sees the tokenizer's class."""

    _front: Front

    def __init__(self, front: Front) -> None:
        object.__setattr__(self, "_front", front)

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self._front.require_tokenizer()

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(self.tokenizer)

    def __getattr__(self, name: str) -> Any:  # whatever the tokenizer has
        return getattr(self.tokenizer, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "tokenizer":
            self._front.set_tokenizer(value)
        else:
            setattr(self.tokenizer, name, value)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.tokenizer(*args, **kwargs)

    def __len__(self) -> int:
        return len(self.tokenizer)

    def __await__(self) -> Generator[Any, None, PreTrainedTokenizerBase]:
        """Older asyncio engines returned their tokenizer from a coroutine."""
        return self._await_tokenizer().__await__()

    async def _await_tokenizer(self) -> PreTrainedTokenizerBase:
        return self.tokenizer
