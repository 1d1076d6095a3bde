"""Every row of the parity table through the whole engine, against transformers.

Scheduling must not show in the answers: whatever runs beside a request, however its prompt is cut,
whatever it finds cached and however often it is preempted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from quire import LLMEngine, SamplingParams
from quire.outputs import RequestOutput
from tests.fakes.engines import BLOCK_SIZE, engine_args, fewest_blocks, run_to_end
from tests.models.configs import PARITY_ROWS, ParityRow, save_random_model
from tests.models.reference import TOLERANCE, Reference
from tests.models.rows.fallback import ENGINE_ROWS as FALLBACK_ROWS

_LENGTHS = (23, 9, 37, 1)
_MAX_LEN = 96


@dataclass(frozen=True, slots=True)
class Case:
    folder: Path
    reference: Reference

    @contextmanager
    def engine(self, **limits: Any) -> Iterator[LLMEngine]:
        args = engine_args(self.folder, **{"max_model_len": _MAX_LEN, **limits})
        engine = LLMEngine.from_engine_args(args)
        try:
            yield engine
        finally:
            engine.close()

    def check(self, outputs: dict[str, RequestOutput], params: dict[str, SamplingParams]) -> None:
        assert outputs.keys() == params.keys()
        for name, output in outputs.items():
            self.reference.check(output, params[name])


def _make_case(row: ParityRow, folder: Path) -> Case:
    return Case(folder, Reference(save_random_model(row, folder)))


@pytest.fixture(scope="module", params=(*PARITY_ROWS, *FALLBACK_ROWS), ids=lambda row: row.id)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return _make_case(request.param, tmp_path_factory.mktemp(request.param.id))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return _make_case(PARITY_ROWS[0], tmp_path_factory.mktemp("llama"))


def _greedy(max_tokens: int = 10, **fields: Any) -> SamplingParams:
    return SamplingParams(temperature=0, max_tokens=max_tokens, logprobs=3, **fields)


def _sampled(max_tokens: int = 10, **fields: Any) -> SamplingParams:
    """Texts of random models repeat themselves when greedy; these do not. Few candidates, so that
    rounding will hardly ever draw another one."""
    given = {"temperature": 0.8, "top_k": 5, "seed": 11, "ignore_eos": True, **fields}
    return SamplingParams(max_tokens=max_tokens, logprobs=3, **given)


def _workload(prompts: list[list[int]], max_tokens: int) -> dict[str, SamplingParams]:
    """Greedy and sampled requests in turn, named by their number."""
    kinds = (_greedy, _sampled)
    return {str(i): kinds[i % 2](max_tokens) for i in range(len(prompts))}


def _run(
    engine: LLMEngine, prompts: list[list[int]], params: dict[str, SamplingParams]
) -> dict[str, RequestOutput]:
    for (name, own), prompt in zip(params.items(), prompts, strict=True):
        engine.add_request(name, {"prompt_token_ids": prompt}, own)
    return run_to_end(engine)


def _tokens(outputs: dict[str, RequestOutput]) -> dict[str, list[list[int]]]:
    return {name: [list(one.token_ids) for one in out.outputs] for name, out in outputs.items()}


def test_whole_prompts_at_once(case: Case) -> None:
    prompts = case.reference.random_prompts(_LENGTHS)
    params = _workload(prompts, max_tokens=7)
    with case.engine() as engine:
        case.check(_run(engine, prompts, params), params)


def test_prompts_in_chunks(case: Case) -> None:
    prompts = case.reference.random_prompts(_LENGTHS)
    params = _workload(prompts, max_tokens=4)
    with case.engine(max_num_batched_tokens=7, max_num_seqs=4) as engine:
        case.check(_run(engine, prompts, params), params)
        assert engine.stats().num_steps > sum(_LENGTHS) / 7


def test_requests_that_arrive_while_others_run(case: Case) -> None:
    prompts = case.reference.random_prompts((*_LENGTHS, 30, 5))
    params = _workload(prompts, max_tokens=9)
    outputs: dict[str, RequestOutput] = {}
    with case.engine(max_num_batched_tokens=16, long_prefill_token_threshold=11) as engine:
        for number, (name, own) in enumerate(params.items()):
            engine.add_request(name, {"prompt_token_ids": prompts[number]}, own)
            for _ in range(number):
                outputs.update({o.request_id: o for o in engine.step() if o.finished})
        outputs.update(run_to_end(engine))
    case.check(outputs, params)


def test_prefix_hits(case: Case) -> None:
    long, other, tail = case.reference.random_prompts((5 * BLOCK_SIZE, 12, 9))
    prompts = {
        "first": long,
        "same": long,  # the last token is always computed, so its block is too
        "longer": long + tail,
        "branch": long[: 2 * BLOCK_SIZE + 3] + other,
        "other": other,
    }
    cached = {"first": 0, "same": 4, "longer": 5, "branch": 2, "other": 0}
    with case.engine() as engine:
        for name, prompt in prompts.items():
            params = {name: _greedy(4)}
            outputs = _run(engine, [prompt], params)
            case.check(outputs, params)
            assert outputs[name].num_cached_tokens == cached[name] * BLOCK_SIZE, name
        # Together in one step, one computing what the other reads.
        assert engine.reset_prefix_cache()
        both = {"a": _greedy(4), "b": _sampled(4)}
        outputs = _run(engine, [long, long], both)
        case.check(outputs, both)
        assert [outputs[name].num_cached_tokens for name in "ab"] == [0, 4 * BLOCK_SIZE]


def test_prefixes_are_shared_within_a_salt_only(llama: Case) -> None:
    (prompt,) = llama.reference.random_prompts((3 * BLOCK_SIZE,))
    cached = []
    with llama.engine() as engine:
        for number, salt in enumerate(("a", "b", "a", None)):
            salted = {"prompt_token_ids": prompt} | ({"cache_salt": salt} if salt else {})
            engine.add_request(str(number), salted, _greedy(2))
            cached.append(run_to_end(engine)[str(number)].num_cached_tokens)
    assert cached == [0, 0, 2 * BLOCK_SIZE, 0]


def test_answers_are_part_of_the_prefix_cache(case: Case) -> None:
    (prompt,) = case.reference.random_prompts((13,))
    params = {"first": _sampled(20)}
    with case.engine() as engine:
        answer = _tokens(_run(engine, [prompt], params))["first"][0]
        again = {"second": _greedy(4)}
        outputs = _run(engine, [prompt + answer + [3, 4]], again)
        case.check(outputs, again)
        # the answer's last token was never computed
        assert outputs["second"].num_cached_tokens == 4 * BLOCK_SIZE


def _few_blocks(case: Case) -> dict[str, Any]:
    """Limits under which not much more than one request of full length fits."""
    limits = {"max_model_len": 40, "max_num_batched_tokens": 16}
    return {**limits, "num_gpu_blocks_override": fewest_blocks(engine_args(case.folder, **limits))}


def test_preempted_and_resumed_with_any_number_of_steps_in_flight(case: Case) -> None:
    prompts = case.reference.random_prompts((4, 17, 3, 5, 7, 2))
    params = _workload(prompts, max_tokens=14)
    params["1"] = _sampled(14, n=2)
    found = []
    for depth in (1, 2, 3):
        limits = {**_few_blocks(case), "enable_prefix_caching": depth < 3}
        with case.engine(**limits, steps_in_flight=depth) as engine:
            outputs = _run(engine, prompts, params)
            assert engine.stats().num_preemptions > 0
        case.check(outputs, params)
        found.append(_tokens(outputs))
    assert found[1] == found[0] and found[2] == found[0]


def test_n_completions_are_those_of_single_requests(case: Case) -> None:
    prompts = case.reference.random_prompts((21, 8))
    many = {"0": _sampled(8, n=3, seed=5), "1": _sampled(8, n=2, seed=70)}
    single = {
        f"{name}, completion {index}": _sampled(8, seed=own.seed + index)
        for name, own in many.items()
        for index in range(own.n)
    }
    with case.engine() as engine:
        together = _run(engine, prompts, many)
        case.check(together, many)
        alone = _run(engine, [prompts[int(name[0])] for name in single], single)
    found = [tokens for one in _tokens(together).values() for tokens in one]
    assert found == [tokens for one in _tokens(alone).values() for tokens in one]
    assert all(len(set(map(tuple, tokens))) > 1 for tokens in _tokens(together).values())


def test_logprobs_are_raw_and_exact(case: Case) -> None:
    prompts = case.reference.random_prompts((23, 9, 2, 30))
    changed: dict[str, Any] = {
        "temperature": 0.5,
        "presence_penalty": 1.5,
        "logit_bias": {4: 3.0, 5: -100.0},
    }
    params = {
        "0": SamplingParams(temperature=0, logprobs=0, prompt_logprobs=0, max_tokens=5),
        "1": SamplingParams(seed=3, logprobs=7, prompt_logprobs=4, max_tokens=9, **changed),
        "2": SamplingParams(seed=4, logprobs=-1, prompt_logprobs=-1, max_tokens=3),
        "3": SamplingParams(seed=5, logprobs=2, prompt_logprobs=2, max_tokens=6, n=2),
    }
    limits = {**_few_blocks(case), "max_num_seqs": 6}
    with case.engine(**limits) as engine:
        for _ in range(2):  # the second time all prompts are cached, and computed nevertheless
            outputs = _run(engine, prompts, params)
            case.check(outputs, params)


def _beams(width: int, max_tokens: int, **fields: Any) -> SamplingParams:
    return SamplingParams(n=width, max_tokens=max_tokens, use_beam_search=True, **fields)


def _check_beams(
    reference: Reference, output: RequestOutput, params: SamplingParams, eos: tuple[int, ...] = ()
) -> None:
    expected = reference.beams(
        output.prompt_token_ids or [],
        width=params.n,
        max_tokens=params.max_tokens or 0,
        stop_token_ids=[*(params.stop_token_ids or ()), *eos] or None,
        length_penalty=params.length_penalty,
        early_stopping=params.early_stopping,
    )
    assert [list(one.token_ids) for one in output.outputs] == [one.token_ids for one in expected]
    for found, wanted in zip(output.outputs, expected, strict=True):
        assert found.score == pytest.approx(wanted.score, abs=TOLERANCE)
        assert found.cumulative_logprob == pytest.approx(
            wanted.score * len(wanted.token_ids) ** params.length_penalty, abs=10 * TOLERANCE
        )


def test_beams_beside_other_requests(case: Case) -> None:
    prompts = case.reference.random_prompts((11, 19, 6))
    params = {"beams": _beams(3, 9), "two": _beams(2, 12, length_penalty=0.3), "s": _sampled(12)}
    with case.engine(max_num_batched_tokens=16) as engine:
        outputs = _run(engine, prompts, params)
    case.reference.check(outputs["s"], params["s"])
    for name in ("beams", "two"):
        _check_beams(case.reference, outputs[name], params[name])


def test_beams_that_are_preempted(case: Case) -> None:
    prompts = case.reference.random_prompts((11, 19, 6))
    params = {"a": _beams(4, 9), "b": _beams(3, 14), "s": _sampled(14)}
    with case.engine(**_few_blocks(case), steps_in_flight=2) as engine:
        outputs = _run(engine, prompts, params)
        assert engine.stats().num_preemptions > 0
    case.reference.check(outputs["s"], params["s"])
    for name in "ab":
        _check_beams(case.reference, outputs[name], params[name])


@pytest.mark.parametrize("early_stopping", [False, True, "never"])
@pytest.mark.parametrize("length_penalty", [-0.5, 0.0, 1.0, 2.0])
def test_beam_search_options(
    llama: Case, early_stopping: bool | str, length_penalty: float
) -> None:
    """Many stop tokens, so that beams end all the time."""
    stops = list(range(10, 40, 3))
    options: dict[str, Any] = {"early_stopping": early_stopping, "length_penalty": length_penalty}
    prompts = llama.reference.random_prompts((7, 12, 3, 20))
    params = {
        str(i): _beams(width, 16, stop_token_ids=stops, **options)
        for i, width in enumerate((2, 3, 4, 6))
    }
    with llama.engine(max_num_seqs=16) as engine:
        outputs = _run(engine, prompts, params)
    for name, output in outputs.items():
        _check_beams(llama.reference, output, params[name], eos=(2,))
    reasons = {one.finish_reason for output in outputs.values() for one in output.outputs}
    assert "stop" in reasons


def test_a_single_beam_is_greedy(llama: Case) -> None:
    prompts = llama.reference.random_prompts((7, 20))
    params = {str(i): _beams(1, 12) for i in range(2)}
    with llama.engine() as engine:
        for output in _run(engine, prompts, params).values():
            llama.reference.check(output, SamplingParams(temperature=0))


def test_dozens_of_preemptions_change_nothing(llama: Case) -> None:
    prompts = llama.reference.random_prompts([2 + i % 5 for i in range(24)])
    params = _workload(prompts, max_tokens=30)
    params["3"] = _sampled(30, n=4)
    params["8"] = _beams(3, 16)
    limits = {**_few_blocks(llama), "max_num_seqs": 16, "steps_in_flight": 2}
    limits["num_gpu_blocks_override"] += 3
    with llama.engine() as engine:
        roomy = _run(engine, prompts, params)
        assert engine.stats().num_preemptions == 0
    with llama.engine(**limits) as engine:
        tight = _run(engine, prompts, params)
        assert engine.stats().num_preemptions >= 48
    assert _tokens(tight) == _tokens(roomy)
    _check_beams(llama.reference, tight.pop("8"), params.pop("8"))
    llama.check(tight, params)
