import dataclasses
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

from quire import platform
from quire.args import BUNDLED_MODEL, EngineArgs
from quire.config import DEVICE_DEFAULTS, EngineConfig
from quire.errors import OutOfMemoryError, UnsupportedModelError
from quire.platform import DeviceInfo
from quire.resolve import check_alone, default_served_name, describe, resolve, resolve_dtype
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


def test_what_says_nothing_passes(folder: Path) -> None:
    """No seed is the default one, and the cache may be named by the format that it has."""
    plain = resolved(folder)
    assert (plain.model.seed, plain.model.dtype) == (0, "bfloat16")
    for given in ({"seed": None}, {"kv_cache_dtype": "bfloat16"}, {"kv_cache_dtype": None}):
        assert resolved(folder, **given) == plain
    assert resolved(folder, dtype="half", kv_cache_dtype="float16").model.dtype == "float16"


@pytest.mark.parametrize(
    ("given", "name"),
    [("fp8", "fp8_e4m3"), ("fp8_e4m3", "fp8_e4m3"), ("fp8_e5m2", "fp8_e5m2")],
)
def test_an_fp8_cache_takes_half_the_memory_of_one_of_the_model(
    folder: Path, caplog: pytest.LogCaptureFixture, given: str, name: str
) -> None:
    caplog.set_level("INFO")
    plain, fp8 = (
        resolved(folder, kv_cache_memory_bytes="32MiB", kv_cache_dtype=one)
        for one in ("auto", given)
    )
    assert (plain.kv_dtype, fp8.kv_dtype) == ("bfloat16", name)
    assert plain.cache.memory_bytes == 2 * (fp8.cache.memory_bytes or 0)  # as much as can be used
    (said,) = [one for one in caplog.messages if "without scales" in one]
    assert said.startswith(f"kv_cache_dtype={name}: ")
    assert (plain.device.attention_backend, fp8.device.attention_backend) == ("cpp,torch", "torch")


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
    ("stored", "device", "chosen"),
    [
        ("float16", gpu("bfloat16"), "bfloat16"),
        ("float16", gpu(), "float32"),
        ("bfloat16", gpu(), "float32"),
        ("float32", gpu(), "float32"),
        ("bfloat16", gpu("bfloat16"), "bfloat16"),
        ("float16", cpu("float16"), "float32"),
        ("float16", cpu("float16", "bfloat16"), "bfloat16"),
        ("bfloat16", cpu(), "bfloat16"),
    ],
)
def test_auto_is_no_dtype_that_the_models_values_overflow(
    stored: str, device: DeviceInfo, chosen: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "quire.resolve")
    assert resolve_dtype("auto", stored, device, "gemma2") == chosen
    assert ("run in" in caplog.text) == (chosen != stored)
    assert ("gemma2 models overflow float16" in caplog.text) == (stored == "float16")
    assert "set dtype=float16" not in caplog.text


@pytest.mark.parametrize("model_type", ["gemma2", "gemma3", "gemma3_text", "glm4"])
@pytest.mark.parametrize("wanted", ["half", "float16", "torch.float16"])
def test_float16_is_refused_for_a_model_that_overflows_it(
    folder: Path, wanted: str, model_type: str
) -> None:
    write_model_folder(folder, model_type=model_type)
    message = rf"^dtype='{wanted}': {model_type} models .* use bfloat16 or float32$"
    with pytest.raises(ValueError, match=message):
        resolved(folder, dtype=wanted)
    assert resolve_dtype("bfloat16", "float16", gpu(), model_type) == "bfloat16"


