"""ModelRunner: the tokens of any mix of steps are those that the model gives for the whole text."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from quire.batch import Batch
from quire.request import RowSampling
from quire.step import StepPlan, StepResult
from quire.worker.model_runner import ModelRunner
from tests.fakes.no_sync import NoSync
from tests.unit.worker.counting_model import VOCAB_SIZE, CountingModel, continuation, next_token
from tests.unit.worker.plans import GREEDY, PlanWriter
from tests.unit.worker.runners import BLOCK_SIZE, NUM_BLOCKS, Parts


def build_runner(**parts: Any) -> ModelRunner:
    return Parts(**parts).runner()


@pytest.fixture(params=[False, True], ids=["by operation", "graphs"])
def runner(request: pytest.FixtureRequest) -> ModelRunner:
    return build_runner(has_graphs=request.param)


@pytest.fixture
def writer() -> PlanWriter:
    return PlanWriter(num_blocks=NUM_BLOCKS, block_size=BLOCK_SIZE, num_groups=2)


class NoHostReads(TorchFunctionMode):
    """Refuses the ways in which a tensor's values reach the host that dispatch nothing on a CPU."""

    FORBIDDEN = frozenset({torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.cpu})

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        assert func not in self.FORBIDDEN, f"{func.__name__} waits for the device"
        return func(*args, **(kwargs or {}))


def sampled_by_row(plan: StepPlan, result: StepResult) -> dict[int, int]:
    return dict(zip(plan.rows[plan.samples].tolist(), result.token_ids.tolist(), strict=True))


def run(runner: ModelRunner, plan: StepPlan) -> dict[int, int]:
    return sampled_by_row(plan, runner.execute(plan).result())


def test_a_prompt_and_its_decodes_give_the_models_tokens(
    runner: ModelRunner, writer: PlanWriter
) -> None:
    prompt = [5, 3, 8, 1, 9, 2, 7]
    writer.join(2, prompt)
    tokens = [run(runner, writer.plan({2: 7}))[2]]
    tokens += [run(runner, writer.plan({2: 1}))[2] for _ in range(12)]
    assert tokens == continuation(prompt, 13)


def test_a_chunked_prompt_samples_once_and_the_same(
    runner: ModelRunner, writer: PlanWriter
) -> None:
    prompt = list(range(11, 0, -1))
    writer.join(0, prompt)
    assert [run(runner, writer.plan({0: count})) for count in (3, 1, 5)] == [{}, {}, {}]
    assert run(runner, writer.plan({0: 2})) == {0: next_token(prompt)}


def test_mixed_rows_come_back_in_the_order_of_the_plan(
    runner: ModelRunner, writer: PlanWriter
) -> None:
    prompts = {0: [4, 4], 1: [9, 8, 7, 6, 5, 4], 3: [1], 4: [2, 7, 1, 8]}
    for row in (0, 3):
        writer.join(row, prompts[row])
    first = run(runner, writer.plan({0: 2, 3: 1}))
    writer.join(1, prompts[1])
    writer.join(4, prompts[4])
    plan = writer.plan({1: 4, 3: 1, 4: 4, 0: 1})  # a chunk, a decode, a prompt, a decode
    mixed = run(runner, plan)
    assert list(mixed) == [3, 4, 0]
    assert mixed[4] == next_token(prompts[4])
    for row in (0, 3):
        assert [first[row], mixed[row]] == continuation(prompts[row], 2)
    assert run(runner, writer.plan({1: 2})) == {1: next_token(prompts[1])}


def test_a_row_and_its_blocks_can_pass_to_another_completion_in_one_plan(
    runner: ModelRunner, writer: PlanWriter
) -> None:
    writer.join(1, [50] * 20)
    run(runner, writer.plan({1: 20}))
    writer.leave(1)
    writer.join(1, [6, 2, 6])
    tokens = [run(runner, writer.plan({1: 3}))[1], run(runner, writer.plan({1: 1}))[1]]
    assert tokens == continuation([6, 2, 6], 2)


def test_a_row_continues_from_copied_blocks(runner: ModelRunner, writer: PlanWriter) -> None:
    prompt = [3, 1, 4, 1, 5, 9]
    writer.join(0, prompt)
    run(runner, writer.plan({0: 6}))
    tables = writer.copied_tables(0)
    writer.join(5, [*prompt, 77], tables=tables, num_computed=6)
    both = run(runner, writer.plan({0: 1, 5: 1}))
    assert both == {0: continuation(prompt, 2)[1], 5: next_token([*prompt, 77])}


def test_a_row_continues_from_blocks_that_another_computes_in_the_same_step(
    runner: ModelRunner, writer: PlanWriter
) -> None:
    prompt = [7, 7, 2, 2, 9, 1]
    writer.join(0, prompt)
    shared = [entries[:1] for entries in writer.tables[0]]
    writer.join(1, prompt, tables=shared, num_computed=BLOCK_SIZE)
    assert run(runner, writer.plan({0: 6, 1: 2})) == dict.fromkeys((0, 1), next_token(prompt))


