"""What has no file in Quire runs through transformers or is refused for a reason that is named.

That such models agree with transformers is in the parity table (`rows/fallback.py`).
"""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from quire import LLM, SamplingParams
from quire.config import EngineConfig
from quire.errors import ModelLoadError, UnsupportedModelError
from quire.models.fallback.model import TransformersModel
from quire.models.fallback.weights import load_model
from quire.models.loading import LoadedModel, build_model, choose_implementation, facts_of
from quire.models.source import ModelSource
from quire.plan import make_plan
from quire.weights.checkpoint import open_checkpoint
from tests.fakes.engines import engine_args
from tests.models.configs import FALLBACK_ROWS, PARITY_ROWS, engine_config, save_random_model
from tests.models.reference import Reference
from tests.models.row import SMALL, ParityRow, parity_row

_ROWS = {row.id: row for row in (*PARITY_ROWS, *FALLBACK_ROWS)}
_ARCEE = _ROWS["ArceeForCausalLM-plain"]


def _config_of(row: ParityRow) -> dict[str, Any]:
    return {**row.make_config().to_dict(), "architectures": [row.architecture]}


def _small(architecture: str, config: str, **fields: Any) -> dict[str, Any]:
    made = getattr(transformers, config)(**{**SMALL, **fields})
    return {**json.loads(made.to_json_string()), "architectures": [architecture]}


def _build(config: dict[str, Any], **changes: Any) -> LoadedModel:
    """Load with random weights, through transformers."""
    engine = engine_config(Path("/nowhere"), hf_config={"vocab_size": 97, **config})
    model = replace(engine.model, model_impl="transformers", **changes)
    return build_model(replace(engine, model=model, load=replace(engine.load, load_format="dummy")))


def _forced(config: EngineConfig) -> EngineConfig:
    return replace(config, model=replace(config.model, model_impl="transformers"))


@pytest.mark.parametrize("row", FALLBACK_ROWS, ids=lambda row: row.id)
def test_facts_are_known_without_weights_and_right(row: ParityRow, tmp_path: Path) -> None:
    model = save_random_model(row, tmp_path)
    config = engine_config(tmp_path)
    facts = facts_of(ModelSource.of(config.model), "cpu")
    loaded = build_model(config)
    assert facts.num_parameters == model.num_parameters()
    assert facts.vocab_size == model.config.vocab_size
    assert facts.weight_bytes == loaded.weight_bytes
    assert facts.kv_layout == loaded.kv_layout


def test_the_layout_follows_the_calls() -> None:
    layout = _build(_config_of(_ROWS["Exaone4ForCausalLM-windows"])).kv_layout
    assert [kv.window for kv in layout.layers] == [6, 6, 6, None]
    assert {(kv.num_kv_heads, kv.head_dim) for kv in layout.layers} == {(2, 8)}
    twice = _build(_config_of(_ROWS["DiffLlamaForCausalLM-two-calls-a-layer"])).kv_layout
    assert len(twice.layers) == 4


def test_memory_is_planned_from_the_config_alone(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(_config_of(_ARCEE)))
    plan = make_plan(engine_args(tmp_path))
    assert (plan.architecture, plan.kv_bytes_per_token) == ("ArceeForCausalLM", 2 * 2 * 2 * 8 * 4)
    assert plan.fits


@pytest.mark.parametrize(
    "name", ["LlamaForCausalLM-plain", "Gemma2ForCausalLM", "GptOssForCausalLM"]
)
def test_a_known_architecture_runs_so_when_it_is_asked_for(name: str, tmp_path: Path) -> None:
    row = next(row for row in PARITY_ROWS if row.id.startswith(name))
    reference = Reference(save_random_model(row, tmp_path))
    params = SamplingParams(temperature=0, max_tokens=8, logprobs=2)
    prompts = [{"prompt_token_ids": one} for one in reference.random_prompts((19, 4))]
    args = vars(engine_args(tmp_path, model_impl="transformers", max_num_batched_tokens=8))
    with LLM(**args) as llm:
        for output in llm.generate(prompts, params, use_tqdm=False):
            reference.check(output, params)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_experts_of_any_width(dtype: str) -> None:
    """That their logits are those of transformers is checked at load."""
    sizes = {"moe_intermediate_size": 10, "num_experts": 4, "num_experts_per_tok": 2}
    _build(_small("Qwen3MoeForCausalLM", "Qwen3MoeConfig", **sizes), dtype=dtype)


