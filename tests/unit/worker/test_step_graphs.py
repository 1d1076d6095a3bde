"""StepGraphs: which steps are graphs, when those are captured, and that nobody sees it."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from quire.batch import Batch
from quire.request import RowSampling
from quire.sampling.sampler import SampleKind
from quire.step import StepPlan, StepResult
from quire.structured import Constraint, to_grammar_spec
from quire.structured_outputs.compile import GrammarCompiler
from quire.structured_outputs.token_table import TokenTable
from quire.worker import step_graphs
from quire.worker.forward_graphs import DecodeShape, MixedShape
from quire.worker.graphs import NoGraphs
from quire.worker.prefix_sharing import SharedRows
from quire.worker.recorder import Replay
from quire.worker.sample_graphs import NUM_SHAPES_PER_BUCKET, SampleShape
from quire.worker.step_graphs import StepGraphs
from tests.unit.worker.counting_model import VOCAB_SIZE, CountingModel
from tests.unit.worker.plans import GREEDY, PlanWriter
from tests.unit.worker.runners import (
    BLOCK_SIZE,
    MAX_ROWS,
    MIXED_TOKENS,
    NUM_BLOCKS,
    Parts,
    run_twice,
)

RANDOM = RowSampling(temperature=0.9, top_k=8, top_p=0.9, seed=5)
PENALISED = RowSampling(temperature=0.7, presence_penalty=0.5, repetition_penalty=1.2, seed=2)
LOGPROBS = replace(GREEDY, num_logprobs=3)
BIASED = replace(GREEDY, logit_bias=((7, 50.0),))
EARLY = replace(PENALISED, min_tokens=9, stop_token_ids=(3, 5, 7), ignored_eos_ids=(2, 4))


class Recorder:
    """Remembers what was recorded, in order."""

    def __init__(self) -> None:
        self.shapes: list[Any] = []

    def __call__(self, run: Replay) -> Replay:
        assert isinstance(run, partial)
        self.shapes.append(run.args[0])
        return run_twice(run)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def writer() -> PlanWriter:
    return PlanWriter(num_blocks=NUM_BLOCKS, block_size=BLOCK_SIZE, num_groups=2)


def graphs_of(parts: Parts) -> StepGraphs:
    return parts.graphs()


def plan(num_scheduled: list[int], samples: list[bool]) -> StepPlan:
    rows = np.arange(len(num_scheduled), dtype=np.int32)
    return StepPlan(
        step_id=0,
        rows=rows,
        num_computed=rows + 4,
        num_scheduled=np.array(num_scheduled, dtype=np.int32),
        samples=np.array(samples),
        epochs=rows,
    )


def test_only_steps_of_one_sampled_token_a_row_are_decode_steps() -> None:
    assert plan([1, 1], [True, True]).is_decode
    assert not plan([1, 2], [True, True]).is_decode
    assert not plan([1, 1], [True, False]).is_decode


def test_without_graphs_no_plan_is_taken() -> None:
    assert NoGraphs().run(plan([1], [True])) is None


def test_the_largest_are_captured_first(recorder: Recorder) -> None:
    graphs_of(Parts(record=recorder)).capture_at_start()
    forwards = [shape for shape in recorder.shapes if not isinstance(shape, SampleShape)]
    assert [shape.num_tokens for shape in forwards] == [16, 6, 4, 2, 1]
    assert forwards[0] == MixedShape(16)
    samples = recorder.shapes[len(forwards) :]
    assert samples == [SampleShape(SampleKind.GREEDY, size) for size in (6, 4, 2, 1)]


def test_what_is_missing_is_captured_once_and_a_kind_at_its_largest_first(
    recorder: Recorder, writer: PlanWriter
) -> None:
    runner = Parts(record=recorder, has_graphs=True).runner()
    writer.join(0, [1, 2], RANDOM)
    for _ in range(4):
        runner.execute(writer.plan({0: 1}))
    assert recorder.shapes == [
        MixedShape(4),  # the first token of the prompt, after which nobody samples
        DecodeShape(1),
        SampleShape(SampleKind.RANDOM, MAX_ROWS),
        SampleShape(SampleKind.RANDOM, 1),
    ]


def join_all(writer: PlanWriter, samplings: list[RowSampling]) -> None:
    rng = random.Random(3)
    for row, sampling in enumerate(samplings):
        prompt = [rng.randrange(90) for _ in range(rng.randint(2, 11))]
        writer.join(row, prompt, sampling)


def random_steps(samplings: list[RowSampling], num_steps: int) -> list[StepPlan]:
    """Chunks, prompts and decodes of some of the rows in every step; then all decode."""
    rng = random.Random(len(samplings))
    writer = PlanWriter(num_blocks=NUM_BLOCKS, block_size=BLOCK_SIZE, num_groups=2)
    join_all(writer, samplings)
    plans = []
    for _ in range(num_steps):
        rows = rng.sample(range(len(samplings)), rng.randint(1, len(samplings)))
        left = {row: writer.num_tokens[row] - writer.num_computed[row] for row in rows}
        plans.append(writer.plan({row: rng.randint(1, count) for row, count in left.items()}))
    for row in range(len(samplings)):
        left_over = writer.num_tokens[row] - writer.num_computed[row]
        plans.append(writer.plan({row: left_over}))
    plans += [writer.plan(dict.fromkeys(range(len(samplings)), 1)) for _ in range(3)]
    return plans


def assert_same(found: StepResult, wanted: StepResult) -> None:
    assert found.token_ids.tolist() == wanted.token_ids.tolist()
    assert set(found.logprobs) == set(wanted.logprobs)
    for row, logprobs in wanted.logprobs.items():
        assert found.logprobs[row].token_ids.tolist() == logprobs.token_ids.tolist()
        assert found.logprobs[row].ranks.tolist() == logprobs.ranks.tolist()
        np.testing.assert_allclose(found.logprobs[row].logprobs, logprobs.logprobs, atol=1e-5)


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize(
    "samplings",
    [
        [GREEDY],
        [GREEDY] * MAX_ROWS,
        [GREEDY, RANDOM, replace(RANDOM, seed=9), GREEDY],
        [PENALISED, GREEDY, RANDOM],
        [LOGPROBS, RANDOM, replace(PENALISED, num_logprobs=0), GREEDY, LOGPROBS],
        [BIASED, RANDOM, LOGPROBS, GREEDY],
        [EARLY, GREEDY, replace(EARLY, temperature=0.0, presence_penalty=0.0), RANDOM],
        [EARLY, LOGPROBS],
        [replace(GREEDY, num_prompt_logprobs=1), RANDOM, GREEDY],
    ],
    ids=[
        "one",
        "greedy",
        "random",
        "penalties",
        "logprobs",
        "bias",
        "early",
        "early, logprobs",
        "prompt logprobs",
    ],
)
def test_steps_are_those_by_operation(samplings: list[RowSampling], depth: int) -> None:
    plans = random_steps(samplings, 20)
    plain, graphs = Parts().runner(), Parts(has_graphs=True).runner()
    in_flight = []
    for step in plans:
        in_flight.append((graphs.execute(step), plain.execute(step).result()))
        if len(in_flight) == depth:
            pending, wanted = in_flight.pop(0)
            assert_same(pending.result(), wanted)
    for pending, wanted in in_flight:
        assert_same(pending.result(), wanted)


def constrained(plans: list[StepPlan], rows: set[int]) -> list[StepPlan]:
    """The plans, with a grammar for some rows: of two kinds of tokens in turn."""
    tokens = [*(bytes([byte]) for byte in range(VOCAB_SIZE - 1)), b""]
    table = TokenTable(tokens=tokens, end_token_ids=(VOCAB_SIZE - 1,))
    spec = to_grammar_spec({"regex": "([\\x01-\\x1f][!-/])*"})
    grammar = GrammarCompiler(lambda: table).compile(spec)
    constraint = Constraint(grammar=grammar)
    return [
        replace(
            plan,
            joined=[
                replace(one, constraint=constraint) if one.row in rows else one
                for one in plan.joined
            ],
        )
        for plan in plans
    ]


def test_a_bucket_has_as_many_graphs_of_sampling_as_memory_is_kept_for(
    recorder: Recorder, writer: PlanWriter
) -> None:
    runner = Parts(record=recorder, has_graphs=True).runner()
    for constrained_rows in (set[int](), {0}):
        for sampling in (GREEDY, RANDOM, PENALISED, LOGPROBS, BIASED):
            writer.join(0, [1], sampling)
            (step,) = constrained([writer.plan({0: 1})], constrained_rows)
            runner.execute(step).result()
            writer.leave(0)
    samples = [shape for shape in recorder.shapes if isinstance(shape, SampleShape)]
    assert len({shape for shape in samples if shape.num_rows == 1}) == NUM_SHAPES_PER_BUCKET


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("rows", [{0, 1, 2, 3}, {1}, {0, 4}])
@pytest.mark.parametrize("other", [GREEDY, RANDOM, PENALISED, LOGPROBS, BIASED, EARLY])
def test_constrained_steps_are_those_by_operation(
    other: RowSampling, rows: set[int], depth: int
) -> None:
    plans = constrained(random_steps([GREEDY, RANDOM, GREEDY, RANDOM, other], 20), rows)
    plain, graphs = Parts().runner(), Parts(has_graphs=True).runner()
    in_flight, tokens = [], dict[int, list[int]]()
    for step in plans:
        in_flight.append((graphs.execute(step), step, plain.execute(step).result()))
        if len(in_flight) == depth:
            pending, planned, wanted = in_flight.pop(0)
            assert_same(pending.result(), wanted)
            assert not wanted.errors
            for row, token in zip(planned.sampled_rows, wanted.token_ids, strict=True):
                tokens.setdefault(int(row), []).append(int(token))
    for row in rows:
        for i, token in enumerate(tokens[row]):
            assert (1 <= token <= 0x1F) if i % 2 == 0 else (0x21 <= token <= 0x2F)


class SearchingModel(CountingModel):
    """Finds best tokens of two rows and more without logits, which it would count."""

    def __init__(self) -> None:
        self.num_searches = 0

    def best_tokens(self, hidden: torch.Tensor) -> torch.Tensor | None:
        if len(hidden) < 2:
            return None
        self.num_searches += 1
        return super().logits(hidden).argmax(dim=1)


@pytest.mark.parametrize("rows", [set[int](), {1}])
@pytest.mark.parametrize("other", [GREEDY, RANDOM, LOGPROBS, BIASED])
def test_only_steps_of_free_greedy_rows_need_no_logits(other: RowSampling, rows: set[int]) -> None:
    plans = constrained(random_steps([GREEDY, GREEDY, other], 20), rows)
    model = SearchingModel()
    plain, graphs = Parts().runner(), Parts(model=model, has_graphs=True).runner()
    for step in plans[:-3]:
        assert_same(graphs.execute(step).result(), plain.execute(step).result())
    before = model.num_searches
    for step in plans[-3:]:  # all rows decode
        assert_same(graphs.execute(step).result(), plain.execute(step).result())
    is_free = other is GREEDY and not rows
    assert model.num_searches - before == (3 if is_free else 0)


class FailingModel(CountingModel):
    """Every third forward raises, so that captures and replays fail."""

    def __init__(self) -> None:
        self.num_forwards = 0

    def forward(self, batch: Batch) -> torch.Tensor:
        self.num_forwards += 1
        if self.num_forwards % 3 == 0:
            raise RuntimeError("no luck")
        return super().forward(batch)


def test_steps_after_one_that_failed_are_those_by_operation() -> None:
    plain = Parts().runner()
    failing = Parts(model=FailingModel(), has_graphs=True).runner()
    num_failed = 0
    for step in random_steps([GREEDY, RANDOM, GREEDY], 20):
        wanted = plain.execute(step).result()
        try:
            found = failing.execute(step).result()
        except RuntimeError:
            num_failed += 1
            again = replace(step, joined=[])
            found = failing.execute(again).result()
        assert_same(found, wanted)
    assert num_failed > 5


def test_a_capture_between_steps_touches_no_row_and_no_block_but_the_spare(
    writer: PlanWriter,
) -> None:
    parts = Parts(has_graphs=True)
    runner = parts.runner()
    join_all(writer, [GREEDY, RANDOM, PENALISED])
    prompts = dict(writer.num_tokens)
    runner.execute(writer.plan(prompts))
    tokens = parts.rows.token_ids[:MAX_ROWS].clone()
    cache = parts.kv.of_layer[0][:, 1:].clone()
    parts.graphs().capture_at_start()
    assert torch.equal(parts.rows.token_ids[:MAX_ROWS], tokens)
    assert torch.equal(parts.kv.of_layer[0][:, 1:], cache)


class LookingModel(CountingModel):
    """Remembers the batches it is given."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []

    def forward(self, batch: Batch) -> torch.Tensor:
        self.batches.append(batch)
        return super().forward(batch)


