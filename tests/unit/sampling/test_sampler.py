from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from quire.request import RowSampling
from quire.step import Refusal
from tests.unit.sampling.harness import Rows, assert_distributed, draws, filtered, logprobs_of

VOCAB_SIZE = 40
LOGITS = torch.randn(VOCAB_SIZE, generator=torch.Generator().manual_seed(11)) * 1.2


def softmax(logits: Tensor, temperature: float = 1.0) -> Tensor:
    return (logits.double() / temperature).softmax(0)


@pytest.mark.parametrize("temperature", [0.4, 0.7, 1.0, 1.6])
def test_temperature_gives_the_exact_distribution(temperature: float) -> None:
    top = LOGITS.topk(12).values  # few enough tokens that each is drawn often
    tokens = draws(top, {"temperature": temperature})
    assert_distributed(tokens, softmax(top, temperature))


@pytest.mark.parametrize(
    "filters",
    [
        {"top_k": 1},
        {"top_k": 7},
        {"top_p": 0.5},
        {"top_p": 0.9},
        {"min_p": 0.2},
        {"top_k": 10, "top_p": 0.7},
        {"top_k": 12, "top_p": 0.9, "min_p": 0.1},
    ],
    ids=str,
)
def test_filters_give_the_exact_distribution(filters: dict[str, Any]) -> None:
    tokens = draws(LOGITS, {"temperature": 0.8, **filters})
    assert_distributed(tokens, filtered(softmax(LOGITS, 0.8), **filters))


def test_logit_bias_gives_the_exact_distribution() -> None:
    top = LOGITS.topk(10).values
    tokens = draws(top, {"logit_bias": ((3, 1.5), (0, -100.0))})
    biased = top.clone()
    biased[3] += 1.5
    expected = softmax(biased)
    expected[0] = 0.0
    assert_distributed(tokens, expected / expected.sum())


def test_allowed_tokens_give_the_exact_distribution() -> None:
    allowed = [2, 5, 30, 39]
    tokens = draws(LOGITS, {"allowed_token_ids": tuple(allowed)})
    expected = torch.zeros(VOCAB_SIZE, dtype=torch.float64)
    expected[allowed] = softmax(LOGITS[allowed])
    assert_distributed(tokens, expected)


def test_statistics_notice_a_wrong_distribution() -> None:
    top = LOGITS.topk(12).values
    with pytest.raises(AssertionError):
        assert_distributed(draws(top, {"temperature": 0.7}), softmax(top, 0.75))


def test_greedy_takes_the_best_token_without_a_seed() -> None:
    rows = Rows(VOCAB_SIZE)
    for row in range(3):
        rows.join(row, RowSampling(temperature=0.0, seed=row))
    logits = torch.randn(3, VOCAB_SIZE, generator=torch.Generator().manual_seed(0))
    assert torch.equal(rows.sample(logits, [2, 0, 1]).token_ids, logits.argmax(dim=1))


SETTINGS = [
    {"temperature": 0.0},
    {"temperature": 0.7},
    {"temperature": 1.0, "top_p": 0.8},
    {"temperature": 1.3, "top_k": 9},
    {"temperature": 0.9, "min_p": 0.05, "top_p": 0.95, "top_k": 30},
    {"temperature": 1.0, "repetition_penalty": 1.4, "presence_penalty": 0.5},
    {"temperature": 1.0, "logit_bias": ((4, 2.0),), "num_logprobs": 3},
    {"temperature": 1.0, "bad_words_token_ids": ((3,), (1, 2)), "frequency_penalty": 0.3},
]


def test_tokens_do_not_depend_on_row_order_or_neighbours() -> None:
    logits = torch.randn(len(SETTINGS), 3000, generator=torch.Generator().manual_seed(4)) * 2

    def tokens(order: list[int], shift: int, together: bool) -> dict[int, int]:
        rows = Rows(3000, max_rows=16)
        for which in order:
            sampling = RowSampling(seed=1000 + which, **SETTINGS[which])
            rows.join(which + shift, sampling, prompt=[5, 6], output=[1, which])
        steps = [order] if together else [[which] for which in order]
        found: dict[int, int] = {}
        for step in steps:
            output = rows.sample(logits[step], [which + shift for which in step])
            found |= dict(zip(step, output.token_ids.tolist(), strict=True))
        return found

    alone = tokens(list(range(8)), shift=0, together=False)
    assert tokens(list(range(8)), shift=0, together=True) == alone
    assert tokens([6, 1, 3, 0, 7, 5, 2, 4], shift=7, together=True) == alone


