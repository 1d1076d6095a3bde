"""OpenTelemetry traces: one span for each request, made when it has ended.

The only module that imports OpenTelemetry. A request's parent is whatever its HTTP request named.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import quire
from quire.engine.input_processor import ProcessedRequest
from quire.engine.observer import RequestEnd
from quire.outputs import RequestStateStats

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

logger = logging.getLogger(__name__)

# The W3C headers of the HTTP request that the current task works for.
TRACE_HEADERS: ContextVar[Mapping[str, str] | None] = ContextVar("trace_headers", default=None)
HEADER_NAMES = ("traceparent", "tracestate")

_EXPORT_S = 5  # how long an absent collector may delay the end of the server
_NEEDS_EXTRA = (
    "--otlp-traces-endpoint needs OpenTelemetry, which is not installed ({error}); "
    "pip install 'quire[otel]', or leave the flag out"
)
_PROTOCOL = "http/protobuf"  # the only one of OTLP that is spoken
_PROTOCOL_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_GRPC_PORT, _HTTP_PORT, _PATH = ":4317", ":4318", "/v1/traces"  # of a collector, by default


class Tracer:
    """A `RequestObserver`. ``close`` sends what is left."""

    def __init__(self, exporter: SpanExporter) -> None:
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._extract = TraceContextTextMapPropagator().extract
        self._server_kind = SpanKind.SERVER
        own = Resource.create({"service.name": "quire", "service.version": quire.__version__})
        resource = own.merge(OTELResourceDetector().detect())  # the environment's names win
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("quire")
        self._parents: dict[int, Mapping[str, str]] = {}  # by the serial of a request

    def request_started(self, request: ProcessedRequest) -> None:
        headers = TRACE_HEADERS.get()
        if headers:
            self._parents[request.engine.serial] = headers

    def request_ended(self, end: RequestEnd) -> None:
        headers = self._parents.pop(end.request.engine.serial, {})
        timing = end.timing
        span = self._tracer.start_span(
            "llm_request",
            context=self._extract(headers),
            kind=self._server_kind,
            start_time=_ns(timing.arrival_time),
            attributes=_attributes(end),
        )
        for name, when in _events(timing):
            span.add_event(name, timestamp=_ns(when))
        span.end(_ns(end.end_time))

    def close(self) -> None:
        self._provider.shutdown()


def check_endpoint(endpoint: str) -> None:
    """``ValueError`` if no trace could be sent there; a warning if it is doubtful."""
    url = urlsplit(endpoint)
    if url.scheme not in ("http", "https") or not url.netloc:
        raise ValueError(
            f"--otlp-traces-endpoint {endpoint}: give a URL that takes traces over HTTP, not gRPC, "
            f"such as http://HOST{_HTTP_PORT}{_PATH}"
        )
    variable = next((name for name in _PROTOCOL_VARIABLES if os.environ.get(name)), None)
    if variable is not None and os.environ[variable] != _PROTOCOL:
        raise ValueError(
            f"{variable}={os.environ[variable]}: traces are sent as {_PROTOCOL} only; set it to "
            f"that, and --otlp-traces-endpoint to such as http://HOST{_HTTP_PORT}{_PATH}"
        )
    address = url.netloc.rpartition("@")[2]  # without a password
    if url.path in ("", "/") or address.endswith(_GRPC_PORT):
        logger.warning(
            "collectors rarely take traces over HTTP at the path or port of "
            "--otlp-traces-endpoint: did you mean %s://%s%s?",
            url.scheme,
            re.sub(f"{_GRPC_PORT}$", _HTTP_PORT, address),
            url.path.rstrip("/") or _PATH,
        )


def open_tracer(endpoint: str) -> Tracer:
    """Traces to an OTLP collector over HTTP; ``ValueError`` when OpenTelemetry is missing."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        raise ValueError(_NEEDS_EXTRA.format(error=error)) from error
    return Tracer(OTLPSpanExporter(endpoint=endpoint, timeout=_EXPORT_S))


def _attributes(end: RequestEnd) -> dict[str, Any]:
    """The span's attributes, named as in OpenTelemetry's conventions for generative models."""
    params, timing = end.request.params, end.timing
    seconds = {
        "gen_ai.latency.time_in_queue": _between(timing.arrival_time, timing.scheduled_ts),
        "gen_ai.latency.time_to_first_token": _between(timing.arrival_time, timing.first_token_ts),
        "gen_ai.latency.time_in_model_prefill": _between(
            timing.scheduled_ts, timing.first_token_ts
        ),
        "gen_ai.latency.time_in_model_decode": _between(timing.first_token_ts, end.end_time),
        "gen_ai.latency.e2e": _between(timing.arrival_time, end.end_time),
    }
    return {
        "gen_ai.request.id": end.request.engine.request_id,
        "gen_ai.request.n": params.n,
        "gen_ai.request.max_tokens": end.request.engine.max_tokens,
        "gen_ai.request.temperature": params.temperature,
        "gen_ai.request.top_p": params.top_p,
        "gen_ai.usage.prompt_tokens": end.num_prompt_tokens,
        "gen_ai.usage.completion_tokens": end.num_generation_tokens,
        "gen_ai.usage.cached_tokens": end.num_cached_tokens,
        "gen_ai.response.finish_reasons": [one.reason.value for one in end.completions],
        **{name: value for name, value in seconds.items() if value is not None},
    }


def _events(timing: RequestStateStats) -> list[tuple[str, float]]:
    """When each part of a request's life began; those it never reached are left out."""
    named = (
        ("queue", timing.queued_ts),
        ("prefill", timing.scheduled_ts),
        ("decode", timing.first_token_ts),
    )
    return [(name, when) for name, when in named if when]


def _between(start: float, end: float) -> float | None:
    return end - start if start and end else None


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