def test_a_preempted_row_recomputes_its_own_tokens(runner: ModelRunner, writer: PlanWriter) -> None:
    prompt = [8, 6, 4]
    writer.join(0, prompt)
    known = [*prompt, run(runner, writer.plan({0: 3}))[0], run(runner, writer.plan({0: 1}))[0]]
    writer.leave(0)
    run(runner, writer.plan({}))
    writer.join(3, known, num_prompt_tokens=3)
    assert run(runner, writer.plan({3: 5}))[3] == continuation(prompt, 3)[-1]


def test_a_token_that_the_host_chose_is_what_the_next_step_reads(
    runner: ModelRunner, writer: PlanWriter
) -> None:
    writer.join(0, [2, 3])
    run(runner, writer.plan({0: 2}))
    writer.write_token(0, 2, 55)
    assert run(runner, writer.plan({0: 1})) == {0: next_token([2, 3, 55])}


def test_a_plan_without_rows_makes_its_changes_and_samples_nothing(
    runner: ModelRunner, writer: PlanWriter
) -> None:
    writer.join(0, [2, 3])
    run(runner, writer.plan({0: 2}))
    writer.leave(0)
    result = runner.execute(writer.plan({})).result()
    assert result.token_ids.tolist() == []
    assert (result.logprobs, result.prompt_logprobs, result.errors) == ({}, {}, {})


@pytest.mark.parametrize("depth", [2, 3])
def test_steps_enqueued_before_results_are_read_give_the_same_tokens(
    depth: int, runner: ModelRunner, writer: PlanWriter
) -> None:
    prompts = {0: [1, 2, 3], 1: [4, 5, 6, 7, 8], 2: [9]}
    for row, prompt in prompts.items():
        writer.join(row, prompt)
    plans = [writer.plan({0: 3, 1: 2, 2: 1}), writer.plan({0: 1, 1: 3, 2: 1})]
    plans += [writer.plan({2: 1, 1: 1, 0: 1}) for _ in range(8)]
    tokens: dict[int, list[int]] = {0: [], 1: [], 2: []}
    in_flight = []
    for plan in plans:
        in_flight.append((plan, runner.execute(plan)))
        if len(in_flight) == depth:
            read, pending = in_flight.pop(0)
            for row, token in sampled_by_row(read, pending.result()).items():
                tokens[row].append(token)
    for read, pending in in_flight:
        for row, token in sampled_by_row(read, pending.result()).items():
            tokens[row].append(token)
    assert tokens == {
        row: continuation(prompt, 9 if row == 1 else 10) for row, prompt in prompts.items()
    }


def test_logits_in_several_passes_give_the_same_tokens_and_logprobs(writer: PlanWriter) -> None:
    asks = replace(GREEDY, num_logprobs=2)
    for row in range(5):
        writer.join(row, [row + 1] * (row + 2), asks if row % 2 else GREEDY)
    plan = writer.plan({row: row + 2 for row in range(5)})
    whole = build_runner().execute(plan).result()
    parts = build_runner(rows_per_pass=2).execute(plan).result()
    assert parts.token_ids.tolist() == whole.token_ids.tolist()
    assert set(parts.logprobs) == set(whole.logprobs) == {1, 3}
    for row in (1, 3):
        np.testing.assert_array_equal(parts.logprobs[row].token_ids, whole.logprobs[row].token_ids)
        np.testing.assert_array_equal(parts.logprobs[row].logprobs, whole.logprobs[row].logprobs)


def expected_logprobs(token_ids: list[int]) -> np.ndarray:
    """[V] log-probabilities after ``token_ids``."""
    distance = np.abs(np.arange(VOCAB_SIZE) - next_token(token_ids)).astype(np.float64)
    return -distance - np.log(np.exp(-distance).sum())


def test_sampled_logprobs_are_those_of_the_rows_that_asked(
    runner: ModelRunner, writer: PlanWriter
) -> None:
    prompts = {0: [1, 2, 3], 1: [30, 20], 2: [7, 7, 7, 7]}
    writer.join(0, prompts[0], replace(GREEDY, num_logprobs=0))
    writer.join(1, prompts[1])
    writer.join(2, prompts[2], replace(GREEDY, num_logprobs=3))
    result = runner.execute(writer.plan({2: 4, 1: 2, 0: 3})).result()
    assert set(result.logprobs) == {0, 2}
    assert result.logprobs[0].token_ids.shape == (1, 1)
    assert result.logprobs[2].token_ids.shape == (1, 4)
    for row, found in result.logprobs.items():
        expected = expected_logprobs(prompts[row])
        assert found.token_ids[0, 0] == next_token(prompts[row])
        assert found.ranks.tolist() == [1]
        np.testing.assert_allclose(found.logprobs[0], expected[found.token_ids[0]], atol=1e-5)


