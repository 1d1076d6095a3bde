import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from quire.args import EngineArgs
from quire.errors import ModelLoadError, UnsupportedModelError
from quire.model_files import find_model_files
from quire.models.registry import ModelRegistry
from tests.fakes.model_folders import write_model_folder


def test_configs_of_a_local_folder(tmp_path: Path) -> None:
    folder = write_model_folder(tmp_path)
    (folder / "generation_config.json").write_text('{"temperature": 0.7, "top_p": 0.9}')
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 99}')
    files = find_model_files(
        EngineArgs(
            str(folder),
            hf_overrides={"rope_theta": 5.0},
            override_generation_config={"top_p": 0.5},
        )
    )
    assert files.path == files.tokenizer == folder
    assert files.config["rope_theta"] == 5.0
    assert files.generation_config == {"temperature": 0.7, "top_p": 0.5}
    assert files.tokenizer_config == {"model_max_length": 99}
    assert (files.architecture, files.stored_dtype) == ("LlamaForCausalLM", "bfloat16")


def test_the_token_of_a_hub_is_a_text_or_true(tmp_path: Path) -> None:
    folder = str(write_model_folder(tmp_path))
    assert find_model_files(EngineArgs(folder, hf_token=True)).path == Path(folder)
    with pytest.raises(ValueError, match=r"^hf_token=False must be a token, or True"):
        find_model_files(EngineArgs(folder, hf_token=False))


def test_generation_config_can_be_ignored_or_come_from_elsewhere(tmp_path: Path) -> None:
    folder = write_model_folder(tmp_path / "model")
    (folder / "generation_config.json").write_text('{"temperature": 0.7}')
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "generation_config.json").write_text('{"temperature": 0.1}')

    def temperature(generation_config: str) -> object:
        args = EngineArgs(str(folder), generation_config=generation_config)
        return find_model_files(args).generation_config.get("temperature")

    assert temperature("auto") == 0.7
    assert temperature("vllm") is temperature("quire") is None
    assert temperature(str(elsewhere)) == 0.1
    with pytest.raises(ModelLoadError, match=r"there is no .*nowhere/generation_config\.json"):
        temperature(str(tmp_path / "nowhere"))


def test_a_bad_generation_config_is_refused_unless_it_is_replaced(tmp_path: Path) -> None:
    folder = write_model_folder(tmp_path)
    file = folder / "generation_config.json"
    file.write_text('{"top_p": 0.0, "eos_token_id": "two"}')

    def config(generation_config: str = "auto", **overrides: object) -> dict[str, object]:
        args = EngineArgs(
            str(folder),
            generation_config=generation_config,
            override_generation_config=overrides or None,
        )
        return find_model_files(args).generation_config

    for source in ("auto", str(folder)):
        with pytest.raises(ModelLoadError, match=f"^{re.escape(str(file))} has eos_token_id"):
            config(source)
        with pytest.raises(ModelLoadError, match=f"^{re.escape(str(file))} has top_p = 0.0, which"):
            config(source, eos_token_id=2)
    assert config("vllm") == config("quire") == {}
    assert config(top_p=None, eos_token_id=2) == {"top_p": None, "eos_token_id": 2}


def test_max_new_tokens_limits_only_where_the_user_gave_it(tmp_path: Path) -> None:
    folder = write_model_folder(tmp_path / "model")
    (folder / "generation_config.json").write_text('{"max_new_tokens": 30}')

    def limit(generation_config: str, overrides: dict[str, int] | None = None) -> int | None:
        args = EngineArgs(
            str(folder),
            generation_config=generation_config,
            override_generation_config=overrides,
        )
        return find_model_files(args).max_tokens_limit

    assert limit("auto") is limit("quire") is limit("auto", {"top_k": 5}) is None
    assert limit(str(folder)) == limit(str(folder), {"top_k": 5}) == 30
    assert limit("auto", {"max_new_tokens": 7}) == limit("quire", {"max_new_tokens": 7}) == 7
    assert limit(str(folder), {"max_new_tokens": 7}) == 7


