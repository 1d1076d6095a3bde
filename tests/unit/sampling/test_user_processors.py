from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from quire.named_processors import NamedProcessor
from quire.request import RowSampling
from quire.step import Refusal
from tests.unit.sampling.harness import Rows

LOGITS = torch.arange(10.0)


def sample(*functions: Callable[..., Tensor], **more: object) -> tuple[int, dict[int, str]]:
    rows = Rows(10)
    sampling = RowSampling(
        temperature=0.0,
        logits_processors=functions,
        **more,  # type: ignore[arg-type]
    )
    rows.join(0, RowSampling(temperature=0.0))
    rows.join(5, sampling, prompt=[7, 8], output=[1, 2, 3])
    output = rows.sample(LOGITS.repeat(2, 1), [0, 5])
    assert output.token_ids[0] == 9
    return int(output.token_ids[1]), output.errors


def test_function_sees_its_output_and_changes_its_row() -> None:
    seen: list[list[int]] = []

    def favour(output_ids: list[int], logits: Tensor) -> Tensor:
        seen.append(output_ids)
        logits[4] = 99.0
        return logits

    assert sample(favour) == (4, {})
    assert seen == [[1, 2, 3]]


def test_function_of_three_arguments_sees_the_prompt_too() -> None:
    seen: list[tuple[list[int], list[int]]] = []

    def favour(prompt_ids: list[int], output_ids: list[int], logits: Tensor) -> Tensor:
        seen.append((prompt_ids, output_ids))
        return -logits

    assert sample(favour) == (0, {})
    assert seen == [([7, 8], [1, 2, 3])]


def test_functions_run_in_order_after_penalties() -> None:
    def double(ids: list[int], logits: Tensor) -> Tensor:
        return logits * 2

    def show(ids: list[int], logits: Tensor) -> Tensor:
        seen.append(logits.tolist())
        return logits

    seen: list[list[float]] = []
    token, _ = sample(double, show, presence_penalty=0.5, logit_bias=((9, -3.0),))
    expected = [0, 2 * 0.5, 2 * 1.5, 2 * 2.5, 8, 10, 12, 14, 16, 12]
    assert seen == [expected]
    assert token == 8


@pytest.mark.parametrize("answer", [None, torch.zeros(3)], ids=["nothing", "wrong-shape"])
def test_wrong_answer_is_the_rows_error(answer: Tensor | None) -> None:
    _, errors = sample(lambda ids, logits: answer)
    assert list(errors) == [5]
    assert "must return the logits, a tensor of shape (10,)" in errors[5]


def test_logits_that_are_not_numbers_are_told_with_whose_they_are() -> None:
    def spoil(ids: list[int], logits: Tensor) -> Tensor:
        logits[3] = float("nan")
        return logits

    _, errors = sample(spoil)
    assert list(errors) == [5]
    assert "spoil" in errors[5] and "returned logits that are not numbers (NaN)" in errors[5]
    rows = Rows(10)
    rows.join(2, RowSampling(temperature=0.0, logits_processors=(lambda ids, logits: logits,)))
    errors = rows.sample(torch.full((1, 10), float("nan")), [2]).errors
    assert "those of the model, are not numbers" in errors[2]


def test_infinite_logits_choose_and_forbid() -> None:
    def choose(ids: list[int], logits: Tensor) -> Tensor:
        return torch.where(torch.arange(10) == 4, float("inf"), -float("inf"))

    assert sample(choose) == (4, {})


def test_changes_of_a_failing_function_are_dropped() -> None:
    def half(ids: list[int], logits: Tensor) -> Tensor:
        logits.zero_()
        raise RuntimeError("half way")

    token, errors = sample(half)
    assert token == 9
    assert errors == {5: "a logits processor failed: RuntimeError: half way"}
    assert not isinstance(errors[5], Refusal)  # it is whose function it is


def test_a_function_that_would_end_the_program_ends_its_request() -> None:
    def leave(ids: list[int], logits: Tensor) -> Tensor:
        raise SystemExit(3)

    assert sample(leave)[1] == {5: "a logits processor failed: SystemExit: 3"}


def test_callable_without_a_signature_gets_two_arguments() -> None:
    _, errors = sample(max)  # a built-in that does not say; it cannot compare a list and a tensor
    assert "TypeError" in errors[5]


def test_named_functions_are_made_for_their_row() -> None:
    named = NamedProcessor(qualname="tests.fakes.processors.Favour", is_made=True, args=[4])
    assert sample(named_processors=(named,)) == (4, {})


def test_a_name_that_is_not_found_here_is_the_rows_error() -> None:
    token, errors = sample(named_processors=(NamedProcessor(qualname="no.such.name"),))
    assert token == 9
    assert "the logits processor 'no.such.name' cannot be loaded" in errors[5]
