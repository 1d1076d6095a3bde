"""The asyncio engine, with a core that repeats the prompt, in a thread and in a process."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from quire.engine import output_router
from quire.engine.async_engine import AsyncLLM, AsyncLLMEngine
from quire.engine.messages import STATS
from quire.engine.output_processor import ProcessedStep
from quire.errors import EngineDeadError
from quire.outputs import RequestOutput
from quire.sampling_params import (
    BeamSearchParams,
    RequestOutputKind,
    SamplingParams,
    StructuredOutputsParams,
)
from quire.step_output import CompletionDelta
from quire.structured_outputs.verify import GrammarVerifier, TooManyGrammars
from tests.fakes.byte_tokenizer import VOCAB_SIZE, save_byte_tokenizer
from tests.fakes.configs import fake_config
from tests.fakes.fake_core import BUILD_FAKE_CORE, FAIL_ALONE, FAIL_STEP
from tests.fakes.waiting import DEADLINE_S, until, wait_until

ENDLESS = SamplingParams(max_tokens=None, output_kind=RequestOutputKind.DELTA)


@pytest.fixture(params=["thread", "process"])
def engine(request: pytest.FixtureRequest) -> Iterator[AsyncLLM]:
    made = AsyncLLM(
        fake_config(max_model_len=10**9),
        multiprocess_mode=request.param == "process",
        build=BUILD_FAKE_CORE,
    )
    yield made
    made.shutdown()


async def collect(
    engine: AsyncLLM,
    request_id: str,
    prompt: object,
    params: SamplingParams | BeamSearchParams,
) -> list[RequestOutput]:
    return [output async for output in engine.generate(prompt, params, request_id)]


async def idle(engine: AsyncLLM) -> bool:
    return (await engine.stats()).num_running == 0 and engine.get_num_unfinished_requests() == 0


async def test_many_requests_at_once_get_their_own_tokens(engine: AsyncLLM) -> None:
    params = SamplingParams(max_tokens=5)
    runs = [collect(engine, str(i), [10 + i, 20 + i], params) for i in range(20)]
    for i, outputs in enumerate(await asyncio.gather(*runs)):
        assert outputs[-1].finished
        tokens = [10 + i, 20 + i] * 3
        assert list(outputs[-1].outputs[0].token_ids) == tokens[:5]


async def test_older_order_and_default_parameters(engine: AsyncLLM) -> None:
    params = SamplingParams(max_tokens=3)
    older = [output async for output in engine.generate(None, params, "a", [5, 6], None)]
    assert list(older[-1].outputs[0].token_ids) == [5, 6, 5]
    default = [output async for output in engine.generate([7], None, "b")]
    assert list(default[-1].outputs[0].token_ids) == [7] * 16
    collector = await engine.add_request("c", None, params, [8], None, lora_request=None)
    while not (output := await collector.get()).finished:
        pass
    assert list(output.outputs[0].token_ids) == [8, 8, 8]


async def test_deltas_that_were_not_read_are_joined(engine: AsyncLLM) -> None:
    params = SamplingParams(max_tokens=50, output_kind=RequestOutputKind.DELTA)
    slow = engine.generate([5, 6], params, "slow")
    first = await anext(slow)
    await collect(engine, "fast", [7], SamplingParams(max_tokens=200))
    rest = [output async for output in slow]
    tokens = [token for output in [first, *rest] for token in output.outputs[0].token_ids]
    assert tokens == [5, 6] * 25
    assert len(rest) < 49  # it did not have to read each piece, nor did "fast" wait for it


async def test_what_a_busy_loop_misses_is_made_together(
    engine: AsyncLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs, sizes = engine.front.outputs, []
    process = outputs.process

    def noted(deltas: list[CompletionDelta]) -> ProcessedStep:
        sizes.append(len(deltas))
        return process(deltas)

    monkeypatch.setattr(output_router, "_LONGEST_WAIT_S", DEADLINE_S)
    params = SamplingParams(max_tokens=1000, output_kind=RequestOutputKind.DELTA)
    stream = engine.generate([5, 6], params, "a")
    pieces = [await anext(stream)]
    monkeypatch.setattr(outputs, "process", noted)
    wait_until(lambda: engine._client.ask(STATS).num_running == 0)  # holds up the loop
    assert len(sizes) <= 1  # what was under way
    pieces += [piece async for piece in stream]
    assert [token for one in pieces for token in one.outputs[0].token_ids] == [5, 6] * 500


async def test_cumulative_outputs_that_were_not_read_are_replaced(engine: AsyncLLM) -> None:
    slow = engine.generate([5, 6], SamplingParams(max_tokens=50), "slow")
    outputs = [await anext(slow)]
    await collect(engine, "fast", [7], SamplingParams(max_tokens=200))
    outputs += [output async for output in slow]
    assert list(outputs[-1].outputs[0].token_ids) == [5, 6] * 25
    assert len(outputs) <= 2


async def test_cancelled_consumer_aborts(engine: AsyncLLM) -> None:
    task = asyncio.create_task(collect(engine, "a", [5], ENDLESS))
    await until(lambda: running(engine, 1))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: idle(engine))


async def running(engine: AsyncLLM, count: int) -> bool:
    return (await engine.stats()).num_running == count


async def test_closed_iterator_aborts(engine: AsyncLLM) -> None:
    outputs = engine.generate([5], ENDLESS, "a")
    await anext(outputs)
    await outputs.aclose()
    await until(lambda: idle(engine))


async def test_dropped_iterator_aborts(engine: AsyncLLM) -> None:
    async for _ in engine.generate([5], ENDLESS, "a"):
        break
    gc.collect()
    await until(lambda: idle(engine))


def test_requests_of_a_closed_event_loop_are_aborted(engine: AsyncLLM) -> None:
    asyncio.run(engine.add_request("a", [5], ENDLESS))
    wait_until(lambda: engine._client.ask(STATS).num_running == 0)
    assert engine.get_num_unfinished_requests() == 0
    assert asyncio.run(collect(engine, "a", [5], SamplingParams(max_tokens=3)))[-1].finished


async def test_abort_gives_the_consumer_a_last_output(engine: AsyncLLM) -> None:
    task = asyncio.create_task(collect(engine, "a", [5], ENDLESS))
    await until(lambda: running(engine, 1))
    await engine.abort("a")
    await engine.abort(["never added"])
    last = (await task)[-1]
    assert last.finished
    assert last.outputs[0].finish_reason == "abort"
    assert await idle(engine)


async def test_no_output_overtakes_another_on_the_way_to_its_consumer(engine: AsyncLLM) -> None:
    is_ordered = []

    class Loop:
        def call_soon_threadsafe(self, *call: object) -> None:
            is_ordered.append(engine._router._lock.locked())
            loop.call_soon_threadsafe(*call)

    loop = asyncio.get_running_loop()
    collector = await engine.add_request("a", [5], ENDLESS)
    collector.loop = Loop()  # type: ignore[assignment]
    await collector.get()
    await engine.abort("a")
    while not (await collector.get()).finished:
        pass
    assert is_ordered and all(is_ordered)


async def test_id_in_use_is_refused(engine: AsyncLLM) -> None:
    outputs = engine.generate([5], ENDLESS, "a")
    await anext(outputs)
    with pytest.raises(ValueError, match="'a' is in use"):
        await collect(engine, "a", [6], SamplingParams())
    await outputs.aclose()
    assert (await collect(engine, "a", [6], SamplingParams(max_tokens=1)))[-1].finished


async def test_closing_an_ended_iterator_spares_a_new_request_with_its_id(
    engine: AsyncLLM,
) -> None:
    old = engine.generate([5], ENDLESS, "a")
    await anext(old)
    await engine.abort("a")  # its last output is never read
    new = engine.generate([6, 7], SamplingParams(max_tokens=500), "a")
    first = await anext(new)
    await old.aclose()
    last = [first, *[output async for output in new]][-1].outputs[0]
    assert (last.finish_reason, list(last.token_ids)) == ("length", [6, 7] * 250)


async def test_id_may_be_used_again_as_soon_as_its_request_was_aborted(engine: AsyncLLM) -> None:
    for token in range(5, 25):
        outputs = engine.generate([token], ENDLESS, "a")
        assert set((await anext(outputs)).outputs[0].token_ids) == {token}
        await outputs.aclose()


async def test_wrong_request_is_refused_before_it_runs(engine: AsyncLLM) -> None:
    with pytest.raises(ValueError, match="outside the vocabulary"):
        await collect(engine, "a", [10**6], SamplingParams())
    with pytest.raises(ValueError, match="lora_request"):
        await anext(engine.generate([5], SamplingParams(), "a", lora_request=object()))
    assert await idle(engine)


async def test_failing_request_ends_alone(engine: AsyncLLM) -> None:
    bad, good = await asyncio.gather(
        collect(engine, "bad", [FAIL_ALONE], SamplingParams()),
        collect(engine, "good", [5], SamplingParams(max_tokens=3)),
    )
    assert bad[-1].outputs[0].error == "this request failed"
    assert good[-1].outputs[0].finish_reason == "length"


async def test_dead_engine_fails_every_consumer_with_the_cause(engine: AsyncLLM) -> None:
    assert engine.is_running and not engine.errored
    await engine.check_health()
    other = asyncio.create_task(collect(engine, "other", [5], ENDLESS))
    await until(lambda: running(engine, 1))
    with pytest.raises(EngineDeadError, match="on fire"):
        await collect(engine, "a", [FAIL_STEP], SamplingParams())
    with pytest.raises(EngineDeadError, match="on fire"):
        await other
    with pytest.raises(EngineDeadError, match="on fire"):
        await collect(engine, "late", [5], SamplingParams())
    with pytest.raises(EngineDeadError, match="on fire"):
        await engine.check_health()
    assert engine.errored and not engine.is_running
    assert "on fire" in str(engine.dead_error)


async def test_shutdown_fails_what_runs(engine: AsyncLLM) -> None:
    task = asyncio.create_task(collect(engine, "a", [5], ENDLESS))
    await until(lambda: running(engine, 1))
    await asyncio.to_thread(engine.shutdown)
    with pytest.raises(EngineDeadError, match="closed"):
        await task
    assert not engine.is_running


async def test_a_closed_engine_refuses_grammars_as_it_refuses_the_rest(
    byte_tokenizer: Path,
) -> None:
    config = fake_config(folder=byte_tokenizer, skip_tokenizer_init=False, vocab_size=VOCAB_SIZE)
    engine = AsyncLLM(config, multiprocess_mode=False, build=BUILD_FAKE_CORE)
    engine.shutdown()
    choice = SamplingParams(structured_outputs=StructuredOutputsParams(choice=["a", "b"]))
    for params in (SamplingParams(), choice):
        with pytest.raises(EngineDeadError, match="The engine was closed; make a new one"):
            await asyncio.wait_for(collect(engine, "a", "xyz", params), 20)


CHOICE = StructuredOutputsParams(choice=["a", "b"])


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(structured_outputs=CHOICE),
        BeamSearchParams(2, 4, structured_outputs=CHOICE),
    ],
)
async def test_grammars_are_checked_beside_the_event_loop(
    byte_tokenizer: Path,
    monkeypatch: pytest.MonkeyPatch,
    params: SamplingParams | BeamSearchParams,
) -> None:
    """Only a check beside it refuses what finds no room: one that holds up the loop waits."""
    config = fake_config(folder=byte_tokenizer, skip_tokenizer_init=False, vocab_size=VOCAB_SIZE)
    engine = AsyncLLM(config, multiprocess_mode=False, build=BUILD_FAKE_CORE)
    full = GrammarVerifier(max_waiting=0)
    monkeypatch.setattr(engine.front.inputs, "_verifier", full)
    try:
        with pytest.raises(TooManyGrammars):
            await asyncio.wait_for(collect(engine, "a", "xyz", params), 20)
    finally:
        full.close()
        engine.shutdown()


def test_engine_serves_several_event_loops(engine: AsyncLLM) -> None:
    params = SamplingParams(max_tokens=30)
    finished: dict[str, bool] = {}

    def serve(request_id: str) -> None:
        outputs = asyncio.run(collect(engine, request_id, [5], params))
        finished[request_id] = outputs[-1].finished

    threads = [threading.Thread(target=serve, args=(str(i),)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    serve("after")
    assert finished == {"0": True, "1": True, "2": True, "after": True}


async def test_older_names(tmp_path: Path) -> None:
    save_byte_tokenizer(tmp_path)
    config = fake_config(folder=tmp_path, skip_tokenizer_init=False, vocab_size=VOCAB_SIZE)
    engine = AsyncLLMEngine(config, multiprocess_mode=False, build=BUILD_FAKE_CORE)
    assert len(await engine.get_tokenizer()) == VOCAB_SIZE
    assert engine.get_tokenizer().encode("a") == engine.tokenizer.encode("a")
    assert (await engine.get_model_config()).max_model_len == 64
    assert engine.engine.model_config.max_model_len == 64
    outputs = [
        output
        async for output in engine.generate(
            None, SamplingParams(max_tokens=3, stop="c"), "a", prompt_token_ids=[5, 6]
        )
    ]
    assert len(outputs[-1].outputs[0].token_ids) == 3
    (text,) = [o.outputs[0].text for o in await collect(engine, "b", "abcd", final_with_stop())]
    assert text == "ab"
    engine.shutdown()


def final_with_stop() -> SamplingParams:
    return SamplingParams(max_tokens=9, stop=["c"], output_kind=RequestOutputKind.FINAL_ONLY)


def test_threads_end_when_the_engine_is_dropped() -> None:
    before = set(threading.enumerate())
    engine = AsyncLLM(fake_config(), multiprocess_mode=False, build=BUILD_FAKE_CORE)
    threads = set(threading.enumerate()) - before
    assert len(threads) == 2
    del engine
    gc.collect()
    assert not [thread for thread in threads if thread.is_alive()]


def test_a_method_that_is_not_built_says_so() -> None:
    engine = AsyncLLM(fake_config(), multiprocess_mode=False, build=BUILD_FAKE_CORE)
    with pytest.raises(AttributeError, match=r"^AsyncLLM\.pause_generation is not built yet"):
        engine.pause_generation  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(AttributeError, match=r"use .*\bAsyncLLM\.config"):
        engine.get_vllm_config  # type: ignore[attr-defined]  # noqa: B018
    assert engine.config.model.max_model_len > 0
    assert engine.vllm_config.model_config is engine.model_config
    engine.shutdown()


def test_what_is_said_of_thoughts_is_refused() -> None:
    async def run() -> None:
        engine = AsyncLLM(fake_config(), multiprocess_mode=False, build=BUILD_FAKE_CORE)
        assert not await engine.is_tracing_enabled()
        params = SamplingParams(max_tokens=1)
        asked = {"reasoning_ended": None, "reasoning_parser_kwargs": None}
        assert [one async for one in engine.generate([5], params, "a", **asked)]  # type: ignore[arg-type]
        for refused in ({"reasoning_ended": True}, {"reasoning_parser_kwargs": {"a": 1}}):
            name = next(iter(refused))
            with pytest.raises(ValueError, match=rf"^{name} cannot be used: AsyncLLM has no"):
                await anext(engine.generate([5], params, "b", **refused))  # type: ignore[arg-type]
        engine.shutdown()

    asyncio.run(run())