@pytest.mark.parametrize("name", ["Gemma2ForCausalLM", "Gemma3ForCausalLM", "Glm4ForCausalLM"])
@pytest.mark.parametrize("model_type", [None, "llama"])
def test_an_architecture_that_overflows_float16_is_known_without_its_model_type(
    folder: Path, name: str, model_type: str | None
) -> None:
    write_model_folder(folder, model_type=model_type, architectures=[name])
    with pytest.raises(ValueError, match=rf"^dtype='half': {name} models .* use bfloat16 or"):
        resolved(folder, dtype="half")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dtype": "int8"}, "dtype='int8' is not one of auto, half, float16"),
        (
            {"kv_cache_dtype": "int8"},
            "kv_cache_dtype='int8' is none of auto, fp8, fp8_e4m3, fp8_e5m2 and the model's dtype$",
        ),
        ({"kv_cache_dtype": "FP8"}, "and the model's dtype; did you mean fp8"),
        (
            {"kv_cache_dtype": "half", "dtype": "float32"},
            "kv_cache_dtype='half': the KV cache has the dtype of the model, float32, or one of "
            "fp8_e4m3, fp8_e5m2; leave it at 'auto', or give dtype='float16' too",
        ),
        ({"block_size": 10}, "block_size=10 is not one of 8, 16, 32, 64, 128"),
        ({"gpu_memory_utilization": 1.5}, "gpu_memory_utilization=1.5 is a share"),
        ({"num_gpu_blocks_override": 1}, "num_gpu_blocks_override=1 is too few"),
        ({"max_num_seqs": 0}, "max_num_seqs=0 is too small"),
        ({"max_num_seqs": 10**9}, "max_num_seqs=1000000000 is more than the limit of 1048576"),
        ({"max_num_batched_tokens": 0}, "max_num_batched_tokens=0 is too small"),
        ({"steps_in_flight": 0}, "steps_in_flight=0 is too small"),
        ({"max_logprobs": -2}, "max_logprobs=-2 is too small; give at least -1"),
        ({"long_prefill_token_threshold": -1}, "long_prefill_token_threshold=-1 is too small"),
        ({"scheduling_policy": "lifo"}, "scheduling_policy='lifo' is not one of fcfs, priority"),
        ({"load_format": "zip"}, "load_format='zip' is not one of"),
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_model_len": 0}, "max_model_len=0 is not a length; give a number of tokens of at"),
        ({"gpu_memory_utilization": float("nan")}, "gpu_memory_utilization=nan is a share"),
        ({"max_num_seqs": "0k"}, "max_num_seqs=0 is too small"),
        ({"max_num_batched_tokens": 8, "max_num_seqs": 9}, "smaller than max_num_seqs=9"),
        (
            {"max_num_batched_tokens": 8, "max_model_len": 9, "enable_chunked_prefill": False},
            "smaller than max_model_len=9",
        ),
        ({"kv_cache_dtype": "fp4"}, "kv_cache_dtype='fp4'"),
        ({"pipeline_parallel_size": 0}, "pipeline_parallel_size=0: only one process"),
        ({"max_logprobs": 2.5}, r"max_logprobs=2\.5 \(float\) must be a whole number"),
    ],
)
def test_what_no_model_and_no_device_makes_right_is_refused_without_them(
    monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], message: str
) -> None:
    monkeypatch.delattr(platform, "device_info")
    with pytest.raises(ValueError, match=message):
        check_alone(EngineArgs("no/such-model", **arguments))


@pytest.mark.parametrize("kind", list(DEVICE_DEFAULTS))
def test_what_is_right_on_one_device_passes_without_one(kind: str) -> None:
    defaults = DEVICE_DEFAULTS[kind]
    check_alone(EngineArgs("no/such-model"))
    check_alone(
        EngineArgs(
            "no/such-model",
            block_size=defaults.block_size,
            max_num_seqs=defaults.max_num_seqs,
            max_num_batched_tokens=defaults.max_num_batched_tokens,
            steps_in_flight=defaults.steps_in_flight,
            max_model_len="auto",
            attention_backend=defaults.attention_backend.split(",")[0],
        )
    )
    check_alone(EngineArgs("no/such-model", max_num_seqs=1 << 20))
    check_alone(EngineArgs("no/such-model", max_num_batched_tokens=1))


def test_an_unknown_device_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="device='npu' is not one of auto, cuda, cpu"):
        resolve(EngineArgs(str(folder), device="npu"))


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
# See test_plan.py; 16 bits each.
WEIGHT_BYTES = 2 * (2 * (3 * 32 * 32 + 3 * 32 * 48 + 2 * 32) + 2 * 64 * 32 + 32)


