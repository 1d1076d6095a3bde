"""Plans say what a model weighs; loading agrees, and refuses what it does not understand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from quire.errors import ModelLoadError, UnsupportedModelError
from quire.models.loading import build_model, check_weights, plan_of, weight_bytes
from quire.weights.checkpoint import open_checkpoint
from tests.models.configs import PARITY_ROWS, ParityRow, engine_config, save_random_model

_ROWS = {row.id: row for row in PARITY_ROWS}
_PLAIN = _ROWS["LlamaForCausalLM-plain"]


def _hf_config(row: ParityRow) -> dict[str, Any]:
    config: dict[str, Any] = row.make_config().to_dict()
    return config


@pytest.mark.parametrize("row", PARITY_ROWS, ids=lambda row: row.id)
def test_plan_counts_the_parameters_that_transformers_has(row: ParityRow, tmp_path: Path) -> None:
    model = save_random_model(row, tmp_path)
    plan = plan_of(_hf_config(row), row.architecture)
    # What is saved, for a part that is no parameter to an optimizer may be one here; tied: once.
    saved = {tensor.data_ptr(): tensor.numel() for tensor in model.state_dict().values()}
    assert plan.spec.num_parameters == sum(saved.values())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["LlamaForCausalLM-plain", "GPT2LMHeadModel-plain"])
def test_plan_agrees_with_the_bytes_loaded(name: str, dtype: str, tmp_path: Path) -> None:
    row = _ROWS[name]
    save_random_model(row, tmp_path)
    loaded = build_model(engine_config(tmp_path, dtype=dtype))
    plan = plan_of(_hf_config(row), row.architecture)
    assert loaded.weight_bytes == weight_bytes(plan, getattr(torch, dtype), "cpu")


def test_dummy_weights_need_no_files() -> None:
    hf_config = _hf_config(_PLAIN) | {"architectures": [_PLAIN.architecture]}
    config = engine_config(Path("/nowhere"), hf_config=hf_config)
    loaded = build_model(replace(config, load=replace(config.load, load_format="dummy")))
    plan = plan_of(hf_config, _PLAIN.architecture)
    assert loaded.weight_bytes == weight_bytes(plan, torch.float32, "cpu")
    assert loaded.kv_layout == plan.spec.kv_layout


def test_unused_tensors_are_told_in_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_random_model(_PLAIN, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    extra = {f"visual.block.{i}.weight": torch.zeros(2) for i in range(7)}
    save_file(tensors | extra, tmp_path / "model.safetensors")
    build_model(engine_config(tmp_path, dtype="float32"))
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert f"7 tensors in {tmp_path} are not used by LlamaForCausalLM" in record.getMessage()
    assert "visual.block.4.weight, ..." in record.getMessage()


@pytest.mark.parametrize("cache_dtype", ["auto", "fp8_e4m3"])
def test_scales_of_a_cache_are_missed_by_those_who_want_such_a_cache(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, cache_dtype: str
) -> None:
    save_random_model(_PLAIN, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    extra = {
        f"model.layers.{i}.self_attn.attn.{one}_scale": torch.tensor(0.1)
        for i in (0, 1)
        for one in "kv"
    }
    save_file(tensors | extra, tmp_path / "model.safetensors")
    config = engine_config(tmp_path, dtype="float32")
    build_model(replace(config, cache=replace(config.cache, cache_dtype=cache_dtype)))
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(said) == (cache_dtype != "auto")
    assert all(f"the 4 scales of an fp8 KV cache in {tmp_path} are not" in one for one in said)


def test_a_checkpoint_that_is_used_whole_brings_no_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_random_model(_PLAIN, tmp_path)
    build_model(engine_config(tmp_path, dtype="float32"))
    assert caplog.records == []


@pytest.mark.parametrize(
    ("row", "key", "default"),
    [
        ("GemmaForCausalLM", "head_dim", 256),
        ("MistralForCausalLM", "num_key_value_heads", 8),
        ("MixtralForCausalLM", "num_key_value_heads", 8),
        ("MixtralForCausalLM", "rms_norm_eps", 1e-5),
        ("MistralForCausalLM", "sliding_window", 4096),
    ],
)
def test_a_silent_config_means_what_it_means_to_transformers(
    row: str, key: str, default: float
) -> None:
    written = next(_hf_config(r) for r in PARITY_ROWS if r.architecture == row)
    # As many heads as the defaults need.
    written |= {"num_attention_heads": 8, "hidden_size": 64, "num_key_value_heads": 8}
    silent = {name: value for name, value in written.items() if name != key}
    assert plan_of(silent, row).spec == plan_of(written | {key: default}, row).spec


def test_a_mistral_whose_window_is_null_sees_everything() -> None:
    written = _hf_config(next(r for r in PARITY_ROWS if r.architecture == "MistralForCausalLM"))
    spec = plan_of(written | {"sliding_window": None}, "MistralForCausalLM").spec
    assert {layer.attention.window for layer in spec.layers} == {None}


def test_a_window_that_is_switched_on_without_a_size_has_that_of_transformers() -> None:
    written = _hf_config(_ROWS["Qwen2ForCausalLM-upper-windows"])
    silent = {key: value for key, value in written.items() if key != "sliding_window"}
    windows = {layer.attention.window for layer in plan_of(silent, "Qwen2ForCausalLM").spec.layers}
    assert windows == {None, 4096}


def test_headers_are_compared_with_the_config(tmp_path: Path) -> None:
    save_random_model(_PLAIN, tmp_path)
    check_weights(plan_of(_hf_config(_PLAIN), _PLAIN.architecture), open_checkpoint(tmp_path))
    changed = _hf_config(_PLAIN) | {"intermediate_size": 24}
    with pytest.raises(ModelLoadError, match=r"mlp\.gate_proj\.weight .* has shape .* belong to"):
        check_weights(plan_of(changed, _PLAIN.architecture), open_checkpoint(tmp_path))


def test_a_truncated_file_is_found_by_its_header(tmp_path: Path) -> None:
    save_random_model(_PLAIN, tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ModelLoadError, match="is truncated"):
        check_weights(plan_of(_hf_config(_PLAIN), _PLAIN.architecture), open_checkpoint(tmp_path))


@pytest.mark.parametrize("name", ["MixtralForCausalLM", "Qwen3MoeForCausalLM"])
def test_experts_fused_by_transformers_are_refused_with_a_remedy(name: str, tmp_path: Path) -> None:
    row = next(row for row in PARITY_ROWS if row.architecture == name)
    save_random_model(row, tmp_path).save_pretrained(tmp_path, save_original_format=False)
    message = "save_original_format=False; load it with model_impl='transformers', or"
    with pytest.raises(ModelLoadError, match=message):
        check_weights(plan_of(_hf_config(row), name), open_checkpoint(tmp_path))
    config = engine_config(tmp_path)
    with pytest.raises(ModelLoadError, match=message):
        build_model(config)
    build_model(replace(config, model=replace(config.model, model_impl="transformers")))


def test_unknown_activation_names_key_value_and_choices() -> None:
    with pytest.raises(UnsupportedModelError, match=r"'hidden_act' = 'banana'.*supported: silu"):
        plan_of(_hf_config(_PLAIN) | {"hidden_act": "banana"}, "LlamaForCausalLM")


def test_key_with_unknown_behaviour_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedModelError, match=r"'logit_scale' = 0\.5"):
        plan_of(_hf_config(_PLAIN) | {"logit_scale": 0.5}, "LlamaForCausalLM")


def test_missing_size_is_named() -> None:
    config = _hf_config(_PLAIN)
    del config["hidden_size"]
    with pytest.raises(UnsupportedModelError, match="'hidden_size' is missing"):
        plan_of(config, "LlamaForCausalLM")


def test_rope_type_without_an_implementation_is_refused() -> None:
    rope = {"rope_type": "mrope", "factor": 2.0}
    with pytest.raises(UnsupportedModelError, match=r"'mrope'.*supported: default, linear"):
        plan_of(_hf_config(_PLAIN) | {"rope_parameters": rope}, "LlamaForCausalLM")


def test_layer_types_must_fit_the_layers() -> None:
    config = _hf_config(_ROWS["Qwen2ForCausalLM-plain"])
    for kinds, complaint in ((["full_attention"], "1 entries"), (["full_attention", "x"], "'x'")):
        with pytest.raises(UnsupportedModelError, match=complaint):
            plan_of(config | {"layer_types": kinds}, "Qwen2ForCausalLM")


def test_missing_tensor_is_named_and_strange_one_is_reported(tmp_path: Path) -> None:
    save_random_model(_PLAIN, tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    save_file(tensors | {"model.layers.0.strange.weight": torch.zeros(1)}, file)
    loaded = build_model(engine_config(tmp_path))
    assert loaded.report.unused == ("model.layers.0.strange.weight",)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, file)
    with pytest.raises(ModelLoadError, match=r"model\.layers\.1\.mlp\.up_proj\.weight"):
        build_model(engine_config(tmp_path))


def test_windows_split_the_layers_into_groups() -> None:
    row = _ROWS["Qwen2ForCausalLM-upper-windows"]
    layout = plan_of(_hf_config(row), row.architecture).spec.kv_layout
    assert [(group.window, group.layers) for group in layout.groups] == [
        (None, (0, 1)),
        (6, (2, 3)),
    ]
