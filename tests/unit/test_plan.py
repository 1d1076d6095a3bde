import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from quire import platform
from quire.args import EngineArgs
from quire.engine.build import build_core
from quire.plan import MemoryPlan, format_plan, make_plan
from quire.resolve import resolve
from tests.fakes.model_folders import write_model_folder

# hidden 32, inner 48, 4 heads of 8, 2 KV heads, vocabulary 64, 2 layers; see model_folders.py
LAYER = 32 * 32 + 2 * 32 * 16 + 32 * 32 + 3 * 32 * 48 + 2 * 32
PARAMETERS = 2 * LAYER + 2 * 64 * 32 + 32
BYTES_PER_TOKEN = 2 * 2 * 2 * 8 * 2


def plan_of(folder: Path, memory: int | str | None = None, **arguments: Any) -> MemoryPlan:
    return make_plan(EngineArgs(str(folder), **{"device": "cpu", **arguments}), memory)


def test_sizes_follow_from_the_config(tmp_path: Path) -> None:
    plan = plan_of(write_model_folder(tmp_path), "1MiB")
    assert plan.num_parameters == PARAMETERS
    assert plan.weight_bytes == PARAMETERS * 2
    assert plan.kv_bytes_per_token == BYTES_PER_TOKEN
    assert plan.num_blocks == (2**20 - PARAMETERS * 2) // (16 * BYTES_PER_TOKEN)
    assert plan.longest_context == 256
    assert plan.concurrency == {256: (plan.num_blocks - 1) / 16}


def test_a_context_that_does_not_fit_is_cut(tmp_path: Path) -> None:
    memory = PARAMETERS * 2 + 6 * 16 * BYTES_PER_TOKEN
    plan = plan_of(write_model_folder(tmp_path), memory)
    assert (plan.longest_context, plan.model_length) == (5 * 16, 256)


def test_a_model_that_does_not_fit_says_what_it_needs(tmp_path: Path) -> None:
    plan = plan_of(write_model_folder(tmp_path), PARAMETERS)
    assert (plan.longest_context, plan.kv_cache_bytes, plan.concurrency) == (0, 0, {})
    assert "does not fit: needs more than" in format_plan(plan)


def test_a_gpu_can_be_planned_for_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "default_device", lambda: "cpu")
    folder = write_model_folder(tmp_path, torch_dtype="float32")
    plan = plan_of(folder, "24GiB", device="cuda", gpu_memory_utilization=0.5)
    assert (plan.device, plan.dtype) == ("a GPU", "bfloat16")
    assert plan.usable_bytes == 12 * 2**30
    assert plan.kv_cache_bytes == plan.usable_bytes - plan.reserve_bytes - plan.weight_bytes


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_plan_agrees_with_a_loaded_model(tmp_path: Path, tied: bool, dtype: str) -> None:
    folder = write_model_folder(tmp_path, tie_word_embeddings=tied)
    args = EngineArgs(
        str(folder), dtype=dtype, device="cpu", load_format="dummy", kv_cache_memory_bytes="1MiB"
    )
    plan = make_plan(args)
    core = build_core(resolve(args))
    try:
        facts = core.facts
    finally:
        core.close()
    assert plan.weight_bytes == facts.weight_bytes
    assert plan.num_blocks == facts.num_blocks
    assert facts.kv_cache_bytes == plan.num_blocks * plan.fit.bytes_per_block


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tensor_parallel_size": 4}, "tensor_parallel_size=4: only one process"),
        ({"block_size": 7}, "block_size=7 is not one of 8, 16"),
        ({"device": "tpu"}, "device='tpu' is not one of"),
        ({"device": "cuda"}, "there is no GPU here .* --memory 24GiB"),
        ({"max_num_seqs": 9, "max_num_batched_tokens": 8}, "smaller than max_num_seqs=9"),
    ],
)
def test_what_an_engine_would_refuse_is_not_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr(platform, "default_device", lambda: "cpu")
    with pytest.raises(ValueError, match=message):
        plan_of(write_model_folder(tmp_path), **arguments)


def test_a_window_is_planned_for_the_steps_that_the_engine_takes(tmp_path: Path) -> None:
    """More completions than the default step has tokens make the step longer."""
    folder = write_model_folder(
        tmp_path,
        architectures=["MistralForCausalLM"],
        model_type="mistral",
        sliding_window=16,
        max_position_embeddings=8192,
    )
    arguments = {"device": "cpu", "max_num_seqs": 4000, "load_format": "dummy"}
    plan = make_plan(EngineArgs(str(folder), **arguments))
    limits = resolve(EngineArgs(str(folder), **arguments)).scheduler
    assert plan.fit.max_step_tokens == limits.max_num_batched_tokens == 4000


def test_json_holds_every_figure(tmp_path: Path) -> None:
    plan = plan_of(write_model_folder(tmp_path), "1MiB")
    figures = json.loads(json.dumps(plan.to_json()))
    names = {item.name for item in dataclasses.fields(plan)} - {"fit"}
    assert names <= figures.keys()
    assert figures["concurrency"]["256"] == pytest.approx(plan.concurrency[256], abs=0.01)
