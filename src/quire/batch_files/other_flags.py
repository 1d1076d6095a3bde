"""Flags of vLLM's `run-batch` that Quire's lacks, with their verdicts (see `compat.py`).

Those of the engine are in `compat.VERDICTS`. Knows nothing about how flags are read.
"""

from __future__ import annotations

from collections.abc import Mapping

from quire.compat import Verdict, noted, refused
from quire.server import other_flags

_NO_METRICS = "it only concerns --enable-metrics"
_NO_PORT = "a batch opens no port"
# Those that mean the same in `vllm serve`.
_SHARED = (
    *("enable_prompt_tokens_details", "tool_strict_level", "tool_server", "log_error_stack"),
    *("enable_log_outputs", "enable_log_deltas"),
)

VERDICTS: Mapping[str, Verdict] = {
    **{name: other_flags.VERDICTS[name] for name in _SHARED},
    "enable_metrics": refused(
        False,
        "a batch opens no port, and prints its number of tokens at the end; leave out "
        "--enable-metrics, --host, --port and --url, or name a `quire serve`, which has /metrics, "
        "with --url",
    ),
    "host": noted(None, _NO_METRICS),
    "port": noted(8000, _NO_METRICS),
    "enable_force_include_usage": noted(False, "answers of a batch always have their usage"),
    "enable_server_load_tracking": noted(False, _NO_PORT),
    "enable_tokenizer_info_endpoint": noted(False, _NO_PORT),
    "max_log_len": noted(None, "requests of a batch are not logged"),
    "log_config_file": refused(None, "use QUIRE_LOGGING_LEVEL"),
}
