import dataclasses
from pathlib import Path
from typing import Any

import pytest

from quire import platform
from quire.args import EngineArgs
from quire.config import EngineConfig
from quire.errors import OutOfMemoryError, UnsupportedModelError
from quire.platform import DeviceInfo
from quire.resolve import describe, resolve, resolve_dtype
from quire.step_output import EngineFacts
from tests.fakes.model_folders import write_model_folder


def cpu(*fast: str) -> DeviceInfo:
    return DeviceInfo(
        kind="cpu", name="a CPU", memory_bytes=2**33, fast_dtypes=frozenset({"float32", *fast})
    )


def gpu(*fast: str) -> DeviceInfo:
    return DeviceInfo(
        kind="cuda", name="a GPU", memory_bytes=2**33, fast_dtypes=frozenset({"float16", *fast})
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(platform, "available_memory", lambda: 2**30)
    return write_model_folder(tmp_path)


def resolved(folder: Path, **arguments: Any) -> EngineConfig:
    return resolve(EngineArgs(str(folder), device="cpu", **arguments))


def test_the_defaults(folder: Path) -> None:
    config = resolved(folder)
    assert config.model.path == folder
    assert (config.model.dtype, config.model.max_model_len) == ("bfloat16", 256)
    assert (config.model.architecture, config.model.vocab_size) == ("LlamaForCausalLM", 64)
    assert config.model.served_model_name == (str(folder),)
    assert (config.cache.block_size, config.cache.num_blocks) == (16, None)
    assert config.scheduler.max_num_seqs == 256
    assert config.scheduler.max_num_batched_tokens == 2048
    assert config.device.device == "cpu"


def test_the_config_is_frozen(folder: Path) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        resolved(folder).model.max_model_len = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("wanted", "stored", "device", "chosen"),
    [
        ("auto", "bfloat16", cpu("bfloat16"), "bfloat16"),
        ("auto", "bfloat16", cpu(), "bfloat16"),
        ("auto", "float32", cpu("bfloat16"), "float32"),
        ("auto", "float16", cpu("bfloat16"), "bfloat16"),
        ("auto", "float16", cpu("float16"), "float16"),
        ("auto", "float16", cpu(), "float32"),
        ("auto", "float32", gpu("bfloat16"), "bfloat16"),
        ("auto", "float16", gpu("bfloat16"), "float16"),
        ("auto", "bfloat16", gpu(), "float16"),
        ("auto", "float8_e4m3fn", gpu("bfloat16"), "bfloat16"),
        ("half", "float32", cpu(), "float16"),
        ("float", "bfloat16", gpu(), "float32"),
        ("torch.bfloat16", "float32", cpu(), "bfloat16"),
    ],
)
def test_dtype(wanted: str, stored: str, device: DeviceInfo, chosen: str) -> None:
    assert resolve_dtype(wanted, stored, device) == chosen


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dtype": "int8"}, "dtype='int8' is not one of auto, half, float16"),
        ({"block_size": 10}, "block_size=10 is not one of 8, 16, 32, 64, 128"),
        ({"gpu_memory_utilization": 1.5}, "gpu_memory_utilization=1.5 is a share"),
        ({"num_gpu_blocks_override": 1}, "num_gpu_blocks_override=1 is too few"),
        ({"max_num_seqs": 0}, "max_num_seqs=0 is too small"),
        ({"max_num_batched_tokens": 0}, "max_num_batched_tokens=0 is too small"),
        ({"steps_in_flight": 0}, "steps_in_flight=0 is too small"),
        ({"max_logprobs": -2}, "max_logprobs=-2 is too small; give at least -1"),
        ({"long_prefill_token_threshold": -1}, "long_prefill_token_threshold=-1 is too small"),
        ({"scheduling_policy": "lifo"}, "scheduling_policy='lifo' is not one of fcfs, priority"),
        ({"load_format": "npcache"}, "load_format='npcache' is not one of"),
        ({"tensor_parallel_size": 2}, "tensor_parallel_size=2: only one process"),
        ({"max_model_len": 257}, "max_model_len=257 is larger than the model's own limit of 256"),
        ({"max_num_batched_tokens": 8, "max_num_seqs": 9}, "smaller than max_num_seqs=9"),
        (
            {"max_num_batched_tokens": 100, "enable_chunked_prefill": False},
            "smaller than max_model_len=256",
        ),
    ],
)
def test_a_wrong_value_is_one_clear_error(
    folder: Path, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        resolved(folder, **arguments)


def test_an_unknown_device_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="device='tpu' is not one of auto, cuda, cpu"):
        resolve(EngineArgs(str(folder), device="tpu"))


