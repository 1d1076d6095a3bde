"""Flags of other servers that `ServerArgs` has no field of, with their verdicts (see `compat.py`).

Those that concern an engine stand in `compat.VERDICTS`. Knows nothing about how flags are read.
"""

from __future__ import annotations

from quire.compat import Verdict, alias, noted, refused

_LIMITS_OF_H11 = "request heads may have 64 KiB; --max-request-body-size limits bodies"
_OUTPUT_LOG = "answers are never logged"

VERDICTS: dict[str, Verdict] = {
    "max_num_queued_reqs": alias("max_queued_requests"),
    "max_request_body_bytes": alias("max_request_body_size"),
    # Flags that have no effect here.
    "enable_request_id_headers": noted(False, "every answer has its X-Request-Id, at no cost"),
    "enable_prompt_tokens_details": noted(False, "usage always reports cached tokens"),
    "disable_uvicorn_access_log": noted(
        False, "only --enable-access-log logs requests; leave that out"
    ),
    "enable_server_load_tracking": noted(False, "/load always counts, at no cost"),
    "enable_tokenizer_info_endpoint": noted(False, "there is no such endpoint"),
    "h11_max_incomplete_event_size": noted(None, _LIMITS_OF_H11),
    "h11_max_header_count": noted(None, _LIMITS_OF_H11),
    "log_error_stack": noted(False, "unexpected errors are logged with their stack anyway"),
    "tool_strict_level": noted(None, "calls that are not forced are not constrained"),
    "ws_max_size": noted(None, "there are no WebSockets"),
    # Features that are not built: refused when they are asked for.
    "tool_server": refused(None, "tools do not run in the server; run them in your program"),
    "enable_per_request_metrics": refused(False, "/metrics has them for all requests together"),
    "enable_log_outputs": refused(False, _OUTPUT_LOG),
    "enable_log_deltas": refused(False, _OUTPUT_LOG),
    "enable_ssl_refresh": refused(False, "restart the server when its certificate has changed"),
    "log_config_file": refused(None, "use --log-format and QUIRE_LOGGING_LEVEL"),
    "max_num_queued_tokens": refused(
        None, "the queue is limited in requests: --max-queued-requests"
    ),
    "fingerprint_mode": refused("hash", "answers name version and configuration as a hash"),
    "trust_request_mm_kwargs": refused(False, "only text prompts are supported yet"),
    "tokens_only": refused(False, "send token ids as the prompt of /v1/completions"),
    "headless": refused(False, "only one node computes yet"),
    "grpc": refused(False, "there is HTTP only"),
}
