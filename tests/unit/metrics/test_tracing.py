"""Spans: in memory, and over HTTP to a collector that is a fake."""

from __future__ import annotations

import builtins
import logging
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import quire
from quire.metrics.tracing import TRACE_HEADERS, Tracer, check_endpoint, open_tracer
from tests.unit.metrics.ends import ARRIVAL, ended, request

TRACE_ID, PARENT_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def traced(**timing: float) -> Any:
    exporter = InMemorySpanExporter()
    tracer = Tracer(exporter)
    asked = request(serial=3, temperature=0.5)
    given = TRACE_HEADERS.set({"traceparent": f"00-{TRACE_ID}-{PARENT_ID}-01"})
    tracer.request_started(asked)
    TRACE_HEADERS.reset(given)
    tracer.request_ended(ended(asked, **timing))
    tracer.close()
    (span,) = exporter.get_finished_spans()
    return span


def test_a_span_continues_the_trace_of_its_http_request() -> None:
    span = traced()
    assert f"{span.context.trace_id:032x}" == TRACE_ID
    assert f"{span.parent.span_id:016x}" == PARENT_ID


def test_a_span_says_when_and_how_much() -> None:
    span = traced()
    assert (span.name, span.kind.name) == ("llm_request", "SERVER")
    assert (span.start_time, span.end_time) == (int(ARRIVAL * 1e9), int((ARRIVAL + 3) * 1e9))
    events = [(event.name, event.timestamp / 1e9 - ARRIVAL) for event in span.events]
    assert events == [("queue", 0), ("prefill", pytest.approx(0.4)), ("decode", pytest.approx(1))]
    attributes = dict(span.attributes)
    assert attributes["gen_ai.request.id"] == "r"
    assert attributes["gen_ai.request.temperature"] == 0.5
    assert attributes["gen_ai.usage.prompt_tokens"] == 100
    assert attributes["gen_ai.usage.completion_tokens"] == 11
    assert attributes["gen_ai.usage.cached_tokens"] == 64
    assert attributes["gen_ai.latency.time_to_first_token"] == pytest.approx(1.0)
    assert attributes["gen_ai.response.finish_reasons"] == ("stop",)


def test_what_never_happened_is_not_in_the_span() -> None:
    span = traced(scheduled_ts=0.0, first_token_ts=0.0)
    assert [event.name for event in span.events] == ["queue"]
    assert "gen_ai.latency.time_to_first_token" not in span.attributes


def test_a_resource_is_named_by_the_environment_or_else_by_quire(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = dict(traced().resource.attributes)
    assert (own["service.name"], own["service.version"]) == ("quire", quire.__version__)
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.version=7,zone=a")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "answers")
    named = dict(traced().resource.attributes)
    assert (named["service.name"], named["service.version"]) == ("answers", "7")
    assert named["zone"] == "a"


@pytest.mark.parametrize("endpoint", ["grpc://jaeger:4317", "localhost:4318", "http:///v1/traces"])
def test_only_a_url_of_http_takes_traces(endpoint: str) -> None:
    words = f"--otlp-traces-endpoint {endpoint}: give a URL .*not gRPC.*http://HOST:4318/v1/traces"
    with pytest.raises(ValueError, match=words):
        check_endpoint(endpoint)


@pytest.mark.parametrize(
    "variable", ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"]
)
def test_a_protocol_that_is_not_spoken_is_refused(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "grpc")
    with pytest.raises(ValueError, match=rf"^{variable}=grpc: .* http/protobuf.*4318/v1/traces"):
        check_endpoint("http://localhost:4318/v1/traces")


def test_the_protocol_of_traces_goes_before_that_of_all_signals(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf")
    check_endpoint("http://localhost:4318/v1/traces")


@pytest.mark.parametrize(
    ("endpoint", "meant"),
    [
        ("http://localhost:4318", "http://localhost:4318/v1/traces"),
        ("https://me:secret@[::1]:4317/", "https://[::1]:4318/v1/traces"),
        ("http://localhost:4317/v1/traces", "http://localhost:4318/v1/traces"),
        ("http://localhost:4318/v1/traces", None),
        ("https://collector.example/other/path?key=secret", None),
    ],
)
def test_a_url_that_no_collector_may_answer_is_noted(
    caplog: pytest.LogCaptureFixture, endpoint: str, meant: str | None
) -> None:
    with caplog.at_level(logging.WARNING, logger="quire"):
        check_endpoint(endpoint)
    assert [record.message.split("did you mean ")[1] for record in caplog.records] == (
        [f"{meant}?"] if meant else []
    )
    assert "secret" not in caplog.text


def test_spans_reach_a_collector() -> None:
    bodies: list[bytes] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Collector) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        tracer = open_tracer(f"http://127.0.0.1:{server.server_port}/v1/traces")
        tracer.request_started(request())
        tracer.request_ended(ended())
        tracer.close()
        server.shutdown()
    (resource,) = ExportTraceServiceRequest.FromString(bodies[0]).resource_spans
    assert [span.name for span in resource.scope_spans[0].spans] == ["llm_request"]


def test_a_missing_extra_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any) -> Any:
        if name.startswith("opentelemetry"):
            raise ImportError(f"No module named {name!r}")
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match=r"pip install 'quire\[otel\]'"):
        open_tracer("http://127.0.0.1:1/v1/traces")
