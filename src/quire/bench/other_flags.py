"""Flags of vLLM's offline benchmarks that Quire's lack, with their verdicts (see `compat.py`).

Those of the engine are in `compat.VERDICTS`. Knows nothing about how flags are read.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from quire.compat import Verdict, noted, refused, translate

_ONE_ENGINE = "only Quire's engine is measured"
_NO_HUB = "data sets on the hub are not supported; use --dataset-name sharegpt or random"
_REPEATED = (
    "use `quire bench serve --dataset-name prefix_repetition`, or here --prefix-len for one prefix "
    "that all prompts share"
)

# Of `latency` and `throughput`.
SHARED: Mapping[str, Verdict] = {
    "disable_detokenize": noted(False, "no output is turned into text here"),
    "profile": refused(False, "there is no profiler; leave it out"),
}
OF_THROUGHPUT: Mapping[str, Verdict] = {
    **SHARED,
    "async_engine": refused(
        False,
        "`LLM` is measured here; `quire bench serve` measures the asynchronous engine in a server",
    ),
    "disable_frontend_multiprocessing": noted(False, "it only concerns --async-engine"),
    "lora_path": refused(
        None, "LoRA adapters are not supported yet; merge the adapter into the weights"
    ),
    "hf_max_batch_size": refused(None, _ONE_ENGINE),
    "hf_subset": refused(None, _NO_HUB),
    "hf_split": refused(None, _NO_HUB),
    "prefix_repetition_prefix_len": refused(None, _REPEATED),
    "prefix_repetition_suffix_len": refused(None, _REPEATED),
    "prefix_repetition_num_prefixes": refused(None, _REPEATED),
    "prefix_repetition_output_len": refused(None, _REPEATED),
}


def settle_other_flags(arguments: argparse.Namespace, verdicts: Mapping[str, Verdict]) -> None:
    """Remove the flags in ``verdicts`` from ``arguments``; ``ValueError`` for a refused one."""
    named = vars(arguments)
    translate({name: named.pop(name) for name in verdicts if name in named}, (), verdicts)