def test_seed_and_position_decide_the_token() -> None:
    def run(seed: int, output: list[int]) -> list[int]:
        rows = Rows(VOCAB_SIZE)
        rows.join(0, RowSampling(seed=seed), prompt=[1, 2, 3], output=output)
        found = list(output)
        while len(found) < 20:
            found.append(int(rows.sample(LOGITS[None], [0]).token_ids[0]))
            rows.append(0, found[-1])
        return found

    tokens = run(seed=-5, output=[])
    assert run(seed=-5, output=[]) == tokens
    assert run(seed=-5, output=tokens[:9]) == tokens  # after preemption
    assert run(seed=-4, output=[]) != tokens
    assert len(set(tokens)) > 3


def test_row_taken_over_by_another_request_forgets_the_first() -> None:
    rows = Rows(VOCAB_SIZE)
    everything = RowSampling(
        logit_bias=((0, 50.0),),
        allowed_token_ids=(0, 1),
        bad_words_token_ids=((1,),),
        repetition_penalty=2.0,
        num_logprobs=2,
        top_k=1,
        min_tokens=5,
        stop_token_ids=(1,),
        logits_processors=(lambda ids, logits: logits * 0,),
    )
    rows.join(3, everything)
    rows.sample(LOGITS[None], [3])
    rows.sampler.leave(3)
    rows.join(3, RowSampling(temperature=0.0))
    output = rows.sample(LOGITS[None], [3])
    assert output.token_ids.tolist() == [int(LOGITS.argmax())]
    assert logprobs_of(output) == {} and output.errors == {}


def test_logprobs_are_of_the_raw_logits_unless_processed() -> None:
    rows = Rows(VOCAB_SIZE)
    shape = {"temperature": 0.5, "logit_bias": ((7, 9.0),), "top_k": 1}
    rows.join(0, RowSampling(num_logprobs=4, **shape))
    rows.join(1, RowSampling(num_logprobs=4, processed_logprobs=True, **shape))
    rows.join(2, RowSampling(temperature=0.0))
    rows.join(4, RowSampling(temperature=0.0, num_logprobs=-1))
    output = rows.sample(LOGITS.repeat(4, 1), [1, 2, 0, 4])
    found = logprobs_of(output)
    assert set(found) == {0, 1, 4}
    raw = LOGITS.log_softmax(0).numpy()
    biased = LOGITS.clone()
    biased[7] += 9.0
    processed = (biased / 0.5).log_softmax(0).numpy()
    for row, expected in ((0, raw), (1, processed)):
        record = found[row]
        best = np.argsort(-expected, kind="stable")[:4]
        assert record.token_ids.tolist() == [[7, *best.tolist()]]
        np.testing.assert_allclose(record.logprobs[0], expected[[7, *best]], atol=1e-5)
        assert record.ranks.tolist() == [int((expected > expected[7]).sum()) + 1]
    assert found[4].token_ids.shape == (1, VOCAB_SIZE + 1)


def test_failing_user_function_ends_its_row_alone() -> None:
    def broken(ids: list[int], logits: Tensor) -> Tensor:
        raise KeyError("missing")

    rows = Rows(VOCAB_SIZE)
    rows.join(0, RowSampling(temperature=0.0, logits_processors=(broken,)))
    rows.join(1, RowSampling(temperature=0.0))
    output = rows.sample(LOGITS.repeat(2, 1), [0, 1])
    assert list(output.errors) == [0]
    assert "KeyError" in output.errors[0] and "missing" in output.errors[0]
    assert output.token_ids[1] == LOGITS.argmax()


def nothing(ids: list[int], logits: Tensor) -> Tensor:
    return torch.full_like(logits, -torch.inf)