def test_kv_memory_on_a_cpu_is_bounded_by_what_can_be_used(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_rows_full = (256 * 256 + 16) * BYTES_PER_TOKEN
    assert resolved(folder).cache.memory_bytes == all_rows_full
    monkeypatch.setattr(platform, "available_memory", lambda: WEIGHT_BYTES + 2**20)
    assert resolved(folder).cache.memory_bytes == 2**18
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    assert resolved(folder).cache.memory_bytes == all_rows_full
    assert resolved(folder, kv_cache_memory_bytes="2MiB").cache.memory_bytes == 2**21


def test_auto_length_is_what_fits(folder: Path) -> None:
    config = resolved(folder, max_model_len="auto", num_gpu_blocks_override=5)
    assert config.model.max_model_len == 4 * 16
    assert resolved(folder, max_model_len=-1).model.max_model_len == 256


def test_a_cache_too_small_is_refused_before_anything_is_loaded(folder: Path) -> None:
    with pytest.raises(OutOfMemoryError, match=r"stored in KV cache \(64\)"):
        resolved(folder, num_gpu_blocks_override=5, max_model_len=256)
    with pytest.raises(OutOfMemoryError, match="No available memory for the cache blocks"):
        resolved(folder, kv_cache_memory_bytes=1000)


def test_a_length_that_nobody_asked_for_is_cut_to_what_fits(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    free = 4 * 16 * BYTES_PER_TOKEN / 0.6 + 16 * BYTES_PER_TOKEN  # 60 % of it: 4 blocks and a bit
    monkeypatch.setattr(platform, "available_memory", lambda: WEIGHT_BYTES + int(free))
    assert resolved(folder).model.max_model_len == 3 * 16
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "max_model_len is 48: the model's 256 tokens do not fit" in record.getMessage()
    with pytest.raises(OutOfMemoryError, match=r"max seq len \(256\) is larger"):
        resolved(folder, max_model_len=256)


def test_weights_without_room_are_refused_before_they_are_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "available_memory", lambda: WEIGHT_BYTES)
    with pytest.raises(OutOfMemoryError, match=r"the weights take .* of memory are free; choose"):
        resolved(folder)


def test_more_than_the_machine_has_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "device_info", lambda kind: cpu())
    for arguments in ({"kv_cache_memory_bytes": "900GiB"}, {"num_gpu_blocks_override": 10**9}):
        with pytest.raises(OutOfMemoryError, match=r"8\.00 GiB of memory here .* give at most"):
            resolved(folder, **arguments)
    monkeypatch.setenv("QUIRE_CPU_KVCACHE_SPACE", "900")
    with pytest.raises(OutOfMemoryError, match=r"QUIRE_CPU_KVCACHE_SPACE asks for .* of 900 GiB"):
        resolved(folder)


