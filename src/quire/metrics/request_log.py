"""Log lines about requests, for ``--enable-log-requests``: the prompt when one starts, what came of
it when it has ended."""

from __future__ import annotations

import logging

from quire.engine.input_processor import ProcessedRequest
from quire.engine.observer import RequestEnd

logger = logging.getLogger(__name__)


class RequestLog:
    """A `RequestObserver`; prompts are cut to ``max_chars`` characters, or that many token ids."""

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
            request.params,
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
        logger.info(
            "request %s ended: %s, %d tokens in %.3f s, first after %.3f s, %d cached",
            end.request.engine.request_id,
            ",".join(reasons),
            end.num_generation_tokens,
            seconds,
            end.timing.first_token_latency,
            end.num_cached_tokens,
            extra={
                "fields": {
                    "request_id": end.request.engine.request_id,
                    "finish_reasons": reasons,
                    "generation_tokens": end.num_generation_tokens,
                    "cached_tokens": end.num_cached_tokens,
                    "seconds": round(seconds, 6),
                    "ttft_seconds": round(end.timing.first_token_latency, 6),
                }
            },
        )