def test_the_choice_of_implementation(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert choose_implementation("auto", "LlamaForCausalLM") == "quire"
    assert choose_implementation("vllm", "ArceeForCausalLM") == "quire"
    assert caplog.records == []
    assert choose_implementation("auto", "ArceeForCausalLM") == "transformers"
    assert choose_implementation("transformers", "LlamaForCausalLM") == "transformers"
    unknown, known = (record.getMessage() for record in caplog.records)
    assert unknown.startswith("ArceeForCausalLM, which has no implementation in Quire, runs thr")
    assert known.startswith("LlamaForCausalLM, as model_impl says, runs through")
    with pytest.raises(ValueError, match="model_impl='hf' is not one of auto, quire, vllm, transf"):
        choose_implementation("hf", "LlamaForCausalLM")


def test_without_the_fallback_an_unknown_architecture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(_config_of(_ARCEE)))
    with pytest.raises(UnsupportedModelError, match="'ArceeForCausalLM' has no implementation in"):
        engine_args(tmp_path, model_impl="quire", load_format="dummy").create_engine_config()


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (_small("MambaForCausalLM", "MambaConfig"), "keeps a recurrent state"),
        (_small("FalconH1ForCausalLM", "FalconH1Config"), "keeps a recurrent state"),
        (
            _small("Lfm2ForCausalLM", "Lfm2Config", layer_types=["conv", "full_attention"]),
            "1 of its 2 layers call",
        ),
        (
            _small(
                "GraniteMoeHybridForCausalLM",
                "GraniteMoeHybridConfig",
                **{"layer_types": ["mamba", "attention"], "mamba_n_heads": 4, "mamba_d_head": 16},
            ),
            "keeps a recurrent state",
        ),
        (_small("CpmAntForCausalLM", "CpmAntConfig", dim_head=8), "0 of its 2 layers call"),
        (_small("BertLMHeadModel", "BertConfig"), "not causal"),
        (_small("BloomForCausalLM", "BloomConfig", n_head=4), "changes the attention mask"),
        (_small("BartForCausalLM", "BartConfig"), "encoder-decoder"),
        (
            {"architectures": ["NoSuchForCausalLM"], "model_type": "nothing"},
            "has no causal language model 'NoSuchForCausalLM'.* no code of its own",
        ),
        (
            {"architectures": ["ArceeModel"], "model_type": "arcee"},
            r"ArceeModel of .* generates no text; if .*'\{\"architectures\": \[\"ArceeForCausalLM",
        ),
        (
            {"architectures": ["LlamaForSequenceClassification"], "model_type": "llama"},
            "LlamaForSequenceClassification of transformers generates no text; if .*LlamaForCausal",
        ),
        (
            {"architectures": ["ViTModel"], "model_type": "vit"},
            "ViTModel of transformers generates no text, and Quire serves models that do$",
        ),
        ({"architectures": ["T5ForConditionalGeneration"], "model_type": "t5"}, "encoder-decoder"),
        (
            {"architectures": ["ArceeForCausalLM"], "model_type": "nothing"},
            "knows no model_type 'nothing'",
        ),
        (
            _small("ArceeForCausalLM", "ArceeConfig") | {"model_type": "llama"},
            "ArceeForCausalLM of transformers goes with model_type 'arcee', and .* says 'llama'; "
            r"if .*'\{\"model_type\": \"arcee\"\}'$",
        ),
        (_small("Llama4ForCausalLM", "Llama4TextConfig"), "has chunked attention"),
        (
            _small("ArceeForCausalLM", "ArceeConfig") | {"num_attention_heads": "four"},
            "ArceeConfig of transformers does not accept this config.json",
        ),
    ],
    ids=lambda value: value["architectures"][0] if isinstance(value, dict) else "",
)
def test_what_cannot_be_right_is_refused(config: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnsupportedModelError, match=reason):
        _build(config)


def test_an_option_of_attention_that_nobody_understands_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from transformers.models.arcee import modeling_arcee

    plain = modeling_arcee.ArceeAttention.forward

    def tilted(self: Any, *given: Any, **more: Any) -> Any:
        return plain(self, *given, **more, tilt=0.5)

    monkeypatch.setattr(modeling_arcee.ArceeAttention, "forward", tilted)
    with pytest.raises(UnsupportedModelError, match="its attention has tilt, which paged"):
        _build(_config_of(_ARCEE))