@pytest.mark.parametrize(
    ("arguments", "num_seqs", "num_tokens"),
    [
        ({"max_num_batched_tokens": 64}, 64, 64),
        ({"max_num_batched_tokens": "1k", "max_num_seqs": 8.0}, 8, 1000),
        ({"max_num_seqs": 4000}, 4000, 4000),
        ({"max_num_seqs": 2, "max_num_batched_tokens": 2}, 2, 2),
        ({"enable_chunked_prefill": False}, 256, 2048),
    ],
)
def test_an_open_limit_follows_the_other(
    folder: Path, arguments: dict[str, Any], num_seqs: int, num_tokens: int
) -> None:
    scheduler = resolved(folder, **arguments).scheduler
    assert (scheduler.max_num_seqs, scheduler.max_num_batched_tokens) == (num_seqs, num_tokens)


def test_an_unknown_activation_names_key_and_value(tmp_path: Path) -> None:
    folder = write_model_folder(tmp_path, hidden_act="banana")
    with pytest.raises(UnsupportedModelError, match="'hidden_act' = 'banana' is not supported"):
        resolved(folder)


# 2 layers x 2 KV heads x 8 values x 2 (keys, values) x 2 bytes
BYTES_PER_TOKEN = 128


def test_kv_memory_on_a_cpu_is_bounded_by_what_can_be_used(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_rows_full = (256 * 256 + 16) * BYTES_PER_TOKEN
    assert resolved(folder).cache.memory_bytes == all_rows_full
    monkeypatch.setattr(platform, "available_memory", lambda: 2**20)
    assert resolved(folder).cache.memory_bytes == 2**18
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    assert resolved(folder).cache.memory_bytes == 2**30
    assert resolved(folder, kv_cache_memory_bytes="2MiB").cache.memory_bytes == 2**21


def test_auto_length_is_what_fits(folder: Path) -> None:
    config = resolved(folder, max_model_len="auto", num_gpu_blocks_override=5)
    assert config.model.max_model_len == 4 * 16
    assert resolved(folder, max_model_len=-1).model.max_model_len == 256


def test_a_cache_too_small_is_refused_before_anything_is_loaded(folder: Path) -> None:
    with pytest.raises(OutOfMemoryError, match=r"stored in KV cache \(64\)"):
        resolved(folder, num_gpu_blocks_override=5)
    with pytest.raises(OutOfMemoryError, match="No available memory for the cache blocks"):
        resolved(folder, kv_cache_memory_bytes=1000)


def test_a_device_gets_the_attention_that_is_made_for_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert resolved(folder).device.attention_backend == "torch"
    monkeypatch.setattr(platform, "device_info", lambda kind: gpu("bfloat16"))
    on_gpu = resolve(EngineArgs(str(folder), device="cuda"))
    assert on_gpu.device.attention_backend == "triton"
    told = resolve(EngineArgs(str(folder), device="cuda", attention_backend="torch"))
    assert told.device.attention_backend == "torch"


def test_graphs_can_be_switched_off(folder: Path) -> None:
    assert resolved(folder).device.enforce_eager is False
    assert resolved(folder, enforce_eager=True).device.enforce_eager is True


def test_served_names(folder: Path) -> None:
    assert resolved(folder, served_model_name="a").model.served_model_name == ("a",)
    assert resolved(folder, served_model_name=["a", "b"]).model.served_model_name == ("a", "b")


def test_num_threads_follow_the_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert resolved(folder).device.num_threads == 3
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert resolved(folder).device.num_threads == platform.num_cpu_cores()


def test_description_tells_every_choice(folder: Path) -> None:
    facts = EngineFacts(
        num_blocks=101,
        block_size=16,
        max_num_seqs=256,
        max_model_len=256,
        weight_bytes=3 * 2**20,
        kv_cache_bytes=2**20,
        attention_backend="torch",
        phase_seconds={"weights": 0.5},
    )
    text = describe(resolved(folder), facts)
    for part in ("LlamaForCausalLM", "bfloat16", "torch", "3.00 MiB", "101 blocks of 16"):
        assert part in text
    assert "1,600 tokens" in text
    assert "6.2 requests of that length at once" in text
    assert "weights 0.50" in text
