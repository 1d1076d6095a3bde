"""Compiling beside other work: what is slow, wrong or deadly ends alone."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import threading
import time
from typing import Any

import pytest

from quire.structured import Grammar, GrammarSpec, to_grammar_spec
from quire.structured_outputs import backend_llguidance, verify
from quire.structured_outputs.backend_llguidance import LLGrammar
from quire.structured_outputs.cache import NUM_MEASURED, GrammarCache
from quire.structured_outputs.canary import Canary, TooSlow, _Child, is_slow
from quire.structured_outputs.compile import GrammarCompiler
from quire.structured_outputs.token_table import BYTES, TokenTable
from quire.structured_outputs.trial import try_out
from quire.structured_outputs.verify import GrammarVerifier, TooManyGrammars
from quire.structured_outputs.workshop import MAX_GIVEN_UP, MAX_THREADS, Job, Workshop
from tests.unit.structured_outputs.grammars import TABLE, compiled

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
        return compiled(**{spec.kind: "a" if spec.kind == "regex" else ["a"]})


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
    later = workshop.order(GrammarSpec(kind="regex", source="a+"))
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
    late = workshop.order(spec("slow0"))  # what comes late is kept, and its failure is not
    assert late.grammar is not None and late.error is None


def test_no_more_threads_are_started_while_too_many_that_were_given_up_run() -> None:
    compiler = Slow()
    others = threading.enumerate()  # engines of other tests have theirs
    workshop = Workshop(compiler, limit_s=0.05)  # type: ignore[arg-type]
    jobs = [workshop.order(spec(f"slow{i}")) for i in range(12)]
    finish(workshop, *jobs)
    started = [one for one in threading.enumerate() if one not in others]
    running = [one for one in started if one.name == "quire-grammar"]
    assert len(running) <= MAX_GIVEN_UP + MAX_THREADS - 1
    assert "finds no room" in str(jobs[-1].error)
    compiler.go.set()
    end = time.monotonic() + 20
    while workshop.order(spec("a")).grammar is None and time.monotonic() < end:
        workshop.wait(0.05)
        workshop.poll()
    assert workshop.order(spec("a")).grammar is not None  # its failure is not remembered


def test_slow_ones_hold_up_no_quick_ones_whatever_becomes_of_them() -> None:
    compiler = Slow()
    workshop = Workshop(compiler, limit_s=0.05)  # type: ignore[arg-type]
    slow = [workshop.order(spec(f"slow{i}")) for i in range(12)]
    quick = workshop.order(GrammarSpec(kind="choice", source='["a"]'))
    finish(workshop, quick)
    assert quick.grammar is not None and not any(job.grammar for job in slow)
    finish(workshop, *slow)
    assert "finds no room" in str(slow[-1].error)
    later = workshop.order(GrammarSpec(kind="choice", source='["b"]'))
    finish(workshop, later)
    assert later.grammar is not None
    compiler.go.set()


def test_a_grammar_that_is_spent_is_compiled_anew() -> None:
    compiler = Slow()
    workshop = Workshop(compiler)  # type: ignore[arg-type]
    first = workshop.order(GOOD)
    finish(workshop, first)
    assert isinstance(first.grammar, LLGrammar)
    first.grammar.is_spent = True
    second = workshop.order(GOOD)
    finish(workshop, second)
    assert second.grammar is not first.grammar and compiler.num_compiled == 2


def test_a_grammar_that_all_have_forgotten_is_not_compiled() -> None:
    compiler = Slow()
    workshop = Workshop(compiler)  # type: ignore[arg-type]
    slow = [workshop.order(spec(f"slow{i}")) for i in range(MAX_THREADS)]
    first, second = workshop.order(spec("a")), workshop.order(spec("a"))
    other = workshop.order(spec("b"))
    workshop.forget(first)
    workshop.forget(other)
    workshop.forget(slow[0])  # it has begun
    compiler.go.set()
    finish(workshop, *slow, second)
    assert second.grammar is not None and slow[0].grammar is not None
    assert not other.is_done and compiler.num_compiled == MAX_THREADS + 1


def test_waiting_grammars_of_a_kind_are_compiled_in_the_order_they_came() -> None:
    started: list[str] = []
    compiler = Slow()

    class Noting:
        def compile(self, spec: GrammarSpec) -> Grammar:
            started.append(spec.source)
            return compiler.compile(spec)

    workshop = Workshop(Noting())  # type: ignore[arg-type]
    slow = [workshop.order(spec(f"slow{i}")) for i in range(MAX_THREADS)]
    jobs = [workshop.order(spec(f"a{i}")) for i in range(6)]
    workshop.forget(jobs[2])
    again = workshop.order(jobs[2].spec)
    compiler.go.set()
    finish(workshop, *slow, *jobs[:2], *jobs[3:], again)
    assert not jobs[2].is_done and again.grammar is not None
    names = ["a0", "a1", "a3", "a4", "a5", "a2"]  # two at once: neighbours may change places
    places = [started.index(name) - MAX_THREADS for name in names]
    assert all(abs(place - i) <= 1 for i, place in enumerate(places))


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


def test_the_cache_counts_what_grammars_have_become() -> None:
    used, other = compiled(regex="a*"), compiled(json={"type": "string"})
    cache = GrammarCache(max_bytes=used.num_bytes + 2 * other.num_bytes)
    cache.put(spec("used"), used)
    cache.put(spec("a"), other)
    assert len(cache) == 2
    state = used.new_state()
    for _ in range(100):
        assert state.accept(ord("a"))
    cache.put(spec("b"), other)
    assert cache.get(spec("used")) is None and len(cache) == 2


class Counted:
    """A grammar that counts how often its size is asked for."""

    is_spent = False
    num_asked = 0

    @property
    def num_bytes(self) -> int:
        self.num_asked += 1
        return 1


def test_the_cache_measures_few_of_many_grammars_for_a_new_one() -> None:
    grammar: Any = Counted()
    cache = GrammarCache(max_bytes=3 * NUM_MEASURED)
    for i in range(4 * NUM_MEASURED):
        before = grammar.num_asked
        cache.put(spec(str(i)), grammar)
        assert grammar.num_asked - before <= NUM_MEASURED
    assert len(cache) == 3 * NUM_MEASURED


def test_the_cache_forgets_the_size_of_a_grammar_that_is_spent() -> None:
    spent, other = compiled(regex="a*"), compiled(regex="a")
    assert isinstance(spent, LLGrammar)
    cache = GrammarCache(max_bytes=spent.num_bytes + other.num_bytes)
    cache.put(spec("a"), other)
    cache.put(spec("spent"), spent)
    spent.is_spent = True
    assert cache.get(spec("spent")) is None
    cache.put(spec("b"), other)
    assert cache.get(spec("a")) is other and len(cache) == 2


def test_the_canary_tells_what_is_wrong_and_survives_what_takes_too_long() -> None:
    canary = Canary(limit_s=1.0)
    canary.try_out(GOOD)
    with pytest.raises(ValueError, match="unclosed group"):
        canary.try_out(spec("(a"))
    with pytest.raises(TooSlow, match=r"json grammar takes more than 1 s to compile"):
        canary.try_out(to_grammar_spec({"json": EXPLODING}))
    canary.try_out(GOOD)
    time.sleep(1.1)  # no alarm is left of what was in time
    canary.try_out(GOOD)
    canary.close()
    with pytest.raises(RuntimeError, match="has been closed"):
        canary.try_out(GOOD)


def test_what_a_vocabulary_cannot_write_is_found_where_its_size_matters() -> None:
    """Compiling for xgrammar takes the longer the more tokens there are."""
    few = TokenTable(tokens=[b"a", b"b", b""], end_token_ids=(2,))
    verifier = GrammarVerifier(lambda: few)
    verifier.verify(to_grammar_spec({"grammar": 'root ::= "a" root | "b"'}))
    with pytest.raises(ValueError, match=r"no text at all.*the model's vocabulary lacks"):
        verifier.verify(to_grammar_spec({"grammar": 'root ::= "z"'}))
    verifier.close()


@pytest.mark.parametrize(
    ("constraint", "message"),
    [
        ({"json": {"$ref": "#"}}, "the reference '#' within # leads only back to itself"),
        ({"grammar": "start: a\na: start"}, "the lark grammar allows no text at all"),
        ({"grammar": "root ::= x\nx ::= root"}, "the ebnf grammar allows no text at all"),
        ({"grammar": 'root ::= "a" x\nx ::= x'}, "comes to a place where no token may follow"),
    ],
)
def test_a_grammar_that_leads_nowhere_is_refused(constraint: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        try_out(GrammarCompiler(lambda: BYTES), to_grammar_spec(constraint))


def test_a_grammar_of_the_empty_text_or_of_endless_ones_is_none_of_these() -> None:
    compiler = GrammarCompiler(lambda: BYTES)
    for text in ('start: ""', 'root ::= ""', 'root ::= "a" root', 'start: "a" start'):
        try_out(compiler, to_grammar_spec({"grammar": text}))


def test_what_may_be_slow_is_tried_apart() -> None:
    assert is_slow(GOOD) and is_slow(to_grammar_spec({"json": EXPLODING}))
    assert is_slow(to_grammar_spec({"grammar": 'root ::= "a"'}))
    assert not is_slow(to_grammar_spec({"choice": ["a"]}))


USER = {"type": "object", "properties": {"name": {"type": "string"}}}


@pytest.mark.parametrize(
    ("schema", "wanted"),
    [
        (USER, False),
        ({"$ref": "#/$defs/user", "description": "who", "$defs": {"user": USER}}, False),
        ({"title": "User", "x-a": 1, "anyOf": [USER, {"type": "null"}], "default": None}, False),
        ({"allOf": [{"$ref": "#/$defs/user"}], "title": "a", "$defs": {"user": USER}}, False),
        ({"oneOf": [USER, {"const": 1}], "discriminator": {"propertyName": "kind"}}, False),
        ({"type": "string", "enum": ["pattern", "allOf"]}, False),
        ({"type": "string", "format": "date-time", "maxLength": 30}, False),
        ({"items": {"$ref": "#/$defs/user", "required": ["a"]}, "$defs": {"user": USER}}, True),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"type": "string", "anyOf": [USER]}}}, True),
        ({"$defs": {"a": {"type": "string", "anyOf": [{"minLength": 1}]}}}, False),
        ({"properties": {"a": {"anyOf": [USER], "oneOf": [USER]}}}, True),
        ({"allOf": [USER, USER]}, True),
        ({"properties": {"a": {"type": "string", "pattern": "^a"}}}, True),
        ({"type": "object", "propertyNames": {"pattern": "^a"}}, True),
        ({"type": "object", "propertyNames": {"type": "string"}}, False),
    ],
)
def test_a_schema_may_be_slow_where_several_must_hold_together(schema: Any, wanted: bool) -> None:
    assert is_slow(to_grammar_spec({"json": schema})) is wanted
    content = {"type": "json_schema", "json_schema": schema}
    tag = {"type": "structural_tag", "format": content}
    assert is_slow(to_grammar_spec({"structural_tag": tag})) is wanted


def test_what_looks_quick_and_is_slow_holds_up_others_for_a_moment() -> None:
    """It compiles at once, and can be read in so many ways that each token takes long."""
    lists = [{"type": "array", "items": {"$ref": "#/$defs/d"}} for _ in range(1500)]
    schema = {"$ref": "#/$defs/d", "$defs": {"d": {"anyOf": lists}}}
    ambiguous, quick = to_grammar_spec({"json": schema}), to_grammar_spec({"json": USER})
    assert not is_slow(ambiguous)
    verifier = GrammarVerifier(limit_s=1.0)
    verifier.verify(to_grammar_spec({"json_object": True}))  # it has started
    first = verifier._verdict(ambiguous, is_patient=True)
    started = time.monotonic()
    verifier.verify(quick)
    assert time.monotonic() - started < 5 and not first.done()
    assert "takes more than 1 s to compile or to follow" in str(first.result(20))
    verifier.close()


def test_what_ends_the_library_is_named() -> None:
    class Panics(BaseException):
        """As the library's own."""

    def compile(spec: GrammarSpec) -> Grammar:
        raise Panics("broken")

    compiler = GrammarCompiler(lambda: BYTES)
    compiler.compile = compile  # type: ignore[method-assign]
    child = _Child(compiler)
    for _ in range(2):
        fate = child.try_out(GOOD, limit_s=5.0)
        assert fate.error == "the regex grammar cannot be used: Panics: broken"
    assert child.end() == 0