def test_several_texts_in_one_line_need_positions_that_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check at load finds what the trial run cannot see."""
    from transformers.models.arcee import modeling_arcee

    plain = modeling_arcee.ArceeModel.forward

    def counts_for_itself(self: Any, *, input_ids: torch.Tensor, **more: Any) -> Any:
        more["position_ids"] = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
        return plain(self, input_ids=input_ids, **more)

    monkeypatch.setattr(modeling_arcee.ArceeModel, "forward", counts_for_itself)
    save_random_model(_ARCEE, tmp_path)
    with pytest.raises(UnsupportedModelError, match=r"its logits differ by \d+\.\d% from those"):
        build_model(engine_config(tmp_path))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["ArceeForCausalLM-plain", "OlmoeForCausalLM-experts"])
def test_rounding_is_no_reason_to_refuse(name: str, dtype: str, tmp_path: Path) -> None:
    save_random_model(_ROWS[name], tmp_path)
    loaded = build_model(engine_config(tmp_path, dtype=dtype))
    facts = facts_of(ModelSource.of(engine_config(tmp_path, dtype=dtype).model), "cpu")
    assert loaded.weight_bytes == facts.weight_bytes


def test_positions_that_depend_on_the_batch_end_the_context(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rope = {
        "rope_type": "longrope",
        "rope_theta": 1000.0,
        "short_factor": [1.0] * 4,
        "long_factor": [2.0] * 4,
        "original_max_position_embeddings": 32,
    }
    config = _config_of(_ARCEE) | {"rope_parameters": rope}
    (tmp_path / "config.json").write_text(json.dumps(config))
    args = {"load_format": "dummy", "kv_cache_memory_bytes": "1MiB"}
    resolved = engine_args(tmp_path, **args).create_engine_config()
    assert resolved.model.max_model_len == 32
    assert "max_model_len is 32: in transformers' code, longrope rotary positions" in caplog.text
    with pytest.raises(ValueError, match=r"=33 is more than 32: .* max_model_len=32 or less"):
        engine_args(tmp_path, **args, max_model_len=33).create_engine_config()


def test_the_length_that_an_error_recommends_is_allowed(tmp_path: Path) -> None:
    dynamic = {"rope_type": "dynamic", "rope_theta": 1000.0, "factor": 2.0}
    config = _config_of(_ARCEE) | {"rope_parameters": dynamic, "max_position_embeddings": 32}
    (tmp_path / "config.json").write_text(json.dumps(config))
    args = {"load_format": "dummy", "kv_cache_memory_bytes": "1MiB"}
    for too_long in (33, 96):
        with pytest.raises(ValueError, match=r"is more than 32: .* use max_model_len=32 or less$"):
            engine_args(tmp_path, **args, max_model_len=too_long).create_engine_config()
    resolved = engine_args(tmp_path, **args, max_model_len=32).create_engine_config()
    assert resolved.model.max_model_len == 32


def test_a_class_that_transformers_pairs_with_the_config_of_others_runs() -> None:
    """InternLM3's config goes with Llama's class."""
    _build(_small("LlamaForCausalLM", "InternLM3Config"))


def test_learned_positions_end_the_context(tmp_path: Path) -> None:
    row = _ROWS["BioGptForCausalLM-learned-positions"]
    (tmp_path / "config.json").write_text(json.dumps(_config_of(row)))
    with pytest.raises(ValueError, match="more than the 128 positions that the model has learned"):
        engine_args(tmp_path, load_format="dummy", max_model_len=129).create_engine_config()


def _save_in_two(folder: Path) -> None:
    """As pickled shards with an index, as older checkpoints are."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    where = {name: f"pytorch_model-{1 + i % 2}-of-2.bin" for i, name in enumerate(names)}
    for file in set(where.values()):
        torch.save({name: tensors[name] for name in names if where[name] == file}, folder / file)
    index = {"metadata": {}, "weight_map": where}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize("name", ["ArceeForCausalLM-biases-tied", "OlmoeForCausalLM-experts"])
def test_pickled_and_sharded_weights(name: str, tmp_path: Path) -> None:
    reference = save_random_model(_ROWS[name], tmp_path)
    _save_in_two(tmp_path)
    loaded = build_model(engine_config(tmp_path))
    assert loaded.report.unused == ()
    hidden = torch.randn(3, 32)
    with torch.inference_mode():
        got, expected = loaded.model.logits(hidden), reference.lm_head(hidden)
    torch.testing.assert_close(got, expected)


def test_weights_outlive_their_file(tmp_path: Path) -> None:
    save_random_model(_ARCEE, tmp_path)
    loaded = build_model(engine_config(tmp_path))
    hidden = torch.randn(3, 32)
    with torch.inference_mode():
        before = loaded.model.logits(hidden)
        file = tmp_path / "model.safetensors"
        with file.open("r+b") as damaged:
            damaged.write(b"\0" * file.stat().st_size)
        assert torch.equal(loaded.model.logits(hidden), before)


