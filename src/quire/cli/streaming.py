"""Streams several prompts at once on one engine, and shows their text in the prompts' order."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quire.llm import LLM
    from quire.outputs import CompletionOutput
    from quire.prompts import PromptType
    from quire.sampling_params import SamplingParams


def stream_all(
    llm: LLM, requests: Sequence[tuple[PromptType, SamplingParams]]
) -> Iterator[tuple[int, CompletionOutput]]:
    """Yield (number of the completion, its new text and tokens) after each step.

    Completions are numbered through all requests. Leaving early aborts what still runs.
    """
    prompts, params = [prompt for prompt, _ in requests], [params for _, params in requests]
    first_of = list(itertools.accumulate((one.n for one in params), initial=0))
    first_id = next(llm.request_counter) + 1
    for output in llm.stream(prompts, params):
        for completion in output.outputs:
            yield first_of[int(output.request_id) - first_id] + completion.index, completion


class InOrder:
    """Text of many streams on one screen: the first unfinished one live, later ones held back."""

    def __init__(self, num_streams: int, begin: Callable[[int], str]) -> None:
        """``begin`` gives the heading of a stream."""
        self._begin = begin
        self._held = [""] * num_streams
        self._finished = [False] * num_streams
        self._current = 0
        self._begun = False

    def feed(self, index: int, text: str, finished: bool) -> str:
        """Add ``text`` to stream ``index``; the text that can be printed now."""
        self._held[index] += text
        self._finished[index] = finished
        shown = ""
        while self._current < len(self._held):
            if not self._begun:
                shown += self._begin(self._current)
                self._begun = True
            shown += self._held[self._current]
            self._held[self._current] = ""
            if not self._finished[self._current]:
                break
            shown += "\n"
            self._current, self._begun = self._current + 1, False
        return shown