def test_a_grammar_that_ends_its_process_does_not_end_the_next_one() -> None:
    def compile(spec: GrammarSpec) -> Grammar:
        if spec.source == "deadly":
            os._exit(1)
        return compiled(regex=spec.source)

    compiler = GrammarCompiler(lambda: TABLE)
    compiler.compile = compile  # type: ignore[method-assign]
    child = _Child(compiler)
    fates = [child.try_out(spec(name), 5.0) for name in ("a", "deadly", "c", "(a")]
    assert child.end() == 0
    assert [fate.has_died for fate in fates] == [False, True, False, False]
    assert "unclosed group" in str(fates[-1].error)


def test_the_verifier_remembers_and_forgets_what_was_not_asked_for_longest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(verify, "MAX_KNOWN", 2)
    tried: list[GrammarSpec] = []
    monkeypatch.setattr(Canary, "try_out", lambda canary, spec: tried.append(spec))
    verifier = GrammarVerifier()
    one, two, three = (to_grammar_spec({"choice": [name]}) for name in "abc")
    for asked in (one, one, two, one, three, one, two):
        verifier.verify(asked)
    assert tried == [one, two, three, two]
    verifier.close()


def test_the_verifier_says_what_is_wrong_each_time() -> None:
    verifier = GrammarVerifier()
    wrong = to_grammar_spec({"json": {"type": "integer", "minimum": 2, "maximum": 1}})
    for _ in range(2):
        with pytest.raises(ValueError, match="Unsatisfiable"):
            verifier.verify(wrong)
    verifier.verify(to_grammar_spec({"json_object": True}))
    verifier.close()