def test_a_cache_larger_than_can_be_filled_is_told(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    resolved(folder, kv_cache_memory_bytes=9 * 2**20)
    assert "more than 256 completions of 256 tokens can fill; using 8.00 MiB" in caplog.text


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (10, r"\(kv_cache_memory_bytes=10; did you mean 10GiB\?\)"),
        (-1, "kv_cache_memory_bytes=-1 is too small"),
        ("lots", "kv_cache_memory_bytes: 'lots' is not a size"),
    ],
)
def test_a_senseless_size_is_named(folder: Path, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolved(folder, kv_cache_memory_bytes=value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_num_seqs": "x"}, "max_num_seqs: 'x' is not a count"),
        ({"max_model_len": 2048.5}, r"max_model_len=2048\.5 \(float\) must be a whole number or"),
        ({"max_model_len": "long"}, "max_model_len: 'long' is not a count"),
        ({"enforce_eager": "yes"}, r"enforce_eager='yes' \(str\) must be True or False"),
        ({"block_size": True}, r"block_size=True \(bool\) must be a whole number or None"),
        ({"seed": "x"}, r"seed='x' \(str\) must be a whole number or None"),
        ({"served_model_name": [1]}, r"served_model_name=\[1\] \(list\) must be a string or a"),
        ({"override_generation_config": "{}"}, r"\(str\) must be a dictionary or None"),
        ({"gpu_memory_utilization": "0.9"}, "must be a number"),
    ],
)
def test_a_wrong_type_is_one_clear_error(
    folder: Path, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        resolved(folder, **arguments)


def test_arguments_that_mean_nothing_here_are_told(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    resolved(folder, gpu_memory_utilization=0.5, revision="foo", tokenizer_revision="bar")
    texts = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [text.split(";")[0].split(":")[0] for text in texts] == [
        "gpu_memory_utilization=0.5 has no effect on a CPU",
        "revision=foo has no effect",
        "tokenizer_revision=bar has no effect",
    ]


def test_a_device_gets_the_attention_that_is_made_for_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert resolved(folder).device.attention_backend == "cpp,torch"
    monkeypatch.setattr(platform, "device_info", lambda kind: gpu("bfloat16"))
    on_gpu = resolve(EngineArgs(str(folder), device="cuda"))
    assert on_gpu.device.attention_backend == "triton"
    told = resolve(EngineArgs(str(folder), device="cuda", attention_backend="torch"))
    assert told.device.attention_backend == "torch"


@pytest.mark.parametrize(("is_installed", "wanted"), [(True, "cudnn,torch"), (False, "torch")])
def test_a_default_attention_backend_that_is_not_installed_is_not_tried(
    folder: Path, monkeypatch: pytest.MonkeyPatch, is_installed: bool, wanted: str
) -> None:
    named = dataclasses.replace(DEVICE_DEFAULTS["cpu"], attention_backend="cudnn,torch")
    monkeypatch.setitem(DEVICE_DEFAULTS, "cpu", named)
    spec = ModuleSpec("cudnn", None) if is_installed else None
    monkeypatch.setattr("quire.resolve.find_spec", lambda name: spec)
    assert resolved(folder).device.attention_backend == wanted
    monkeypatch.setenv("QUIRE_ATTENTION_BACKEND", "triton")
    assert resolved(folder).device.attention_backend == f"triton,{wanted}"
    monkeypatch.setenv("QUIRE_ATTENTION_BACKEND", wanted.split(",")[0])
    assert resolved(folder).device.attention_backend == wanted
    monkeypatch.setenv("QUIRE_ATTENTION_BACKEND", "torch")
    assert resolved(folder).device.attention_backend == "torch"


def test_an_attention_backend_may_be_named_as_elsewhere(folder: Path) -> None:
    assert resolved(folder, attention_backend="TORCH_SDPA").device.attention_backend == "torch"
    assert resolved(folder, attention_backend=None).device.attention_backend == "cpp,torch"
    with pytest.raises(ValueError, match=r"attention_backend='XFORMERS': .*the closest: triton"):
        resolved(folder, attention_backend="XFORMERS")


@pytest.mark.parametrize("name", ["QUIRE_ATTENTION_BACKEND", "VLLM_ATTENTION_BACKEND"])
def test_a_preferred_attention_backend_stands_before_the_default(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "FLASHINFER")
    assert resolved(folder).device.attention_backend == "flashinfer,cpp,torch"
    told = resolved(folder, attention_backend="torch")
    assert told.device.attention_backend == "torch", "what is said to this engine goes first"
    monkeypatch.setenv(name, "torch")
    assert resolved(folder).device.attention_backend == "torch"
    monkeypatch.setenv(name, "CPU_ATTN")
    assert resolved(folder).device.attention_backend == "cpp,torch"
    monkeypatch.setenv(name, "FLASHINFR")
    with pytest.raises(ValueError, match=f"environment variable {name}='FLASHINFR': .*flashinfer"):
        resolved(folder)


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


@pytest.mark.parametrize(("threads", "shown"), [("1", "1 thread"), ("3", "3 threads")])
def test_description_tells_every_choice(
    folder: Path, monkeypatch: pytest.MonkeyPatch, threads: str, shown: str
) -> None:
    monkeypatch.setenv("QUIRE_NUM_THREADS", threads)
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
    assert f"cpu, {shown} (QUIRE_NUM_THREADS)\n" in text
    assert "1,600 tokens" in text
    assert "6.2 requests of that length at once" in text
    assert "weights 0.50" in text


def test_the_bundled_model_is_served_under_its_name() -> None:
    assert default_served_name(str(BUNDLED_MODEL)) == "tiny-chat"
    assert default_served_name("/models/tiny-chat") == "/models/tiny-chat"