def test_steps_that_ask_more_than_a_graph_has_run_by_operation(writer: PlanWriter) -> None:
    model = LookingModel()
    runner = Parts(model=model, has_graphs=True).runner()
    writer.join(0, list(range(2 * MIXED_TOKENS[-1])))
    writer.join(1, [1, 2, 3], replace(GREEDY, num_prompt_logprobs=0))
    for counts, num_tokens in (
        ({0: MIXED_TOKENS[-1] + 1}, MIXED_TOKENS[-1] + 1),  # as it is
        ({1: 2}, 2),  # prompt log-probabilities
        ({1: 1, 0: 3}, 4),  # a bucket: no positions are left whose log-probabilities are wanted
    ):
        runner.execute(writer.plan(counts))
        assert len(model.batches[-1].input_ids) == num_tokens
    assert [batch.num_decode_rows is None for batch in model.batches] == [False, False, True, True]


def test_large_steps_of_long_contexts_run_by_operation(
    writer: PlanWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_graphs, "MOST_FOR_ALL", 4)
    monkeypatch.setattr(step_graphs, "MOST_KEYS", 5)
    model = LookingModel()
    runner = Parts(model=model, has_graphs=True).runner()
    writer.join(0, list(range(30)))
    writer.join(1, list(range(9)))
    are_graphs = []
    for counts in ({1: 8}, {0: 8}, {0: 8}, {0: 4}):  # keys of a token: 4, 4, 12, 18
        runner.execute(writer.plan(counts))
        are_graphs.append(model.batches[-1].num_decode_rows is None)
    assert are_graphs == [True, True, False, True]


