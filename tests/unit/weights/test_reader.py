"""Reading by canonical name: dtypes, prefixes, and an account of what was not used."""

from __future__ import annotations

import errno
import sys

import pytest
import torch
from torch import Tensor

from quire.errors import ModelLoadError
from quire.weights.reader import DummyReader, WeightReader
from quire.weights.weight_map import Fused, Source, StackedExperts, WeightMap
from tests.fakes.checkpoints import MemoryCheckpoint

WEIGHTS = WeightMap(
    entries={
        "embedding.weight": Source("embed.weight"),
        "layers.*.attention.q.weight": Fused("layers.*.qkv.weight", 0, 4, 8),
        "layers.*.attention.k.weight": Fused("layers.*.qkv.weight", 4, 4, 8),
        "layers.*.attention.q.bias": Source("layers.*.q.bias"),
        "layers.*.moe.experts.up.weight": StackedExperts("layers.*.experts.{expert}.up", 3),
        "head.weight": Source("lm_head.weight"),
    },
    ignored=("*.inv_freq",),
    prefixes=("model.", ""),
)


def stored() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "model.embed.weight": (6, 4),
        "model.layers.0.qkv.weight": (8, 4),
        "model.layers.0.experts.0.up": (5, 4),
        "model.layers.0.experts.1.up": (5, 4),
        "model.layers.0.experts.2.up": (5, 4),
        "lm_head.weight": (6, 4),
        "model.layers.0.rotary.inv_freq": (2,),
    }
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def reader_of(tensors: dict[str, Tensor], dtype: torch.dtype = torch.float32) -> WeightReader:
    return WeightReader(MemoryCheckpoint(tensors), WEIGHTS, dtype)


def test_reads_come_in_the_engines_dtype_and_own_memory() -> None:
    tensors = stored()
    reader = reader_of(tensors, torch.bfloat16)
    embedding = reader.read("embedding.weight", (6, 4))
    assert torch.equal(embedding, tensors["model.embed.weight"].to(torch.bfloat16))
    same_dtype = reader_of(tensors).read("embedding.weight", (6, 4))
    same_dtype.zero_()
    assert tensors["model.embed.weight"].abs().sum() > 0


def test_of_a_fused_tensor_only_the_part_is_read() -> None:
    tensors = stored()
    reader = reader_of(tensors)
    k = reader.read("layers.0.attention.k.weight", (4, 4))
    assert torch.equal(k, tensors["model.layers.0.qkv.weight"][4:8])
    assert reader.bytes_read == 4 * 4 * 4


def test_experts_are_stacked() -> None:
    tensors = stored()
    up = reader_of(tensors).read("layers.0.moe.experts.up.weight", (3, 5, 4))
    experts = [tensors[f"model.layers.0.experts.{expert}.up"] for expert in range(3)]
    assert torch.equal(up, torch.stack(experts))


def test_checkpoints_with_and_without_the_prefix_read_alike() -> None:
    bare = {name.removeprefix("model."): tensor for name, tensor in stored().items()}
    for tensors in (stored(), bare):
        reader = reader_of(tensors)
        assert torch.equal(reader.read("embedding.weight", (6, 4)), bare["embed.weight"])
        assert torch.equal(reader.read("head.weight", (6, 4)), bare["lm_head.weight"])


def test_a_prefix_that_all_names_lack_is_no_longer_looked_for() -> None:
    weights = WeightMap(
        entries={"embedding.weight": Source("model.embed.weight"), "head.weight": Source("head")},
        ignored=("model.old.*",),
        optional_prefix="model.",
    )
    bare = {"embed.weight": torch.randn(6, 4), "head": torch.randn(6, 4), "old.one": torch.ones(1)}
    reader = WeightReader(MemoryCheckpoint(bare), weights, torch.float32)
    assert torch.equal(reader.read("embedding.weight", (6, 4)), bare["embed.weight"])
    assert torch.equal(reader.read("head.weight", (6, 4)), bare["head"])
    assert reader.report().unused == ()
    damaged = {**bare, "model.norm.weight": torch.ones(1)}
    reader = WeightReader(MemoryCheckpoint(damaged), weights, torch.float32)
    with pytest.raises(ModelLoadError, match=r"no tensor 'model\.embed\.weight'"):
        reader.read("embedding.weight", (6, 4))