def test_a_tokenizer_of_its_own(tmp_path: Path) -> None:
    folder, other = write_model_folder(tmp_path / "model"), tmp_path / "other"
    other.mkdir()
    args = EngineArgs(str(folder), tokenizer=str(other))
    assert find_model_files(args).tokenizer == other
    args.skip_tokenizer_init = True
    assert find_model_files(args).tokenizer == folder


@pytest.mark.parametrize("tokenizer", [None, "owner/tiny"])
def test_a_tokenizer_revision_is_one_of_the_model_where_no_tokenizer_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer: str | None
) -> None:
    def folder_of_revision(model: str, *, revision: str | None, **options: object) -> Path:
        assert model == "owner/tiny"
        return write_model_folder(tmp_path / str(revision))

    monkeypatch.setattr("quire.weights.hub.resolve_model", folder_of_revision)

    def revisions(**options: object) -> tuple[str, str]:
        files = find_model_files(EngineArgs("owner/tiny", tokenizer=tokenizer, **options))
        return files.path.name, files.tokenizer.name

    assert revisions(revision="a", tokenizer_revision="b") == ("a", "b")
    assert revisions(tokenizer_revision="b") == ("None", "b")
    assert revisions(revision="a") == ("a", "a")
    assert revisions(tokenizer_revision="b", skip_tokenizer_init=True) == ("None", "None")


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_without_a_dtype_in_the_config_the_weights_tell(tmp_path: Path, dtype: torch.dtype) -> None:
    folder = write_model_folder(tmp_path, torch_dtype=None)
    assert find_model_files(EngineArgs(str(folder))).stored_dtype == "float32"
    save_file({"a": torch.zeros(2, dtype=dtype)}, folder / "model.safetensors")
    assert find_model_files(EngineArgs(str(folder))).stored_dtype == str(dtype)[len("torch.") :]


def test_only_weights_that_will_be_read_tell_the_dtype(tmp_path: Path) -> None:
    folder = write_model_folder(tmp_path, torch_dtype=None)
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1")
    torch.save({"a": torch.zeros(2, dtype=torch.float16)}, folder / "pytorch_model.bin")

    def dtype(load_format: str) -> str:
        return find_model_files(EngineArgs(str(folder), load_format=load_format)).stored_dtype

    assert dtype("pt") == "float16"
    assert dtype("dummy") == "float32"
    with pytest.raises(ModelLoadError, match="is a Git LFS pointer"):
        dtype("auto")
    index = folder / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"a": "model-00001-of-00001.safetensors"}}')
    (folder / "model.safetensors").unlink()
    assert dtype("dummy") == "float32"


def test_a_folder_without_config_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(
        ModelLoadError,
        match=r"^Failed to load the model config\. .*config\.json does not exist .*notes\.txt",
    ):
        find_model_files(EngineArgs(str(tmp_path)))


def test_a_folder_without_config_says_what_its_weights_are(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").touch()
    (tmp_path / "adapter_model.safetensors").touch()
    with pytest.raises(ModelLoadError, match=r"does not exist .*; adapter_model.* is a LoRA adap"):
        find_model_files(EngineArgs(str(tmp_path)))


@pytest.mark.parametrize(
    ("text", "message"), [("{", "is not valid JSON"), ("[]", "holds no JSON object")]
)
def test_a_broken_config_names_the_file(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ModelLoadError, match=f"config.json {message}"):
        find_model_files(EngineArgs(str(tmp_path)))


def test_a_config_that_may_not_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, **options: object) -> str:  # rights do not stop root
        raise PermissionError(13, "Permission denied", str(path))

    folder = write_model_folder(tmp_path)
    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(ModelLoadError, match=r"config\.json cannot be read \(Permission denied\)"):
        find_model_files(EngineArgs(str(folder)))


def test_the_first_supported_architecture_is_taken(tmp_path: Path) -> None:
    folder = write_model_folder(tmp_path, architectures=["FancyLlama", "LlamaForCausalLM"])
    assert find_model_files(EngineArgs(str(folder))).architecture == "LlamaForCausalLM"