class FixedSharing:
    """Rows 0 and 2 share their first block whenever both decode."""

    def apply(self, plan: StepPlan) -> None:
        pass

    def find(self, rows: np.ndarray) -> SharedRows | None:
        if not {0, 2} <= set(rows.tolist()):
            return None
        places = [rows.tolist().index(row) for row in (0, 2)]
        members = np.full(len(rows), -1, dtype=np.int32)
        members[:2] = places
        num_blocks = np.zeros(len(rows), dtype=np.int32)
        num_blocks[places] = 1
        return members, num_blocks


def test_shared_blocks_reach_the_model_in_decode_steps(
    recorder: Recorder, writer: PlanWriter
) -> None:
    model = LookingModel()
    runner = Parts(model=model, has_graphs=True, record=recorder, sharing=FixedSharing()).runner()
    join_all(writer, [GREEDY] * 3)
    runner.execute(writer.plan(dict(writer.num_tokens)))
    assert model.batches[-1].groups[0].shared is None
    runner.execute(writer.plan({1: 1, 2: 1, 0: 1}))
    shared = model.batches[-1].groups[0].shared
    assert shared is not None
    assert shared.members.tolist() == [2, 1, -1, -1]
    assert shared.num_blocks.tolist() == [0, 1, 1, 0]
    runner.execute(writer.plan({1: 1, 2: 1}))
    assert model.batches[-1].groups[0].shared is None
    assert DecodeShape(4, is_shared=True) in recorder.shapes