def test_what_is_stored_alone_stands_in_for_what_is_missing() -> None:
    tensors = stored()
    reader = reader_of(tensors)
    reader.stand_in("head.weight", missing="embedding.weight")
    assert torch.equal(reader.read("embedding.weight", (6, 4)), tensors["model.embed.weight"])
    del tensors["model.embed.weight"]
    reader = reader_of(tensors)
    reader.stand_in("head.weight", missing="embedding.weight")
    assert torch.equal(reader.read("embedding.weight", (6, 4)), tensors["lm_head.weight"])
    assert reader.name_if_other("head.weight", "embedding.weight") is None
    assert reader.bytes_read == tensors["lm_head.weight"].nbytes


def test_hub_names_are_those_of_the_checkpoint() -> None:
    reader = reader_of(stored())
    assert reader.hub_names("layers.0.attention.q.weight") == ("model.layers.0.qkv.weight",)
    assert len(reader.hub_names("layers.0.moe.experts.up.weight")) == 3


def test_missing_tensor_names_both_names_and_the_closest() -> None:
    tensors = stored()
    tensors["model.embedd.weight"] = tensors.pop("model.embed.weight")
    with pytest.raises(ModelLoadError) as error:
        reader_of(tensors).read("embedding.weight", (6, 4))
    message = str(error.value)
    assert "no tensor 'model.embed.weight' (for embedding.weight)" in message
    assert "model.embedd.weight" in message


def test_one_missing_expert_is_named() -> None:
    tensors = stored()
    del tensors["model.layers.0.experts.1.up"]
    with pytest.raises(ModelLoadError, match=r"'model.layers.0.experts.1.up'"):
        reader_of(tensors).read("layers.0.moe.experts.up.weight", (3, 5, 4))


def test_part_that_the_architecture_does_not_have_is_an_error() -> None:
    with pytest.raises(ModelLoadError, match=r"no entry for 'layers.0.attention.v.weight'"):
        reader_of(stored()).read("layers.0.attention.v.weight", (4, 4))


def test_wrong_shape_names_tensor_and_both_shapes() -> None:
    with pytest.raises(ModelLoadError) as error:
        reader_of(stored()).read("embedding.weight", (7, 4))
    for part in ("model.embed.weight", "[6, 4]", "[7, 4]", "embedding.weight"):
        assert part in str(error.value)


def test_fused_tensor_of_another_size_is_an_error() -> None:
    tensors = stored()
    tensors["model.layers.0.qkv.weight"] = torch.zeros(12, 4)
    with pytest.raises(ModelLoadError, match="does not match the config: it has 12 rows"):
        reader_of(tensors).read("layers.0.attention.q.weight", (4, 4))


def test_report_lists_what_was_left() -> None:
    tensors = stored() | {"model.layers.0.extra.weight": torch.zeros(1)}
    reader = reader_of(tensors)
    reader.read("embedding.weight", (6, 4))
    reader.read("layers.0.attention.q.weight", (4, 4))
    reader.read("layers.0.moe.experts.up.weight", (3, 5, 4))
    report = reader.report()
    assert report.unused == ("lm_head.weight", "model.layers.0.extra.weight")
    assert report.bytes_read == reader.bytes_read == 4 * (24 + 16 + 60)


def test_a_tensor_that_is_another_under_a_second_name_is_left_and_counted_as_used() -> None:
    tensors = stored()
    tensors["lm_head.weight"] = tensors["model.embed.weight"].clone()
    reader = reader_of(tensors)
    assert reader.name_if_other("head.weight", "embedding.weight") is None
    report = reader.report()
    assert report.bytes_read == 0 and "lm_head.weight" not in report.unused


