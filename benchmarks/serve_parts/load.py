"""One run of `quire bench serve`: random prompts of one length, every output to its full length."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """The requests of one run."""

    num_prompts: int
    rate: float  # requests a second; infinite: all at once
    input_len: int
    output_len: int
    seed: int  # another seed gives other prompts, which are in no cache
    num_warmups: int = 0

    def run(self, url: str, tokenizer: Path, saved: Path, *, quiet: bool = False) -> dict[str, Any]:
        """Run the load; the result, also saved to the file ``saved``. ``quiet``: print nothing."""
        command = [sys.executable, "-m", "quire", "bench", "serve", "--base-url", url]
        command += ["--tokenizer", str(tokenizer), "--num-prompts", str(self.num_prompts)]
        command += ["--request-rate", str(self.rate), "--seed", str(self.seed), "--ignore-eos"]
        command += ["--random-input-len", str(self.input_len)]
        command += ["--random-output-len", str(self.output_len)]
        command += ["--num-warmups", str(self.num_warmups), "--disable-tqdm"]
        command += ["--percentile-metrics", "ttft,tpot,itl,e2el"]
        command += ["--metric-percentiles", "50,90,99"]
        command += ["--save-result", "--result-dir", str(saved.parent)]
        command += ["--result-filename", saved.name]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL if quiet else None)
        result: dict[str, Any] = json.loads(saved.read_text())
        return result