@pytest.mark.parametrize(
    ("architecture", "keys"),
    [
        ("Gemma3ForConditionalGeneration", ["vision_config", "text_config"]),
        ("Gemma3nForConditionalGeneration", ["vision_config", "audio_config"]),
        ("ChatGLMModel", ["vision_config"]),  # of a name that text models have too
        ("GemmaForCausalLM", ["vision_config"]),  # as an override may say
        ("SomeForConditionalGeneration", ["text_config"]),
        ("FuyuForCausalLM", ["text_config", "patch_size"]),
    ],
)
def test_a_model_of_more_than_text_is_refused_as_such(
    tmp_path: Path, architecture: str, keys: list[str]
) -> None:
    parts = {key: {"hidden_size": 8} for key in keys}
    folder = write_model_folder(tmp_path, architectures=[architecture], **parts)
    told = " and ".join(key for key in keys if key != "text_config") or "text_config"
    with pytest.raises(UnsupportedModelError) as refusal:
        find_model_files(EngineArgs(str(folder)))
    assert str(refusal.value) == (
        f"{architecture} is a multi-modal model (config.json has {told}), and Quire serves text "
        "models only"
    )


def test_the_text_part_of_such_a_model_is_left_to_an_architecture_of_the_users_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ModelRegistry._functions, "SeesForConditionalGeneration", lambda hf: None)
    own = {"architectures": ["SeesForConditionalGeneration"], "text_config": {"a": 1}}
    folder = write_model_folder(tmp_path, **own, vision_config={"b": 1})
    assert find_model_files(EngineArgs(str(folder))).architecture == own["architectures"][0]


def test_a_text_model_may_nest_its_config(tmp_path: Path) -> None:
    nested = {"text_config": {"hidden_size": 8}, "vision_config": {}}
    folder = write_model_folder(tmp_path, architectures=["FancyForCausalLM"], **nested)
    assert find_model_files(EngineArgs(str(folder))).architecture == "FancyForCausalLM"


@pytest.mark.parametrize("key", ["quantization_config", "compression_config"])
def test_quantized_weights_are_refused_as_the_argument_is(tmp_path: Path, key: str) -> None:
    folder = write_model_folder(tmp_path, **{key: {"quant_method": "gptq", "bits": 4}})
    message = rf"config\.json has {key} \(gptq\): quantized weights are not supported yet; use a"
    with pytest.raises(UnsupportedModelError, match=message):
        find_model_files(EngineArgs(str(folder)))


def test_the_quantization_of_mlx_is_refused_too(tmp_path: Path) -> None:
    folder = write_model_folder(tmp_path, quantization={"group_size": 64, "bits": 4})
    with pytest.raises(UnsupportedModelError, match="has quantization: quantized weights are not"):
        find_model_files(EngineArgs(str(folder)))


@pytest.mark.parametrize(
    ("architecture", "method"), [("GptOssForCausalLM", "mxfp4"), ("DeepseekV3ForCausalLM", "fp8")]
)
def test_what_is_published_in_fewer_bits_is_left_to_its_architecture(
    tmp_path: Path, architecture: str, method: str
) -> None:
    quantization = {"quant_method": method}
    folder = write_model_folder(
        tmp_path, architectures=[architecture], quantization_config=quantization
    )
    assert find_model_files(EngineArgs(str(folder))).config["quantization_config"] == quantization
    folder = write_model_folder(tmp_path, quantization_config=quantization)  # of another family
    with pytest.raises(UnsupportedModelError, match=rf"quantization_config \({method}\)"):
        find_model_files(EngineArgs(str(folder)))


def test_what_only_quires_own_code_dequantizes_is_refused_for_that_of_transformers(
    tmp_path: Path,
) -> None:
    folder = write_model_folder(
        tmp_path,
        architectures=["GptOssForCausalLM"],
        quantization_config={"quant_method": "mxfp4"},
    )
    message = r"\(mxfp4\), which model_impl='transformers' cannot read; use model_impl='auto'"
    with pytest.raises(UnsupportedModelError, match=message):
        find_model_files(EngineArgs(str(folder), model_impl="transformers"))


@pytest.mark.parametrize(
    ("name", "description"),
    [
        ("quantize_config.json", {"bits": 4, "group_size": 128}),
        ("quant_config.json", {"zero_point": True, "w_bit": 4}),
        ("hf_quant_config.json", {"quantization": {"quant_algo": "FP8"}}),
    ],
)
def test_quantized_weights_are_known_by_a_file_of_their_tool(
    tmp_path: Path, name: str, description: dict[str, object]
) -> None:
    folder = write_model_folder(tmp_path)
    (folder / name).write_text(json.dumps(description))
    with pytest.raises(UnsupportedModelError, match=f"has {name}: quantized weights are not supp"):
        find_model_files(EngineArgs(str(folder)))