@pytest.mark.parametrize("piece", [1, 5, 1000])
def test_a_tensor_that_differs_in_its_last_value_is_named(
    piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quire.weights.reader._PIECE_VALUES", piece)
    tensors = stored()
    tensors["lm_head.weight"] = tensors["model.embed.weight"].clone()
    tensors["lm_head.weight"][-1, -1] += 1
    named = reader_of(tensors).name_if_other("head.weight", "embedding.weight")
    assert named == "lm_head.weight"


def test_tensors_are_compared_as_they_are_served() -> None:
    tensors = stored()
    tensors["lm_head.weight"] = tensors["model.embed.weight"].to(torch.bfloat16)
    names = "head.weight", "embedding.weight"
    assert reader_of(tensors).name_if_other(*names) == "lm_head.weight"
    assert reader_of(tensors, torch.bfloat16).name_if_other(*names) is None


def test_a_tensor_of_another_shape_is_another() -> None:
    tensors = stored() | {"lm_head.weight": torch.zeros(5, 4)}
    assert reader_of(tensors).name_if_other("head.weight", "embedding.weight") == "lm_head.weight"


def test_a_tensor_that_is_not_there_is_no_other() -> None:
    tensors = stored()
    del tensors["lm_head.weight"]
    reader = reader_of(tensors)
    assert reader.name_if_other("head.weight", "embedding.weight") is None
    assert DummyReader(torch.float32).name_if_other("head.weight", "embedding.weight") is None


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int32, torch.float8_e4m3fn])
def test_numbers_that_stand_for_weights_are_refused(dtype: torch.dtype) -> None:
    tensors = stored()
    for hub, name, shape in (
        ("model.embed.weight", "embedding.weight", (6, 4)),
        ("model.layers.0.qkv.weight", "layers.0.attention.k.weight", (4, 4)),
        ("model.layers.0.experts.2.up", "layers.0.moe.experts.up.weight", (3, 5, 4)),
    ):
        reader = reader_of(tensors | {hub: tensors[hub].to(dtype)})
        message = (
            rf"{hub} is stored as {str(dtype)[6:]}, and nothing in config.json says which .* "
            r"\(quantization_config\); use a checkpoint in bfloat16, float16 or float32"
        )
        with pytest.raises(ModelLoadError, match=message):
            reader.read(name, shape)


def test_whole_numbers_that_are_no_weights_do_not_matter() -> None:
    tensors = stored() | {"model.position_ids": torch.arange(9), "mask": torch.ones(2).bool()}
    reader_of(tensors).read("embedding.weight", (6, 4))


def test_progress_bar_only_for_large_loads(capsys: pytest.CaptureFixture[str]) -> None:
    for num_values, shown in ((1000, False), (17_000_000, True)):
        checkpoint = MemoryCheckpoint({"embed.weight": torch.zeros(num_values)})
        reader = WeightReader(checkpoint, WEIGHTS, torch.float32, use_tqdm=True)
        reader.read("embedding.weight", (num_values,))
        reader.report()
        assert ("Loading weights: 100%" in capsys.readouterr().err) == shown


@pytest.mark.parametrize("use_tqdm", [True, False])
def test_weights_load_without_a_stderr(use_tqdm: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    for num_values in (1000, 17_000_000):
        checkpoint = MemoryCheckpoint({"embed.weight": torch.zeros(num_values)})
        reader = WeightReader(checkpoint, WEIGHTS, torch.float32, use_tqdm=use_tqdm)
        reader.read("embedding.weight", (num_values,))
        assert reader.report().unused == ()


def test_progress_bar_that_cannot_be_written_is_lost_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class FullDisk:
        def write(self, text: str) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sys, "stderr", FullDisk())
    checkpoint = MemoryCheckpoint({"embed.weight": torch.zeros(17_000_000)})
    reader = WeightReader(checkpoint, WEIGHTS, torch.float32, use_tqdm=True)
    assert reader.read("embedding.weight", (17_000_000,)).shape == (17_000_000,)
    assert reader.report().unused == ()


def test_dummy_weights_depend_on_name_and_seed_only() -> None:
    one, other = DummyReader(torch.float32), DummyReader(torch.float32)
    other.read("layers.0.mlp.up.weight", (8, 8))
    weight = one.read("layers.1.mlp.up.weight", (64, 64))
    assert torch.equal(weight, other.read("layers.1.mlp.up.weight", (64, 64)))
    assert not torch.equal(weight, one.read("layers.2.mlp.up.weight", (64, 64)))
    assert not torch.equal(
        weight, DummyReader(torch.float32, seed=1).read("layers.1.mlp.up.weight", (64, 64))
    )
    assert 0.0009 < weight.abs().max() <= 0.001
    assert weight.std().item() == pytest.approx(0.001 / 3**0.5, rel=0.05), "spread evenly"
    assert one.report().unused == ()
