"""Several prompts at once on one engine, their text as it comes, shown in the prompts' order."""

from __future__ import annotations

import dataclasses
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
    """(number of the completion, what is new of it) as steps end.

    Completions are numbered through all requests. Leaving early aborts what still runs.
    """
    from quire.sampling_params import RequestOutputKind

    engine = llm.llm_engine
    first_of: dict[str, int] = {}  # request id -> number of its first completion
    num_completions = 0
    try:
        for prompt, params in requests:
            params = dataclasses.replace(params, output_kind=RequestOutputKind.DELTA)
            first_of[engine.add_request(f"cli-{num_completions}", prompt, params)] = num_completions
            num_completions += params.n
        while engine.has_unfinished_requests():
            for output in engine.step():
                for completion in output.outputs:
                    yield first_of[output.request_id] + completion.index, completion
    finally:
        engine.abort_request(list(first_of))


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
        """What may be printed now."""
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
