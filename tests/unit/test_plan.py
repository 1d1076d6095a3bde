import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from quire import platform
from quire.args import BUNDLED_MODEL, EngineArgs
from quire.engine.build import build_core
from quire.errors import ModelLoadError, OutOfMemoryError, QuireError
from quire.kernels.cpp import library
from quire.kernels.cpu import onednn
from quire.kv_fit import ELEMENT_SIZE
from quire.plan import MemoryPlan, format_plan, make_plan
from quire.platform import DeviceInfo
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
    # A quarter of what the weights leave, as an engine on a CPU takes.
    assert plan.num_blocks == (2**20 - PARAMETERS * 2) // 4 // (16 * BYTES_PER_TOKEN)
    assert plan.longest_context == 256
    assert plan.concurrency == {256: (plan.num_blocks - 1) / 16}


def test_a_context_that_does_not_fit_is_cut_unless_it_was_asked_for(tmp_path: Path) -> None:
    folder = write_model_folder(tmp_path)
    memory = PARAMETERS * 2 + 10 * 16 * BYTES_PER_TOKEN
    plan = plan_of(folder, memory)
    assert (plan.longest_context, plan.max_model_len, plan.fits) == (5 * 16, 256, True)
    asked = plan_of(folder, memory, max_model_len=256)
    assert (asked.longest_context, asked.fits) == (5 * 16, False)
    assert "does not fit: max_model_len=256 needs" in format_plan(asked)


@pytest.mark.parametrize(
    ("length", "said"), [(None, "256 of the model's 256 tokens"), (128, "128 of the 128 of max_")]
)
def test_a_length_is_told_as_whose_it_is(tmp_path: Path, length: int | None, said: str) -> None:
    assert said in format_plan(plan_of(write_model_folder(tmp_path), "1MiB", max_model_len=length))


def test_a_plan_for_this_machine_is_what_an_engine_here_chooses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_model_folder(tmp_path)
    for free in (2**16, 2**20, 2**30):
        monkeypatch.setattr(platform, "available_memory", lambda free=free: free)
        config = resolve(EngineArgs(str(folder), device="cpu"))
        plan = plan_of(folder)
        assert plan.kv_cache_bytes == config.cache.memory_bytes
        assert plan.longest_context == config.model.max_model_len
        assert plan.usable_bytes == free