async def test_slow_grammars_hold_up_neither_quick_nor_known_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And equal ones are tried once, and more than a number are refused at once."""
    held, tried = threading.Event(), []

    def try_slowly(canary: Canary, spec: GrammarSpec) -> None:
        if spec.kind == "regex":
            tried.append(spec)
            held.wait(20)

    monkeypatch.setattr(Canary, "try_out", try_slowly)
    verifier = GrammarVerifier(max_waiting=2)
    slow = [asyncio.ensure_future(verifier.verify_beside(spec("b"))) for _ in range(5)]
    while not tried:
        await asyncio.sleep(0.001)
    slow += [asyncio.ensure_future(verifier.verify_beside(spec(name))) for name in "cde"]
    done, _ = await asyncio.wait(slow, return_when=asyncio.FIRST_COMPLETED)
    assert [type(one.exception()) for one in done] == [TooManyGrammars] and slow[-1] in done
    for _ in range(2):
        await verifier.verify_beside(to_grammar_spec({"choice": ["quick"]}))
    slow[0].cancel()  # the others go on waiting for the same one
    held.set()
    await asyncio.gather(*slow[1:-1])
    assert tried == [spec("b"), spec("c"), spec("d")]
    verifier.close()


async def test_what_needs_more_than_a_moment_waits_behind_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held, tried = threading.Event(), []

    def try_out(canary: Canary, spec: GrammarSpec) -> None:
        tried.append((spec.source, canary._limit_s))
        if spec.source.startswith("slow") and canary._limit_s < 5:
            raise TooSlow("a moment is not enough")
        if spec.source.startswith("slow"):
            held.wait(20)
        if spec.source == "slower":
            raise TooSlow("it takes more than 5 s")

    monkeypatch.setattr(Canary, "try_out", try_out)
    verifier = GrammarVerifier(max_waiting=2)
    slow = []
    for name, last in (("slow", 5.0), ("slower", verify.MOMENT_S), ("slow3", verify.MOMENT_S)):
        slow.append(asyncio.ensure_future(verifier.verify_beside(spec(name))))
        while (name, last) not in tried:
            await asyncio.sleep(0.001)
    with pytest.raises(TooManyGrammars):
        await verifier.verify_beside(spec("slow4"))
    await verifier.verify_beside(spec("fine"))
    await verifier.verify_beside(GrammarSpec(kind="ebnf", source="fine too"))
    held.set()
    await asyncio.gather(slow[0], slow[2])
    with pytest.raises(ValueError, match="it takes more than 5 s"):
        await slow[1]
    assert tried.count(("fine", verify.MOMENT_S)) == 1
    verifier.close()


AMBIGUOUS = 'root ::= s\ns ::= s s | s s s | [a-z] | [a-z] [a-z] | ""\n'


def test_an_ambiguous_grammar_that_compiles_at_once_is_found_too_slow_to_follow() -> None:
    canary = Canary(limit_s=1.0)
    with pytest.raises(ValueError, match="more than 1 s to compile or to follow"):
        canary.try_out(GrammarSpec(kind="ebnf", source=AMBIGUOUS))
    canary.close()


def test_a_grammar_that_no_state_can_follow_is_found_before_a_request_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backend_llguidance, "MAX_ITEMS_IN_ROW", 2000)
    wide = {f"p{i}": {"type": "integer"} for i in range(900)}
    with pytest.raises(ValueError, match="too complex to follow: Current row has"):
        try_out(
            GrammarCompiler(lambda: BYTES),
            to_grammar_spec({"json": {"type": "object", "properties": wide}}),
        )


def test_a_package_that_is_missing_is_named_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    spec = GrammarSpec(kind="regex", source="a+")
    with pytest.raises(ValueError, match=r"'llguidance'.*pip install 'quire\[structured\]'"):
        GrammarVerifier().verify(spec)


def test_a_warm_up_loads_the_vocabulary_before_the_first_grammar() -> None:
    num_loaded = 0

    def load() -> TokenTable:
        nonlocal num_loaded
        num_loaded += 1
        return BYTES

    compiler = GrammarCompiler(load)
    Workshop(compiler).warm_up()
    assert num_loaded == 1
    compiler.compile(GOOD)
    assert num_loaded == 1


def test_a_warm_up_leaves_it_to_the_first_grammar_to_say_why_there_is_none() -> None:
    def load() -> TokenTable:
        raise ValueError("there is no tokenizer")

    compiler = GrammarCompiler(load)
    compiler.warm_up()
    with pytest.raises(ValueError, match="no tokenizer"):
        compiler.compile(GOOD)


def test_without_its_package_a_warm_up_loads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def load() -> TokenTable:
        raise AssertionError("nobody needs it")

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    GrammarCompiler(load).warm_up()