def test_missing_strange_and_misshapen_tensors(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_random_model(_ARCEE, tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    save_file(tensors | {"model.layers.0.strange.weight": torch.zeros(1)}, file)
    assert build_model(engine_config(tmp_path)).report.unused == ("model.layers.0.strange.weight",)
    assert "1 tensors in" in caplog.text and "model.layers.0.strange.weight" in caplog.text
    name = "model.layers.1.mlp.up_proj.weight"
    save_file(tensors | {name: torch.zeros(3, 3)}, file)
    misfit = (
        r"do not fit ArceeForCausalLM of transformers: tensor .*up_proj\.weight has shape \[3, 3\]"
    )
    with pytest.raises(ModelLoadError, match=misfit):
        build_model(engine_config(tmp_path))
    del tensors[name]
    save_file(tensors, file)
    with pytest.raises(ModelLoadError, match=r"lacks 1 tensors that .*1\.mlp\.up_proj\.weight"):
        build_model(engine_config(tmp_path))


@pytest.mark.parametrize("is_tied", [True, False])
@pytest.mark.parametrize("prefix", ["model.", ""])
def test_the_embedding_of_padding_is_the_stored_one(
    is_tied: bool, prefix: str, tmp_path: Path
) -> None:
    """transformers zeroes Youtu's after loading it."""
    sizes = {"q_lora_rank": 16, "kv_lora_rank": 16, "num_key_value_heads": 4}
    heads = {"qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8}
    fields = {**SMALL, **sizes, **heads, "pad_token_id": 5, "tie_word_embeddings": is_tied}
    row = parity_row("YoutuForCausalLM", "padding", transformers.YoutuConfig, **fields)
    reference = save_random_model(row, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    renamed = {prefix + name.removeprefix("model."): one for name, one in tensors.items()}
    if not is_tied:
        renamed["lm_head.weight"] = renamed.pop(prefix + "lm_head.weight")
    save_file(renamed, tmp_path / "model.safetensors", metadata={"format": "pt"})
    checkpoint = open_checkpoint(tmp_path, "auto")
    source = ModelSource.of(engine_config(tmp_path).model)
    model, _ = load_model(source, checkpoint, torch.device("cpu"), use_tqdm=False)
    loaded = model.get_input_embeddings().weight
    torch.testing.assert_close(loaded, reference.get_input_embeddings().weight)


def test_dummy_weights_are_the_seeds() -> None:
    config = _config_of(_ARCEE)
    hidden = torch.randn(2, 32)
    with torch.inference_mode():
        first, again, other = (_build(config, seed=n).model.logits(hidden) for n in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


_REMOTE_CONFIG = """
from transformers import LlamaConfig

class OddConfig(LlamaConfig):
    model_type = "odd"
"""
_REMOTE_MODEL = """
from transformers import LlamaForCausalLM
from .configuration_odd import OddConfig

class OddForCausalLM(LlamaForCausalLM):
    config_class = OddConfig

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        output.logits = output.logits * 2.0
        return output
"""


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model that brings its code; its logits are twice those of the Llama it is made of."""
    modules = str(tmp_path / "modules")
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", modules)
    monkeypatch.syspath_prepend(modules)
    folder = tmp_path / "odd"
    save_random_model(_ROWS["LlamaForCausalLM-plain"], folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "architectures": ["OddForCausalLM"],
        "model_type": "odd",
        "auto_map": {
            "AutoConfig": "configuration_odd.OddConfig",
            "AutoModelForCausalLM": "modeling_odd.OddForCausalLM",
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "configuration_odd.py").write_text(_REMOTE_CONFIG)
    (folder / "modeling_odd.py").write_text(_REMOTE_MODEL)
    return folder


def test_remote_code_runs_only_where_it_is_trusted(remote: Path) -> None:
    config = engine_config(remote)
    with pytest.raises(UnsupportedModelError, match=r"modeling_odd.*--trust-remote-code"):
        build_model(config)
    model = build_model(replace(config, model=replace(config.model, trust_remote_code=True))).model
    assert isinstance(model, TransformersModel)
    head = load_file(remote / "model.safetensors")["lm_head.weight"]
    hidden = torch.randn(2, 32)
    with torch.inference_mode():
        torch.testing.assert_close(model.logits(hidden), hidden @ head.T * 2)
