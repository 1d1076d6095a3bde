"""How far a row's thinking has come: whether it is over, and when its end must be written.

Knows nothing about grammars; those begin when this is over.
"""

from __future__ import annotations

from collections.abc import Sequence

from quire.structured import Thinking

# Tokens of the prompt's end: a template may have written an empty thought, and its end.
_LOOKED_AT = 16


class ThinkingRow:
    """Of one row."""

    def __init__(self, thinking: Thinking, prompt_token_ids: Sequence[int]) -> None:
        self._end = thinking.end_token_ids
        self._budget = thinking.budget
        self._num_tokens = 0
        self._num_matched = 0  # tokens of the end that were written last
        tail = list(prompt_token_ids[-_LOOKED_AT:])
        size = len(self._end)
        self.is_over = any(
            tuple(tail[i : i + size]) == self._end for i in range(len(tail) - size + 1)
        )

    def accept(self, token_id: int) -> None:
        self._num_tokens += 1
        self._num_matched = self._longest_match(token_id)
        self.is_over = self._num_matched == len(self._end)

    @property
    def forced(self) -> int | None:
        """The only token that may be next, if there is but one."""
        is_used_up = self._budget is not None and self._num_tokens >= self._budget
        return self._end[self._num_matched] if is_used_up and not self.is_over else None

    def _longest_match(self, token_id: int) -> int:
        """How much of the end the text ends with now."""
        written = (*self._end[: self._num_matched], token_id)
        for size in range(len(written), 0, -1):
            if written[-size:] == self._end[:size]:
                return size
        return 0
