"""ServerArgs: the options of the HTTP server, whose command-line flags are made from the fields.

The engine's own options are `EngineArgs`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from quire.args import arg, parse_json_list, parse_json_object
from quire.sizes import parse_bytes

_http = functools.partial(arg, group="server")
_guard = functools.partial(arg, group="guard")
_chat = functools.partial(arg, group="chat")
_process = functools.partial(arg, group="processes")
_watch = functools.partial(arg, group="observability")

DEFAULT_PORT = 8000
CHAT_TEMPLATE_HELP = (
    "a file, the Jinja template itself, or the name of one that Quire has, such as chatml; "
    "default: the model's own"
)
LOG_LEVELS = ("debug", "info", "warning", "error", "critical", "trace")


def parse_paths(text: str) -> list[str]:
    """``/health,/metrics``, or a JSON list; each path begins with a slash, as routes do."""
    words = parse_json_list(text) if text.lstrip().startswith("[") else text.split(",")
    paths = [path.strip() for path in words if path.strip()]
    for path in paths:
        if not path.startswith("/"):
            raise ValueError(f"{path!r} is no path; begin it with a slash: /{path}")
    return paths


@dataclass(kw_only=True)
class ServerArgs:
    """Arguments of one server; ``api_key`` is ``--api-key`` on the command line."""

    host: str = _http("127.0.0.1", help="address to listen at; 0.0.0.0: all interfaces")
    port: int = _http(DEFAULT_PORT, help="TCP port; 0: any that is free", parse=int)
    uds: str | None = _http(None, help="path of a Unix socket to listen at instead")
    root_path: str = _http("", help="path prefix of a proxy, which may strip it or not")
    ssl_keyfile: str | None = _http(None, help="file of the TLS key")
    ssl_certfile: str | None = _http(None, help="file of the TLS certificate")
    ssl_ca_certs: str | None = _http(None, help="file of the CA that signs clients' certificates")
    ssl_cert_reqs: int = _http(
        0, help="clients' certificates: 0 none, 1 optional, 2 required", parse=int
    )
    ssl_ciphers: str = _http(
        "ECDHE+AESGCM:ECDHE+CHACHA20",
        help="ciphers of TLS 1.2, as an OpenSSL cipher list; older TLS is refused",
    )
    allowed_origins: Sequence[str] = _http(
        (), help="CORS: origins, as a JSON list; empty: no CORS", parse=parse_json_list
    )
    allowed_methods: Sequence[str] = _http(("*",), help="CORS: methods", parse=parse_json_list)
    allowed_headers: Sequence[str] = _http(("*",), help="CORS: headers", parse=parse_json_list)
    allow_credentials: bool = _http(False, help="CORS: credentials", parse=bool)
    middleware: Sequence[str] = _http(
        (), help="ASGI middleware, as module.Class or module.function", nargs="+"
    )
    disable_fastapi_docs: bool = _http(False, help="no /docs and /openapi.json", parse=bool)
    sse_keep_alive_interval: float = _http(
        15.0, help="seconds of silence after which a stream sends a comment; 0: never", parse=float
    )
    stream_interval: int = _http(
        1, help="tokens from one event of a stream to the next, unless a request says", parse=int
    )
    enable_force_include_usage: bool = _http(
        False, help="send usage on every chunk of a stream, requested or not", parse=bool
    )
    return_tokens_as_token_ids: bool = _http(
        False, help="log-probabilities name tokens as token_id:N", parse=bool
    )

    api_key: Sequence[str] = _guard((), help="keys, of which clients must send one", nargs="+")
    api_key_file: str | None = _guard(None, help="file with one key a line")
    allowed_hosts: Sequence[str] = _guard(
        (),
        help="Host headers to accept besides localhost, as a JSON list; default: any, but only "
        "localhost for a loopback address without a key",
        parse=parse_json_list,
    )
    strict_fields: str = _guard(
        "error",
        help="unknown request fields: error (400), warn (a response header names them), off",
        choices=("error", "warn", "off"),
    )
    max_request_body_size: int | str = _guard(
        "32MiB", help="largest body of a request", parse=parse_bytes, metavar="BYTES"
    )
    max_queued_requests: int = _guard(
        10_000, help="total requests in flight, beyond which new ones get 429", parse=int
    )
    max_output_tokens: int | None = _guard(
        None, help="most tokens a completion may have; more are cut", parse=int
    )
    request_timeout: float | None = _guard(
        None, help="seconds a request may take, with queueing; default: no limit", parse=float
    )
    logits_processor_pattern: str | None = _guard(
        None,
        help="regular expression of the logits processors that requests may name; default: none",
    )
    trust_request_chat_template: bool = _guard(
        False, help="let requests bring their own chat_template", parse=bool
    )

    chat_template: str | None = _chat(None, help=CHAT_TEMPLATE_HELP)
    chat_template_content_format: str = _chat(
        "auto",
        help="the form in which chat templates get the content of messages",
        choices=("auto", "string", "openai"),
    )
    default_chat_template_kwargs: dict[str, Any] | None = _chat(
        None, help="JSON of values for the chat template", parse=parse_json_object
    )
    exclude_tools_when_tool_choice_none: bool = _chat(
        False, help="show no tools to the model when tool_choice is none", parse=bool
    )
    enable_auto_tool_choice: bool | None = _chat(
        None,
        help="let the model call tools; default: on if the format of its calls is known",
        parse=bool,
    )
    tool_call_parser: str | None = _chat(
        None, help="format of the model's tool calls; default: detected from its chat template"
    )
    tool_parser_plugin: str = _chat("", help="Python file with your own TOOL_PARSERS")
    reasoning_parser: str | None = _chat(
        None,
        help="format of the model's reasoning, to separate it from answers; auto: detected from "
        "its chat template; default: reasoning is content, except for gpt-oss",
    )
    response_role: str = _chat("assistant", help="role of answers")

    api_server_count: int = _process(
        1,
        help="number of HTTP processes in front of the one engine",
        parse=int,
        short=("-asc",),
    )
    disable_frontend_multiprocessing: bool = _process(
        False, help="run the engine in the server's own process, for debugging", parse=bool
    )
    shutdown_timeout: float = _process(
        30.0, help="seconds that running requests get after SIGTERM", parse=float
    )
    restart_engine: bool = _process(
        False, help="start a new engine when it dies, instead of ending", parse=bool
    )

    uvicorn_log_level: str = _watch("info", help="log level of the HTTP server", choices=LOG_LEVELS)
    enable_access_log: bool = _watch(False, help="a log line for every request", parse=bool)
    disable_access_log_for_endpoints: Sequence[str] = _watch(
        (),
        help="paths, with commas between them, that the access log leaves out: /health,/metrics",
        parse=parse_paths,
    )
    enable_log_requests: bool = _watch(False, help="log the prompts of requests", parse=bool)
    max_log_len: int | None = _watch(
        None, help="most characters of a logged prompt, and of each long parameter", parse=int
    )
    log_format: str = _watch("text", help="form of log lines", choices=("text", "json"))
    disable_log_stats: bool = _watch(False, help="do not log throughput", parse=bool)
    metrics_prefix: str = _watch("both", help="names of metrics", choices=("vllm", "quire", "both"))
    otlp_traces_endpoint: str | None = _watch(None, help="URL that takes OpenTelemetry traces")

    def __post_init__(self) -> None:
        """Read lists that are given as text, as on the command line."""
        for item in fields(self):
            value, flag = getattr(self, item.name), item.metadata["flag"]
            if isinstance(value, str) and isinstance(item.default, tuple):
                try:
                    setattr(self, item.name, [value] if flag.nargs else flag.parse(value))
                except ValueError as error:
                    raise ValueError(f"{item.name}: {error}") from error
