"""The work of benchmarks/serve.py without a server: all requests given to one `LLM` at once.

Run as a program: ``python offline.py OPTIONS``, where OPTIONS is JSON; prints tokens a second.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any


def measure(
    engine: dict[str, Any], num_prompts: int, input_len: int, output_len: int
) -> dict[str, float]:
    """Generate greedily, every output to its full length, with prompts that are in no cache."""
    from quire import LLM, SamplingParams
    from quire.bench.workload import random_prompts

    with LLM(**engine) as llm:
        vocab_size = llm.llm_engine.model_config.get_vocab_size()
        prompts = random_prompts(num_prompts, input_len, vocab_size=vocab_size, seed=7)
        warmup = SamplingParams(temperature=0.0, max_tokens=8, ignore_eos=True)
        llm.generate(prompts[:8], warmup, use_tqdm=False)
        params = SamplingParams(temperature=0.0, max_tokens=output_len, ignore_eos=True)
        started = time.perf_counter()
        outputs = llm.generate(prompts, params, use_tqdm=False)
        seconds = time.perf_counter() - started
    num_tokens = sum(len(output.outputs[0].token_ids) for output in outputs)
    return {"seconds": seconds, "output_throughput": num_tokens / seconds}


if __name__ == "__main__":
    print(json.dumps(measure(**json.loads(sys.argv[1]))))
