"""What tries grammars out ends with its engine."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from quire import LLM, SamplingParams
from quire.sampling_params import StructuredOutputsParams
from quire.structured import GrammarSpec
from quire.structured_outputs import verify
from quire.structured_outputs.canary import Canary, TooSlow
from quire.structured_outputs.check import MAX_SOURCE_BYTES
from quire.structured_outputs.verify import GrammarVerifier, TooManyGrammars, VerifierClosed

QUICK = [GrammarSpec(kind="choice", source=f'["{text}"]') for text in "abc"]
SLOW = GrammarSpec(kind="regex", source="a+")


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


def test_a_process_that_somebody_ended_between_two_grammars_is_started_again() -> None:
    canary = Canary(60)
    canary.try_out(QUICK[0])
    first = canary._process
    assert first is not None and os.getsid(first.pid) == first.pid  # Ctrl-C is not for it
    for child in Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split():
        os.kill(int(child), signal.SIGKILL)
    canary.try_out(QUICK[1])
    assert canary._process is first
    first.kill()
    first.wait()
    canary.try_out(QUICK[2])
    assert canary._process is not first
    canary.close()


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


class Held:
    """What is tried lasts until it is let go, and then comes to this."""

    def __init__(self, error: Exception | None = None) -> None:
        self.is_inside, self.go_on = threading.Event(), threading.Event()
        self._error = error

    def __call__(self, *args: object) -> None:
        self.is_inside.set()
        assert self.go_on.wait(20)
        if self._error is not None:
            raise self._error


def test_a_verifier_that_is_closed_says_so_instead_of_nothing() -> None:
    verifier = GrammarVerifier()
    verifier.verify(QUICK[0])
    verifier.close()
    verifier.verify(QUICK[0])  # it is known
    for spec in (QUICK[1], SLOW):
        with ThreadPoolExecutor() as pool, pytest.raises(VerifierClosed):
            pool.submit(verifier.verify, spec).result(20)
        with pytest.raises(VerifierClosed):
            asyncio.run(asyncio.wait_for(verifier.verify_beside(spec), 20))


def test_the_size_is_checked_before_anything_reads_the_grammar(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(spec: GrammarSpec) -> bool:
        raise AssertionError(f"{len(spec.source)} bytes are read")

    monkeypatch.setattr(verify, "is_slow", fail)
    verifier = GrammarVerifier()
    large = GrammarSpec(kind="json", source=" " * (MAX_SOURCE_BYTES + 1))
    with pytest.raises(ValueError, match=f"the limit is {MAX_SOURCE_BYTES}"):
        asyncio.run(verifier.verify_beside(large))
    verifier.close()


def test_what_waits_when_it_is_closed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held()
    monkeypatch.setattr(Canary, "try_out", held)
    verifier = GrammarVerifier()
    with ThreadPoolExecutor() as pool:
        waiting: list[Future[None]] = [pool.submit(verifier.verify, spec) for spec in QUICK]
        assert held.is_inside.wait(20)
        while len(verifier._waiting) < len(QUICK):
            pass
        verifier.close()
        held.go_on.set()
        ends = [one.exception(20) for one in waiting]
    assert sum(end is None for end in ends) == 1, "the one that was being tried"
    assert sum(isinstance(end, VerifierClosed) for end in ends) == len(QUICK) - 1


def test_more_quick_ones_than_slow_ones_may_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held()
    monkeypatch.setattr(Canary, "try_out", held)
    verifier = GrammarVerifier(max_waiting=2)
    quick, slow = (
        [GrammarSpec(kind=kind, source=f'["{i}"]') for i in range(40)]
        for kind in ("choice", "lark")
    )
    num_taken = {}
    for kind, specs in (("quick", quick), ("slow", slow)):
        held.is_inside.clear()
        waiting = [verifier._verdict(specs[0], is_patient=False)]
        assert held.is_inside.wait(20)  # and none waits
        with pytest.raises(TooManyGrammars):
            for spec in specs[1:]:
                waiting.append(verifier._verdict(spec, is_patient=False))
        num_taken[kind] = len(waiting) - 1
    assert num_taken == {"quick": 8, "slow": 2}
    held.go_on.set()
    verifier.close()


@pytest.mark.parametrize("error", [TooSlow("slow"), RuntimeError("does not answer")])
def test_what_is_slow_when_it_is_closed_is_told(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(error)
    monkeypatch.setattr(Canary, "try_out", held)
    verifier = GrammarVerifier()
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(verifier.verify, SLOW)
        assert held.is_inside.wait(20)
        verifier.close()
        held.go_on.set()
        assert isinstance(waiting.exception(20), VerifierClosed)
