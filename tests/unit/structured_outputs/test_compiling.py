"""Compiling beside other work: what is slow, wrong or deadly ends alone."""

from __future__ import annotations

import importlib.util
import threading
import time

import pytest

from quire.structured import Grammar, GrammarSpec, to_grammar_spec
from quire.structured_outputs.cache import GrammarCache
from quire.structured_outputs.canary import Canary, is_slow
from quire.structured_outputs.verify import GrammarVerifier
from quire.structured_outputs.workshop import MAX_THREADS, Job, Workshop
from tests.unit.structured_outputs.grammars import compiled

# Twenty conditions on one string: more states than there is time for.
EXPLODING = {"allOf": [{"type": "string", "pattern": f".*{c}.*"} for c in "abcdefghijklmnopqrst"]}
GOOD = GrammarSpec(kind="regex", source="a+")


def spec(source: str) -> GrammarSpec:
    return GrammarSpec(kind="regex", source=source)


class Slow:
    """A compiler that waits to be let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.num_compiled = 0

    def compile(self, spec: GrammarSpec) -> Grammar:
        if spec.source.startswith("slow"):
            self.go.wait(20)
        self.num_compiled += 1
        return compiled(regex=spec.source)


def finish(workshop: Workshop, *jobs: Job) -> None:
    end = time.monotonic() + 20
    while not all(job.is_done for job in jobs) and time.monotonic() < end:
        workshop.wait(0.05)
        workshop.poll()


def test_a_grammar_is_compiled_once_for_all_who_order_it() -> None:
    compiler = Slow()
    workshop = Workshop(compiler)  # type: ignore[arg-type]
    first, second = workshop.order(GOOD), workshop.order(GOOD)
    assert first is second
    finish(workshop, first)
    later = workshop.order(GrammarSpec(kind="regex", source="a+", starts_after=(3,)))
    assert later.is_done and later.grammar is first.grammar is not None
    assert compiler.num_compiled == 1


def test_one_that_takes_too_long_is_given_up_and_others_are_compiled() -> None:
    compiler = Slow()
    workshop = Workshop(compiler, limit_s=0.05)  # type: ignore[arg-type]
    slow = [workshop.order(spec(f"slow{i}")) for i in range(MAX_THREADS)]
    quick = workshop.order(GOOD)
    finish(workshop, *slow, quick)
    assert all("takes more than 0.05 s" in str(job.error) for job in slow)
    assert quick.grammar is not None
    assert workshop.order(spec("slow0")).error is not None  # at once
    compiler.go.set()
    end = time.monotonic() + 20
    while workshop.order(spec("slow0")).grammar is None and time.monotonic() < end:
        workshop.wait(0.05)
        workshop.poll()
    assert workshop.order(spec("slow0")).grammar is not None  # what comes late is kept


def test_a_wrong_one_fails_and_whatever_else_goes_wrong_too() -> None:
    class Broken:
        def compile(self, spec: GrammarSpec) -> Grammar:
            raise (ValueError("wrong") if spec is GOOD else MemoryError("no room"))

    workshop = Workshop(Broken())  # type: ignore[arg-type]
    wrong, broken = workshop.order(GOOD), workshop.order(spec("b"))
    finish(workshop, wrong, broken)
    assert wrong.error == "wrong"
    assert "MemoryError: no room" in str(broken.error)


def test_the_cache_keeps_what_was_used_last() -> None:
    grammar = compiled(regex="a")
    cache = GrammarCache(max_bytes=2 * grammar.num_bytes)
    for name in "ab":
        cache.put(spec(name), grammar)
    assert cache.get(spec("a")) is grammar
    cache.put(spec("c"), grammar)
    assert cache.get(spec("b")) is None and len(cache) == 2
    cache.put(spec("c"), grammar)
    assert len(cache) == 2


def test_the_canary_tells_what_is_wrong_and_survives_what_takes_too_long() -> None:
    canary = Canary(limit_s=1.0)
    canary.try_out(GOOD)
    with pytest.raises(ValueError, match="unclosed group"):
        canary.try_out(spec("(a"))
    with pytest.raises(ValueError, match=r"json grammar takes more than 1 s to compile"):
        canary.try_out(to_grammar_spec({"json": EXPLODING}))
    canary.try_out(GOOD)
    canary.close()


def test_what_may_be_slow_is_tried_apart() -> None:
    assert is_slow(GOOD) and is_slow(to_grammar_spec({"json": EXPLODING}))
    assert is_slow(to_grammar_spec({"grammar": 'root ::= "a"'}))
    assert not is_slow(to_grammar_spec({"json": {"type": "object"}}))
    assert not is_slow(to_grammar_spec({"choice": ["a"]}))


def test_the_verifier_remembers() -> None:
    verifier = GrammarVerifier()
    wrong = to_grammar_spec({"json": {"type": "integer", "minimum": 2, "maximum": 1}})
    for _ in range(2):
        with pytest.raises(ValueError, match="Unsatisfiable"):
            verifier.verify(wrong)
    assert verifier.is_known(wrong) and not verifier.is_known(GOOD)
    verifier.verify(to_grammar_spec({"json_object": True}))
    verifier.close()


def test_a_package_that_is_missing_is_named_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    spec = GrammarSpec(kind="regex", source="a+")
    with pytest.raises(ValueError, match=r"'llguidance'.*pip install 'quire\[structured\]'"):
        GrammarVerifier().verify(spec)
