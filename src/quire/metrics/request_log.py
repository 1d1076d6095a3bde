"""Log lines about requests, for ``--enable-log-requests``: the prompt when one starts, what came of
it when it has ended."""

from __future__ import annotations

import dataclasses
import logging
from enum import Enum

from quire.engine.input_processor import ProcessedRequest
from quire.engine.observer import RequestEnd
from quire.sampling_params import SamplingParams

logger = logging.getLogger(__name__)

_SHORT = (bool, int, float, Enum, type(None))  # never cut: a part of a number is another number


class RequestLog:
    """A `RequestObserver`; prompts are cut to ``max_chars`` characters, or that many token ids, and
    so is each long parameter."""

    def __init__(self, max_chars: int | None) -> None:
        self._max_chars = max_chars

    def request_started(self, request: ProcessedRequest) -> None:
        engine = request.engine
        shown = engine.prompt_token_ids if request.prompt_text is None else request.prompt_text
        prompt = shown[: self._max_chars]
        logger.info(
            "request %s: %d prompt tokens, %s, prompt %r",
            engine.request_id,
            len(engine.prompt_token_ids),
            _shown(request.params, self._max_chars),
            prompt,
            extra={
                "fields": {
                    "request_id": engine.request_id,
                    "prompt_tokens": len(engine.prompt_token_ids),
                    "prompt": prompt,
                }
            },
        )

    def request_ended(self, end: RequestEnd) -> None:
        reasons = [one.reason.value for one in end.completions]
        seconds = end.end_time - end.timing.arrival_time
        ttft = end.timing.first_token_latency if end.timing.first_token_ts else None
        logger.info(
            "request %s ended: %s, %d tokens in %.3f s%s, %d cached",
            end.request.engine.request_id,
            ",".join(reasons),
            end.num_generation_tokens,
            seconds,
            "" if ttft is None else f", first after {ttft:.3f} s",
            end.num_cached_tokens,
            extra={
                "fields": {
                    "request_id": end.request.engine.request_id,
                    "finish_reasons": reasons,
                    "generation_tokens": end.num_generation_tokens,
                    "cached_tokens": end.num_cached_tokens,
                    "seconds": round(seconds, 6),
                    **({} if ttft is None else {"ttft_seconds": round(ttft, 6)}),
                }
            },
        )


def _shown(params: SamplingParams, max_chars: int | None) -> str:
    """The repr of the parameters, with long values cut."""
    values = {one.name: getattr(params, one.name) for one in dataclasses.fields(params) if one.repr}
    shown = (f"{name}={_cut(value, max_chars)}" for name, value in values.items())
    return f"{type(params).__qualname__}({', '.join(shown)})"


def _cut(value: object, max_chars: int | None) -> str:
    text = repr(value)
    if max_chars is None or len(text) <= max_chars or isinstance(value, _SHORT):
        return text
    return f"{text[:max_chars]}..."
