"""Flags of vLLM's benchmarks that Quire's lack, with their verdicts (see `compat.py`).

Those of the engine are in `compat.VERDICTS`. Knows nothing about how flags are read.
"""

from __future__ import annotations

from collections.abc import Mapping

from quire.compat import Verdict, noted, refused
from quire.not_built import LORA

_ONE_ENGINE = "only Quire's engine is measured"
_NO_HUB = "data sets on the hub are not supported; use --dataset-name sharegpt or random"
_REPEATED = (
    "use `quire bench serve --dataset-name prefix_repetition`, or here --prefix-len for one prefix "
    "that all prompts share"
)
_ONE_MODEL = "all requests name one model; give an adapter's name as --model to measure it"
_PLOT = "use --plot FILE, a picture of the latencies and of what ran when"

_PROFILE = refused(False, "there is no profiler; leave it out")
_HUB: Mapping[str, Verdict] = {
    "hf_subset": refused(None, _NO_HUB),
    "hf_split": refused(None, _NO_HUB),
}

# Of `latency` and `throughput`.
SHARED: Mapping[str, Verdict] = {
    "disable_detokenize": noted(False, "no output is turned into text here"),
    "profile": _PROFILE,
}
OF_THROUGHPUT: Mapping[str, Verdict] = {
    **SHARED,
    "async_engine": refused(
        False,
        "`LLM` is measured here; `quire bench serve` measures the asynchronous engine in a server",
    ),
    "disable_frontend_multiprocessing": noted(False, "it only concerns --async-engine"),
    "lora_path": refused(None, LORA),
    "hf_max_batch_size": refused(None, _ONE_ENGINE),
    **_HUB,
    "prefix_repetition_prefix_len": refused(None, _REPEATED),
    "prefix_repetition_suffix_len": refused(None, _REPEATED),
    "prefix_repetition_num_prefixes": refused(None, _REPEATED),
    "prefix_repetition_output_len": refused(None, _REPEATED),
}
OF_SERVE: Mapping[str, Verdict] = {
    **_HUB,
    "hf_name": refused(None, _NO_HUB),
    "hf_output_len": refused(None, _NO_HUB),
    "profile": _PROFILE,
    "lora_modules": refused(None, _ONE_MODEL, takes_many=True),
    "lora_assignment": noted("random", "it only concerns --lora-modules"),
    "plot_timeline": refused(False, _PLOT),
    "timeline_itl_thresholds": noted("25,50", "it only concerns --plot-timeline"),
    "plot_dataset_stats": refused(False, f"lengths are not drawn; {_PLOT}"),
    "skip_tokenizer_init": noted(False, "a tokenizer is loaded only to make or count text"),
    "random_batch_size": refused(1, "only text generation is measured; leave it out"),
    "probe_request_rate": refused(
        0.0, "no probes are sent; run another `quire bench serve` beside this one"
    ),
    "self_timed": refused(
        None, "no dataset has times; use --request-rate and --burstiness", False, is_switch=True
    ),
    "stream": refused(True, "answers are streamed, since each token's time is measured"),
    "use_beam_search": refused(
        False, "beams cannot be streamed; `quire bench latency --use-beam-search` measures them"
    ),
    "chat_template_kwargs": refused(
        None,
        "use --backend openai-chat with --extra-body '{\"chat_template_kwargs\": {...}}'",
    ),
}
