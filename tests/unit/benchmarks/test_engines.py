"""What measurements do to a real engine, the bundled model on a CPU."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from benchmarks.gpu_parts.checks import answer, random_requests
from benchmarks.gpu_parts.engines import Stepper, core_of, lighter, open_llm, run
from benchmarks.gpu_parts.models import CONFIGS, max_model_len, write_model
from benchmarks.gpu_parts.steps import PARTS, host_times

from quire import LLM
from quire.assets import TINY_DRAFT
from quire.bench.standard_workloads import standard_workload

VOCAB_SIZE = 4096


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    options = {"device": "cpu", "max_model_len": 512, "max_num_seqs": 8, "steps_in_flight": 2}
    with open_llm(TINY_DRAFT, **options) as one:
        yield one


def test_host_time_of_steady_steps(llm: LLM) -> None:
    workload = standard_workload("decode8", scale=0.3, vocab_size=VOCAB_SIZE)
    stepper = Stepper(llm.llm_engine, workload)
    step = core_of(llm.llm_engine).step
    stepper.start()
    stepper.skip_prompts()
    assert llm.stats().num_running == 8 and llm.stats().num_waiting == 0
    us = host_times(stepper, count=20)
    stepper.stop()
    assert set(us) == {"host", *PARTS, "wait", "front", "period"}
    assert 0 < us["submit"]["median"] <= us["host"]["p99"]
    assert us["host"]["median"] <= us["period"]["p99"]
    assert core_of(llm.llm_engine).step == step, "the engine is as it was"


def test_nothing_is_left_of_a_workload_that_was_stopped(llm: LLM) -> None:
    stepper = Stepper(llm.llm_engine, standard_workload("decode8", scale=0.1, vocab_size=9))
    stepper.start()
    assert stepper.steps(3) == 3
    stepper.stop()
    stats = llm.stats()
    assert stats.num_running == stats.num_waiting == 0
    assert stats.num_free_blocks == stats.num_blocks - 1
    assert stepper.steps(3) == 0


def test_the_same_tokens_however_requests_come(llm: LLM) -> None:
    prompts, lengths = random_requests(VOCAB_SIZE, count=14)
    answers = answer(llm, prompts, lengths)
    assert answers.arriving == answers.batch
    assert answers.alone == answers.batch[:12]
    others = replace(answers, batch=[[], *answers.batch[1:]])
    assert answers.equal(others)["batch"] == (13, 14)
    assert answers.equal(others)["alone"] == (11, 12)
    assert answers.equal(others)["sampled"] == (len(answers.sampled),) * 2
    assert [len(tokens) for tokens in answers.batch] == lengths
    assert len(answers.sampled) == 16, "two requests have two completions"


def test_a_request_that_fails_fails_the_measurement(llm: LLM) -> None:
    def broken(token_ids: list[int], logits: object) -> object:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match=r"1 requests failed, the first with: .*no"):
        run(llm, [[5, 6]], [3], logits_processors=[broken])


def test_a_lighter_workload_has_the_same_rows_or_the_same_prompts() -> None:
    decode, long = (lighter(standard_workload(name)) for name in ("decode256", "long"))
    assert (len(decode.prompts), decode.output_lens[0]) == (256, 32)
    assert (len(long.prompts), long.output_lens[0]) == (4, 16)


def test_folders_have_a_config_and_no_weights(tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("models")
    for name in CONFIGS:
        folder = write_model(root, name)
        assert [file.name for file in folder.iterdir()] == ["config.json"]
    assert (max_model_len("qwen3-0.6b"), max_model_len("qwen3-30b-a3b")) == (20480, 8192)