@pytest.mark.parametrize("chunks", [(9,), (4, 5), (1, 7, 1), (8, 1)])
@pytest.mark.parametrize("positions_per_pass", [3, 100])
def test_prompt_logprobs_are_those_of_every_prompt_token_after_the_first(
    chunks: tuple[int, ...], positions_per_pass: int, writer: PlanWriter
) -> None:
    runner = build_runner(positions_per_pass=positions_per_pass)
    prompt = [12, 60, 3, 44, 8, 91, 2, 30, 5]
    writer.join(0, [1, 2])  # a neighbour that does not ask
    writer.join(4, prompt, replace(GREEDY, num_prompt_logprobs=2))
    results = [runner.execute(writer.plan({0: 2, 4: chunks[0]})).result()]
    results += [runner.execute(writer.plan({0: 1, 4: count})).result() for count in chunks[1:]]
    results.append(runner.execute(writer.plan({0: 1, 4: 1})).result())  # a decode has none
    assert results[-1].prompt_logprobs == {}
    found = [result.prompt_logprobs[4] for result in results if result.prompt_logprobs]
    token_ids = np.concatenate([chunk.token_ids for chunk in found])
    logprobs = np.concatenate([chunk.logprobs for chunk in found])
    ranks = np.concatenate([chunk.ranks for chunk in found])
    assert token_ids.shape == (len(prompt) - 1, 3)
    assert token_ids[:, 0].tolist() == prompt[1:]
    for place, target in enumerate(prompt[1:]):
        expected = expected_logprobs(prompt[: place + 1])
        np.testing.assert_allclose(logprobs[place], expected[token_ids[place]], atol=1e-5)
        assert ranks[place] == 1 + np.count_nonzero(expected > expected[target] + 1e-9)


def test_a_row_whose_own_processor_fails_fails_alone(
    runner: ModelRunner, writer: PlanWriter
) -> None:
    def broken(output_token_ids: list[int], logits: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no such rule")

    writer.join(0, [1, 2], RowSampling(temperature=0.0, logits_processors=(broken,)))
    writer.join(1, [3, 4])
    plan = writer.plan({0: 2, 1: 2})
    result = runner.execute(plan).result()
    assert list(result.errors) == [0]
    assert "no such rule" in result.errors[0]
    assert sampled_by_row(plan, result)[1] == next_token([3, 4])


class FragileModel(CountingModel):
    """Cannot compute the token 13."""

    def forward(self, batch: Batch) -> torch.Tensor:
        if 13 in batch.input_ids.tolist():
            raise RuntimeError("no kernel for 13")
        return super().forward(batch)


def test_rows_of_a_step_that_failed_can_leave_and_be_tried_again(writer: PlanWriter) -> None:
    runner = build_runner(model=FragileModel())
    writer.join(0, [1, 2])
    writer.join(1, [13])
    with pytest.raises(RuntimeError, match="no kernel for 13"):
        runner.execute(writer.plan({0: 2, 1: 1}))
    writer.leave(0)
    writer.leave(1)
    writer.join(1, [1, 2])
    assert run(runner, writer.plan({1: 2})) == {1: next_token([1, 2])}


@pytest.mark.parametrize(
    "sampling",
    [
        replace(GREEDY, num_logprobs=2, num_prompt_logprobs=1),
        RowSampling(seed=4, num_logprobs=-1),
        RowSampling(presence_penalty=1.0, frequency_penalty=0.3, repetition_penalty=1.2),
        RowSampling(min_tokens=9, stop_token_ids=(3,), bad_words_token_ids=((1,), (2, 3))),
        RowSampling(logit_bias=((5, 2.0),), allowed_token_ids=(5, 6, 7, 8)),
    ],
    ids=["logprobs", "random", "penalties", "min_tokens and bad words", "bias and allowed"],
)
def test_only_reading_a_result_waits_for_the_device(
    sampling: RowSampling, writer: PlanWriter
) -> None:
    """But for filters: a CPU has NumPy for them, where nothing is to be waited for."""
    runner = build_runner()
    writer.join(0, [4, 5, 6, 7, 8, 9], sampling)
    writer.join(1, [3])
    with NoSync(), NoHostReads():
        steps = [runner.execute(writer.plan({0: 4, 1: 1}))]
        steps.append(runner.execute(writer.plan({1: 1, 0: 2})))
        steps += [runner.execute(writer.plan({0: 1, 1: 1})) for _ in range(5)]
    with NoHostReads(), pytest.raises(AssertionError, match="waits for the device"):
        steps[0].result()
    tokens = [step.result().token_ids.tolist() for step in steps]
    of_row_1 = [tokens[0][0], tokens[1][0], *(both[1] for both in tokens[2:])]
    assert of_row_1 == continuation([3], 7)