def test_a_plan_names_the_format_of_a_cache_that_has_its_own(tmp_path: Path) -> None:
    folder = write_model_folder(tmp_path)
    plain, fp8 = (plan_of(folder, "1GiB", kv_cache_dtype=one) for one in ("auto", "fp8"))
    assert (plain.kv_dtype, fp8.kv_dtype) == (plain.dtype, "fp8_e4m3")
    assert fp8.kv_bytes_per_token * ELEMENT_SIZE[plain.dtype] == plain.kv_bytes_per_token
    assert [", fp8_e4m3" in format_plan(plan) for plan in (plain, fp8)] == [False, True]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine has a GPU of 24 GiB."""
    info = DeviceInfo(
        kind="cuda", name="a GPU", memory_bytes=24 * 2**30, fast_dtypes=frozenset({"bfloat16"})
    )
    monkeypatch.setattr(platform, "device_info", lambda kind: info)


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("arguments", [{}, {"gpu_memory_utilization": 0.05}])
@pytest.mark.parametrize("told", ["kv_cache_memory_bytes", "num_gpu_blocks_override"])
def test_a_told_size_is_all_that_counts_on_a_gpu(
    tmp_path: Path, told: str, arguments: dict[str, Any]
) -> None:
    folder = write_model_folder(tmp_path)
    unit = 1 if told == "kv_cache_memory_bytes" else 16 * BYTES_PER_TOKEN
    many = {"max_num_seqs": 2**20, "max_num_batched_tokens": 2**20}
    arguments = {"device": "cuda", "block_size": 16, **many, **arguments}
    fitting = {**arguments, told: 22 * 2**30 // unit}
    config = resolve(EngineArgs(str(folder), **fitting))
    assert (config.cache.memory_bytes or (config.cache.num_blocks or 0) * unit) == 22 * 2**30
    plan = plan_of(folder, "24GiB", **fitting)
    assert (plan.kv_cache_bytes, plan.fits) == (22 * 2**30, True)
    too_large = {**arguments, told: 24 * 2**30 // unit}
    with pytest.raises(OutOfMemoryError, match=r"of the 24\.0 GiB of memory"):
        resolve(EngineArgs(str(folder), **too_large))
    # CUDA and the steps take the rest, of which the engine's configuration knows nothing
    with pytest.raises(OutOfMemoryError, match=r"of the 22\.5 GiB of memory"):
        plan_of(folder, "24GiB", **too_large)


def test_a_told_size_too_small_for_a_request_needs_what_a_request_needs(tmp_path: Path) -> None:
    plan = plan_of(write_model_folder(tmp_path), "24GiB", kv_cache_memory_bytes=100)
    assert not plan.fits
    assert plan.needed_bytes > plan.weight_bytes + plan.reserve_bytes + 100


@pytest.mark.parametrize("told", [{"kv_cache_memory_bytes": 9000}, {"num_gpu_blocks_override": 4}])
def test_a_told_size_is_taken_however_little_is_free_on_a_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: dict[str, Any]
) -> None:
    monkeypatch.setattr(platform, "available_memory", lambda: PARAMETERS)
    folder = write_model_folder(tmp_path)
    config = resolve(EngineArgs(str(folder), device="cpu", **told))
    plan = plan_of(folder, **told)
    assert (plan.fits, plan.num_blocks) == (True, 4)
    assert plan.longest_context == config.model.max_model_len == 3 * 16
    assert not plan_of(folder).fits


@pytest.mark.parametrize("memory", [None, "24GiB"])
def test_a_cache_that_the_memory_cannot_hold_is_refused(tmp_path: Path, memory: str | None) -> None:
    for device in ("cpu", "auto"):
        with pytest.raises(OutOfMemoryError, match=r"kv_cache_memory_bytes=.* asks for"):
            folder = write_model_folder(tmp_path)
            plan_of(folder, memory, device=device, kv_cache_memory_bytes="90TiB")


@pytest.mark.parametrize(
    ("save", "name"), [(save_file, "model.safetensors"), (torch.save, "pytorch_model.bin")]
)
def test_weights_that_belong_to_another_config_are_refused(
    tmp_path: Path, save: Callable[[dict[str, Tensor], Path], None], name: str
) -> None:
    folder = write_model_folder(tmp_path)
    save({"model.embed_tokens.weight": torch.zeros(64, 31)}, folder / name)
    with pytest.raises(ModelLoadError, match=r"has shape \[64, 31\] and the config asks"):
        plan_of(folder)
    assert plan_of(folder, load_format="dummy", skip_tokenizer_init=True).fits


def test_a_folder_that_an_engine_could_not_read_is_not_planned(tmp_path: Path) -> None:
    folder = shutil.copytree(BUNDLED_MODEL, tmp_path / "model")
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ModelLoadError, match=f"{folder} has no tokenizer"):
        plan_of(folder)
    assert plan_of(folder, skip_tokenizer_init=True).fits
    assert plan_of(folder, tokenizer=str(BUNDLED_MODEL)).fits
    assert "no weights" not in format_plan(plan_of(folder, skip_tokenizer_init=True))
    (folder / "model.safetensors").unlink()
    plan = plan_of(folder)
    assert plan.fits, "the config is enough where there is nothing else"
    assert f"no weights in {folder}: sizes are those of its config" in format_plan(plan)
    assert plan.to_json()["lacks_weights"] is True
    assert not plan_of(folder, load_format="dummy").lacks_weights, "none are wanted"


def test_a_model_that_does_not_fit_says_what_it_needs(tmp_path: Path) -> None:
    plan = plan_of(write_model_folder(tmp_path), PARAMETERS)
    assert (plan.longest_context, plan.kv_cache_bytes, plan.concurrency) == (0, 0, {})
    assert "does not fit: needs 45.0 KiB of memory" in format_plan(plan)
    assert not plan.fits


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"gpu_memory_utilization": 0.5},
        {"max_model_len": 200},
        {"gpu_memory_utilization": 0.5, "num_gpu_blocks_override": 20},
    ],
)
def test_the_memory_that_it_needs_is_the_least_that_fits(
    tmp_path: Path, device: str, arguments: dict[str, Any]
) -> None:
    folder = write_model_folder(tmp_path)
    plan = plan_of(folder, 2**14, device=device, **arguments)
    said = re.search(r"needs (\S+ \w+) of memory", format_plan(plan))
    assert said is not None and not plan.fits
    assert plan_of(folder, said[1], device=device, **arguments).fits
    assert plan_of(folder, plan.needed_bytes + 4, device=device, **arguments).fits
    if "num_gpu_blocks_override" in arguments:
        with pytest.raises(OutOfMemoryError, match="num_gpu_blocks_override=20 asks for"):
            plan_of(folder, plan.needed_bytes - 4, device=device, **arguments)
    else:
        assert not plan_of(folder, plan.needed_bytes - 4, device=device, **arguments).fits


def test_a_reserve_that_is_more_than_what_is_usable_is_no_part_of_it(tmp_path: Path) -> None:
    text = format_plan(plan_of(write_model_folder(tmp_path), "1MiB", device="cuda"))
    assert "942 KiB usable; CUDA and the steps alone take 1.50 GiB" in text


def test_a_cache_told_too_small_is_not_blamed_on_the_memory(tmp_path: Path) -> None:
    plan = plan_of(
        write_model_folder(tmp_path), "24GiB", num_gpu_blocks_override=2, max_model_len=32
    )
    assert "does not fit: max_model_len=32 needs a KV cache of 6.00 KiB" in format_plan(plan)


def test_a_gpu_can_be_planned_for_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "default_device", lambda: "cpu")
    folder = write_model_folder(tmp_path, torch_dtype="float32")
    for device in ("cuda", "auto"):
        plan = plan_of(folder, "24GiB", device=device, gpu_memory_utilization=0.5)
        assert (plan.device, plan.dtype) == ("a GPU", "bfloat16")
        assert plan.usable_bytes == 12 * 2**30
        assert plan.concurrency == {256: 512}, "more than all rows are not taken"
    crowded = plan_of(folder, "2GiB", device="cuda", max_num_seqs=10**6)
    assert crowded.kv_cache_bytes == int(0.92 * 2**31) - crowded.reserve_bytes - PARAMETERS * 2
    assert plan_of(folder, "24GiB", device="cpu").device == "a CPU"


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
    is_packed = tied and not onednn.why_not("cpu", getattr(torch, dtype))
    assert plan.copied_bytes == (64 * 32 * plan.fit.element_size if is_packed else 0)
    assert ("the embedding again" in format_plan(plan)) == is_packed
    assert plan.num_blocks == facts.num_blocks
    assert facts.kv_cache_bytes == plan.num_blocks * plan.fit.bytes_per_block


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tensor_parallel_size": 4}, "tensor_parallel_size=4: only one process"),
        ({"block_size": 7}, "block_size=7 is not one of 8, 16"),
        ({"device": "npu"}, "device='npu' is not one of"),
        ({"device": "cuda"}, "there is no GPU here .* --memory 24GiB"),
        ({"max_num_seqs": 9, "max_num_batched_tokens": 8}, "smaller than max_num_seqs=9"),
        ({"attention_backend": "foo"}, "attention_backend='foo'"),
        ({"attention_backend": "fa3"}, "'fa3' cannot serve this model: it needs a GPU"),
        ({"max_logprobs": -5}, "max_logprobs=-5 is too small"),
        ({"kv_cache_dtype": "fp4"}, "kv_cache_dtype='fp4' is none of auto, fp8, "),
        (
            {"kv_cache_dtype": "fp8", "attention_backend": "cpp"},
            "'cpp' cannot serve this model: .*leave kv_cache_dtype at 'auto' for it",
        ),
        (
            {"override_generation_config": {"temperature": 5}},
            "^override_generation_config: temperature must be a number in",
        ),
    ],
)
def test_what_an_engine_would_refuse_is_not_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr(platform, "default_device", lambda: "cpu")
    with pytest.raises(ValueError, match=message):
        plan_of(write_model_folder(tmp_path), **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tokenizer_mode": "foo"}, "tokenizer_mode must be one of .* got 'foo'"),
        ({"load_format": "pt"}, "no weights in .* for load_format 'pt'"),
    ],
)
def test_how_the_files_are_to_be_read_is_checked(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, QuireError), match=message):
        plan_of(BUNDLED_MODEL, **arguments)


def test_what_a_gpu_elsewhere_can_do_is_not_known_here(tmp_path: Path) -> None:
    folder = write_model_folder(tmp_path)
    assert plan_of(folder, "24GiB", device="cuda", attention_backend="fa3").fits


def test_no_kernels_are_compiled_for_a_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compiled() -> Path:
        raise AssertionError("a plan computes nothing")

    library._library.cache_clear()
    monkeypatch.setattr(library, "compiled", compiled)
    assert plan_of(write_model_folder(tmp_path), device="cpu").fits
    with pytest.raises(AssertionError, match="computes nothing"):
        plan_of(write_model_folder(tmp_path), device="cpu", attention_backend="cpp")


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
    assert figures["fits"] is True
    assert figures["concurrency"]["256"] == pytest.approx(plan.concurrency[256], abs=0.01)
