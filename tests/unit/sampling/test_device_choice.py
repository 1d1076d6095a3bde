"""The sampler with a GPU's kernels, interpreted where there is no GPU."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from quire.kernels.triton import sampling_history
from quire.kernels.triton.sampling import Sizes
from quire.request import RowSampling
from quire.sampling.choice import MakeChoice
from quire.sampling.device_choice import DeviceChoice
from quire.sampling.sampler import SampleKind, SampleOutput
from quire.structured import Constraint, Thinking, TokenMark
from tests.fakes.reference_choice import ReferenceChoice
from tests.unit.kernels.twins import DEVICE
from tests.unit.sampling.harness import CPU, Rows, logprobs_of

VOCAB_SIZE = 150
SMALL: MakeChoice = partial(DeviceChoice, sizes=Sizes(block=64, sample=64, capacity=64))
LOGITS = torch.randn(8, VOCAB_SIZE, generator=torch.Generator().manual_seed(3)) * 2

GREEDY: dict[str, Any] = {"temperature": 0.0}
FILTERED: dict[str, Any] = {"temperature": 0.8, "top_k": 20, "top_p": 0.9}
PENALISED: dict[str, Any] = {"repetition_penalty": 1.6, "frequency_penalty": 0.4, "top_p": 0.8}
LOGPROBS: dict[str, Any] = {"num_logprobs": 3, "presence_penalty": 0.9}
PROCESSED: dict[str, Any] = {
    "num_logprobs": 20, "processed_logprobs": True, "temperature": 0.6, "repetition_penalty": 1.3,
}  # fmt: skip
BIASED: dict[str, Any] = {"logit_bias": ((3, 4.0), (9, 2.0))}
# The best tokens of some lines of `LOGITS`; in this file every row has four output tokens.
EARLY_IDS: dict[str, Any] = {"stop_token_ids": (130, 9, 77, 81), "ignored_eos_ids": (45, 48, 32)}
EARLY: dict[str, Any] = {"min_tokens": 5, **EARLY_IDS}
MIXES: dict[str, list[dict[str, Any]]] = {
    "greedy": [GREEDY, GREEDY],
    "random": [{}, GREEDY, FILTERED, {"min_p": 0.1}],
    "penalised": [FILTERED, PENALISED, GREEDY, {"presence_penalty": 1.0, "temperature": 0.0}],
    "early": [{**GREEDY, **EARLY}, {**PENALISED, **EARLY}, {"min_tokens": 4, **EARLY_IDS}, GREEDY],
    "logprobs": [LOGPROBS, PENALISED, PROCESSED, {"num_logprobs": 0, **GREEDY}, {}],
}


def joined(
    mix: Sequence[dict[str, Any]],
    make_choice: MakeChoice | None = SMALL,
    device: torch.device = DEVICE,
) -> Rows:
    rows = Rows(VOCAB_SIZE, device=device, make_choice=make_choice)
    for row, settings in enumerate(mix):
        sampling = RowSampling(seed=100 + row, **settings)
        rows.join(row, sampling, prompt=[5, 6, 5], output=[1, row, 7, 7])
    return rows


def assert_same(found: SampleOutput, wanted: SampleOutput) -> None:
    assert found.token_ids.tolist() == wanted.token_ids.tolist()
    of_rows = logprobs_of(found)
    assert set(of_rows) == set(logprobs_of(wanted))
    for row, record in logprobs_of(wanted).items():
        assert of_rows[row].token_ids.tolist() == record.token_ids.tolist()
        assert of_rows[row].ranks.tolist() == record.ranks.tolist()
        np.testing.assert_allclose(of_rows[row].logprobs, record.logprobs, atol=1e-5)


@pytest.mark.parametrize("mix", MIXES)
def test_both_ways_choose_what_torch_chooses(mix: str) -> None:
    settings = MIXES[mix]
    order = list(range(len(settings)))[::-1]
    logits = LOGITS[: len(settings)]
    wanted = joined(settings, None, CPU).sample(logits, order)
    rows, there = joined(settings), logits.to(DEVICE)
    assert_same(rows.sample(there, order), wanted)
    assert_same(rows.sample_on_device(there, order), wanted)
    assert_same(joined(settings, ReferenceChoice, CPU).sample_on_device(logits, order), wanted)


def test_logits_in_half_precision_stay_as_they_are() -> None:
    logits = LOGITS[:5].half().to(DEVICE)
    kept = logits.clone()
    rows = joined(MIXES["logprobs"])
    assert_same(rows.sample_on_device(logits, range(5)), rows.sample(logits.float(), range(5)))
    assert torch.equal(logits, kept)


def test_a_rows_token_is_the_same_beside_any_other_kind() -> None:
    settings = [FILTERED, {}, PENALISED, LOGPROBS, BIASED]
    rows, logits = joined(settings), LOGITS[:5].to(DEVICE)
    alone = [rows.sample_on_device(logits[[row]], [row]) for row in range(4)]
    tokens = [int(output.token_ids) for output in alone]
    assert rows.sample_on_device(logits[:4], range(4)).token_ids.tolist() == tokens
    assert rows.sample(logits, range(5)).token_ids.tolist()[:4] == tokens


def test_more_rows_than_counts_have_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = MIXES["logprobs"]
    wanted = joined(settings).sample_on_device(LOGITS[:5].to(DEVICE), range(5))
    monkeypatch.setattr(sampling_history, "MAX_BYTES", 2 * 4 * VOCAB_SIZE)
    assert_same(joined(settings).sample_on_device(LOGITS[:5].to(DEVICE), range(5)), wanted)


def test_all_logprobs_and_more_than_kernels_give_are_those_of_torch() -> None:
    settings = [{"num_logprobs": -1}, {"num_logprobs": 30, "processed_logprobs": True}]
    wanted = joined(settings, None, CPU).sample(LOGITS[:2], range(2))
    assert_same(joined(settings).sample(LOGITS[:2].to(DEVICE), range(2)), wanted)


THINKING = Thinking(begins=(), ends=(TokenMark(text=b"</t>", token_ids=(6,)),), is_open=True)


def test_a_row_forgets_the_early_tokens_of_its_former_owner() -> None:
    best = LOGITS[0].topk(3).indices.tolist()
    for rows in (joined([]), joined([], ReferenceChoice, CPU)):
        rows.join(0, RowSampling(temperature=0.0, min_tokens=9, stop_token_ids=tuple(best[::-1])))
        rows.sampler.leave(0)
        rows.join(0, RowSampling(temperature=0.0, min_tokens=9, stop_token_ids=(best[1],)))
        assert rows.sample_on_device(LOGITS[:1].to(rows.device), [0]).token_ids.tolist() == best[:1]


def test_a_constrained_row_with_early_tokens_is_sampled_by_operation() -> None:
    sampling = RowSampling(temperature=0.0, min_tokens=9, stop_token_ids=(1,))
    rows = joined([], None, CPU)
    rows.join(0, sampling, constraint=Constraint(thinking=THINKING))
    assert rows.sampler.graph_kind(np.arange(1)) is None


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ([GREEDY], SampleKind.GREEDY),
        ([GREEDY, {}], SampleKind.RANDOM),
        ([GREEDY, PENALISED], SampleKind.PENALISED),
        ([{"presence_penalty": 0.1, **GREEDY}], SampleKind.PENALISED),
        ([LOGPROBS, PENALISED], SampleKind.LOGPROBS),
        ([{"num_logprobs": 0}], SampleKind.LOGPROBS),
        ([{"num_logprobs": 21}], None),
        ([{"num_logprobs": -1}], None),
        ([GREEDY, BIASED], None),
        ([GREEDY, {"min_tokens": 3, "stop_token_ids": (1,), **GREEDY}], SampleKind.RANDOM),
        ([{"min_tokens": 3, "stop_token_ids": tuple(range(17))}], None),
        ([{"min_tokens": 3, "stop_token_ids": (1,)}, LOGPROBS], None),
        ([{"logits_processors": (lambda ids, logits: logits,)}], None),
    ],
)
def test_the_kind_is_the_least_that_does_what_rows_ask(
    settings: list[dict[str, Any]], kind: SampleKind | None
) -> None:
    rows = joined(settings, None, CPU)
    assert rows.sampler.graph_kind(np.arange(len(settings))) is kind
    for row in range(len(settings)):
        rows.sampler.leave(row)
        rows.join(row, RowSampling(**GREEDY))
    assert rows.sampler.graph_kind(np.arange(len(settings))) is SampleKind.GREEDY