LEAVES_NOTHING = [
    {"allowed_token_ids": (3, 5), "bad_words_token_ids": ((7, 3), (5,))},
    {"allowed_token_ids": (3,), "logit_bias": ((3, -torch.inf),)},
    {"allowed_token_ids": (3,), "min_tokens": 2, "stop_token_ids": (3,)},
    {"logit_bias": ((0, -torch.inf),), "bad_words_token_ids": tuple((i,) for i in range(1, 40))},
    {"logits_processors": (nothing,)},
]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("shape", LEAVES_NOTHING, ids=lambda shape: "-".join(shape))
def test_a_row_with_no_token_left_ends_alone_with_an_error(
    shape: dict[str, Any], temperature: float
) -> None:
    rows = Rows(VOCAB_SIZE)
    rows.join(0, RowSampling(temperature=temperature, **shape), output=[7])
    rows.join(1, RowSampling(temperature=0.0, **SOME_LEFT), output=[7])
    output = rows.sample(LOGITS.repeat(2, 1), [1, 0])
    assert list(output.errors) == [0]
    assert "left no token" in output.errors[0] and isinstance(output.errors[0], Refusal)
    assert output.token_ids[0] == 5


def test_a_model_that_returns_no_numbers_is_not_the_requests_fault() -> None:
    rows = Rows(VOCAB_SIZE)
    rows.join(0, RowSampling(temperature=0.0, **SOME_LEFT), output=[7])
    output = rows.sample(torch.full_like(LOGITS, float("nan")).repeat(1, 1), [0])
    assert "not numbers (NaN)" in output.errors[0]
    assert not isinstance(output.errors[0], Refusal)


SOME_LEFT: dict[str, Any] = {"allowed_token_ids": (3, 5), "bad_words_token_ids": ((7, 3), (6, 5))}


class NoSync(TorchDispatchMode):
    """Raises at operations that make the host wait for a device or depend on its data."""

    FORBIDDEN = ("_local_scalar_dense", "nonzero", "masked_select", "unique")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name()
        assert not any(word in name for word in self.FORBIDDEN), name
        if name.startswith(("aten::index.", "aten::index_put")):
            masks = [one for one in args[1] if one is not None and one.dtype == torch.bool]
            assert not masks, "boolean indexing"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("steady", [False, True], ids=["new-rows", "same-rows"])
def test_no_part_of_a_step_waits_for_the_device(steady: bool) -> None:
    rows = Rows(VOCAB_SIZE, max_rows=16)
    settings = [
        *SETTINGS,
        {"min_tokens": 4, "stop_token_ids": (1,)},
        {"allowed_token_ids": (1, 2)},
        {"allowed_token_ids": (1, 2), "bad_words_token_ids": ((2,),)},
        {"min_tokens": 4, "stop_token_ids": (1,), "logit_bias": ((4, -torch.inf),)},
    ]
    for row, shape in enumerate(settings):
        rows.join(row, RowSampling(seed=row, **shape), prompt=[5, 6], output=[1, 2])
    logits = LOGITS.repeat(len(settings), 1)
    if steady:
        rows.sample(logits, range(len(settings)))
    with NoSync():
        output = rows.sample(logits, range(len(settings)))
    assert len(output.token_ids) == len(settings)


def test_steady_step_of_plain_rows_makes_no_index_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = Rows(VOCAB_SIZE)
    for row in range(4):
        rows.join(row, RowSampling(seed=row))
    rows.sample(LOGITS.repeat(4, 1), range(4))
    from_numpy: Callable[..., Tensor] = torch.from_numpy
    uploads: list[int] = []
    rows_cpu = np.arange(4, dtype=np.int32)
    lengths_cpu = rows.lengths[:4]
    arguments = (LOGITS.repeat(4, 1), from_numpy(rows_cpu).long(), rows_cpu)
    monkeypatch.setattr(torch, "from_numpy", lambda array: uploads.append(1) or from_numpy(array))
    rows.sampler.sample(*arguments, from_numpy(lengths_cpu), lengths_cpu)
    assert uploads == []
    rows.join(0, RowSampling(seed=9))
    rows.sampler.sample(*arguments, from_numpy(lengths_cpu), lengths_cpu)
    assert uploads != []
