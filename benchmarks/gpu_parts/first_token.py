"""One start of an engine, run as a process of its own: prints how long after ``STARTED`` (the
time.time() before exec) things happened, as JSON.

    python first_token.py FOLDER STARTED ENGINE_OPTIONS_AS_JSON
"""

from __future__ import annotations

import json
import sys
import time


def main() -> None:
    folder, started, options = sys.argv[1], float(sys.argv[2]), json.loads(sys.argv[3])
    entered = time.time()
    from quire import LLM, SamplingParams

    with LLM(folder, skip_tokenizer_init=True, use_tqdm_on_load=False, **options) as llm:
        ready = time.time()
        params = SamplingParams(max_tokens=1, temperature=0.0, ignore_eos=True, detokenize=False)
        outputs = llm.generate(prompt_token_ids=[[5] * 16], sampling_params=params, use_tqdm=False)
        token = list(outputs[0].outputs[0].token_ids)
        first_token = time.time()
        phases = dict(llm.llm_engine.facts.phase_seconds)
    assert len(token) == 1
    result = {
        "python": entered - started,
        "ready": ready - started,
        "first_token": first_token - started,
        # Not in the engine's phases: imports, the config, and the device's first call.
        "imports and config": ready - entered - sum(phases.values()),
        "phases": phases,
    }
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