def test_a_quantized_cache_does_not_make_weights_quantized(tmp_path: Path) -> None:
    folder = write_model_folder(tmp_path)
    description = {"quantization": {"quant_algo": None, "kv_cache_quant_algo": "FP8"}}
    (folder / "hf_quant_config.json").write_text(json.dumps(description))
    assert find_model_files(EngineArgs(str(folder))).architecture == "LlamaForCausalLM"


def test_an_unknown_generation_setting_gets_a_suggestion(tmp_path: Path) -> None:
    args = EngineArgs(
        str(write_model_folder(tmp_path)), override_generation_config={"temprature": 1}
    )
    with pytest.raises(ValueError, match="'temprature'; did you mean temperature"):
        find_model_files(args)


def test_no_architecture_is_an_error_with_the_remedy(tmp_path: Path) -> None:
    folder = write_model_folder(tmp_path, architectures=None)
    with pytest.raises(UnsupportedModelError, match="--hf-overrides"):
        find_model_files(EngineArgs(str(folder)))
    config = json.loads((folder / "config.json").read_text())
    config["architectures"] = ["LlamaForCausalLM"]
    args = EngineArgs(str(folder), hf_overrides={"architectures": ["LlamaForCausalLM"]})
    assert find_model_files(args).config == config


@pytest.mark.parametrize(
    ("kind", "remedy"),
    [
        (
            "arcee",
            r"that of model_type 'arcee' with --hf-overrides .*\[\"ArceeForCausalLM\"]}",
        ),
        ("baichuan", r"one of those that `quire models` lists, with .*\[\"LlamaForCausalLM\"]}"),
    ],
)
def test_the_missing_architecture_is_that_of_the_model_type(
    tmp_path: Path, kind: str, remedy: str
) -> None:
    folder = write_model_folder(tmp_path, architectures=None, model_type=kind)
    with pytest.raises(UnsupportedModelError, match=f"names no architecture; add {remedy}"):
        find_model_files(EngineArgs(str(folder)))


def test_config_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    folder = write_model_folder(tmp_path)
    plain = find_model_files(EngineArgs(str(folder))).config
    file = folder / "config.json"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert find_model_files(EngineArgs(str(folder))).config == plain


@pytest.mark.parametrize("names", ["LlamaForCausalLM", {"a": 1}, [1]])
def test_architectures_that_are_no_list_of_names_are_refused(tmp_path: Path, names: object) -> None:
    folder = write_model_folder(tmp_path, architectures=names)
    with pytest.raises(
        UnsupportedModelError, match=r"config\.json has architectures = .*a list of"
    ):
        find_model_files(EngineArgs(str(folder)))


@pytest.mark.parametrize("stated", ["x", [2, "x"], True, [[2]], 2.5])
def test_end_tokens_that_are_none_are_named_with_their_file(tmp_path: Path, stated: object) -> None:
    folder = write_model_folder(tmp_path)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": stated}))
    with pytest.raises(ModelLoadError, match=r"generation_config\.json has eos_token_id = .*id"):
        find_model_files(EngineArgs(str(folder)))
    given = EngineArgs(
        str(folder), generation_config="quire", override_generation_config={"eos_token_id": stated}
    )
    with pytest.raises(ModelLoadError, match=r"^override_generation_config has eos_token_id"):
        find_model_files(given)
    folder = write_model_folder(tmp_path, eos_token_id=stated)
    with pytest.raises(ModelLoadError, match=r"/config\.json has eos_token_id = "):
        find_model_files(EngineArgs(str(folder)))


def test_end_tokens_may_be_one_several_or_none(tmp_path: Path) -> None:
    folder = write_model_folder(tmp_path, eos_token_id=None)
    for stated in (None, 2, [2, 3]):
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": stated}))
        found = find_model_files(EngineArgs(str(folder)))
        assert found.generation_config == {"eos_token_id": stated}
