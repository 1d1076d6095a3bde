"""Requests that have ended, for whoever watches them."""

from __future__ import annotations

from typing import Any

from quire.engine.input_processor import ProcessedRequest, StopSpec
from quire.engine.observer import CompletionEnd, RequestEnd
from quire.outputs import RequestStateStats
from quire.request import EngineRequest, FinishReason, RowSampling
from quire.sampling_params import SamplingParams

ARRIVAL = 1_000.0


def request(request_id: str = "r", *, serial: int = 0, **params: Any) -> ProcessedRequest:
    chosen = SamplingParams(**{"max_tokens": 50, **params})
    return ProcessedRequest(
        engine=EngineRequest(
            request_id=request_id,
            serial=serial,
            prompt_token_ids=list(range(100)),
            sampling=RowSampling(),
            max_tokens=50,
            n=chosen.n,
            arrival_time=ARRIVAL,
        ),
        prompt_text="Once upon a time",
        params=chosen,
        stop=StopSpec(),
    )


def ended(
    asked: ProcessedRequest | None = None,
    *completions: tuple[int, FinishReason],
    **timing: float,
) -> RequestEnd:
    """Queued for 0.4 s, first token after 1 s, end after 3 s, unless ``timing`` says otherwise."""
    known = {
        "arrival_time": ARRIVAL,
        "queued_ts": ARRIVAL,
        "scheduled_ts": ARRIVAL + 0.4,
        "first_token_ts": ARRIVAL + 1.0,
        "last_token_ts": ARRIVAL + 3.0,
        "first_token_latency": 1.0,
        **timing,
    }
    return RequestEnd(
        request=asked or request(),
        completions=tuple(
            CompletionEnd(num_tokens=count, reason=reason)
            for count, reason in completions or ((11, FinishReason.STOP),)
        ),
        timing=RequestStateStats(**known),  # type: ignore[arg-type]
        num_cached_tokens=64,
        end_time=ARRIVAL + 3.0,
    )
