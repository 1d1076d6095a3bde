"""The step on one GPU: is it right, how fast is it, and how far from what the GPU could do.

    python benchmarks/gpu.py --output DIR                      # everything but the soak: 9 minutes
    python benchmarks/gpu.py --only speed --models qwen3-0.6b --workloads single decode256
    python benchmarks/gpu.py --only soak --minutes 5
    python benchmarks/gpu.py --only speed --models tiny --scale 0.05 \\
        --options '{"device": "cpu"}'                          # a rehearsal without a GPU

Weights are dummies of the real configs; greedy, EOS ignored, the workloads of
`quire.bench.standard_workloads`; three repetitions, medians. The ceilings are computed from what
this GPU reads and multiplies, measured in the same run: every weight and every key and value read
once a step, or every multiplication done once, whichever takes longer. Prompts and decode steps are
added up: that they might be computed side by side is not assumed. Rows that fall short get a
profile. What does not fit into --max-minutes is skipped, and said so. Results of the past:
RESULTS.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))  # the soak's storms are in tests/

from gpu_parts.command import main

if __name__ == "__main__":
    sys.exit(main(__file__, __doc__ or ""))
