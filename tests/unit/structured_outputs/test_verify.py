"""What tries grammars out ends with its engine."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import weakref
from pathlib import Path

from quire import LLM, SamplingParams
from quire.sampling_params import StructuredOutputsParams


def test_nothing_that_waits_for_grammars_outlives_its_engine() -> None:
    before = {thread for thread in threading.enumerate() if thread.name == "quire-verify"}
    with LLM(max_model_len=64, max_num_seqs=2, num_gpu_blocks_override=16) as llm:
        params = SamplingParams(
            max_tokens=2, structured_outputs=StructuredOutputsParams(regex="a+")
        )
        llm.generate("a", params)
        started = {t for t in threading.enumerate() if t.name == "quire-verify"} - before
        assert started
        verifier = weakref.ref(llm.llm_engine.front.inputs._verifier)
    for thread in started:
        thread.join(timeout=30)
        assert not thread.is_alive()
    del llm
    gc.collect()
    assert verifier() is None


def test_modules_in_the_users_folder_are_not_taken_for_pythons_own(tmp_path: Path) -> None:
    (tmp_path / "select.py").write_text("raise SystemExit('not mine')")
    code = """
import sys
sys.path[:] = [path for path in sys.path if path]
from quire.structured import GrammarSpec
from quire.structured_outputs.canary import Canary
canary = Canary(60)
print(canary.try_out(GrammarSpec(kind="regex", source="(a|b)+c")))
canary.close()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.returncode) == ("None\n", 0), done.stderr
