"""Engine steps on one GPU: are they right, how fast are they, and how far from the GPU's limits.

    python benchmarks/gpu.py --output DIR                      # the default parts: 9 minutes
    python benchmarks/gpu.py --only speed --models qwen3-0.6b --workloads single decode256
    python benchmarks/gpu.py --only soak --minutes 5
    python benchmarks/gpu.py --only speed --models tiny --scale 0.05 \\
        --options '{"device": "cpu"}'                          # a rehearsal without a GPU

Dummy weights of the real configs, the workloads of `quire.bench.standard_workloads`, greedy, EOS
ignored; medians of three repetitions. Ceilings follow from the rates at which this GPU reads and
multiplies, measured in the same run: per step, the time to read every weight, key and value once or
to do every multiplication once, whichever is longer. The times of prefill and decode are added,
without overlap. Rows that fall short of goal or peer are profiled. What does not fit into
--max-minutes is skipped and reported as such. Past results: RESULTS.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))  # the soak's storms are in tests/

from gpu_parts.command import main

if __name__ == "__main__":
    sys.exit(main(__file__, __doc__ or ""))
