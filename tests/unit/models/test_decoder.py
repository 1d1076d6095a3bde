"""The decoder's promises beyond parity: no device sync, independence of neighbours, groups."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from quire.batch import Batch
from quire.models.decoder import Decoder, Placement
from quire.models.loading import plan_of
from quire.models.spec import DecoderSpec, LayerSpec
from tests.fakes.batches import FakeRows
from tests.fakes.no_sync import NoSync, assert_no_sync
from tests.fakes.random_reader import RandomReader
from tests.models.configs import PARITY_ROWS

_ROWS = {row.id: row for row in PARITY_ROWS}


def _spec(name: str) -> DecoderSpec:
    row = _ROWS[name]
    return plan_of(row.make_config().to_dict(), row.architecture).spec


def _decoder(name: str, dtype: torch.dtype = torch.float32) -> Decoder:
    return _built(_spec(name), dtype)


def _built(
    spec: DecoderSpec, dtype: torch.dtype = torch.float32, max_model_len: int = 128
) -> Decoder:
    placement = Placement(
        dtype=dtype,
        device=torch.device("cpu"),
        attention_backend="torch",
        max_model_len=max_model_len,
        block_size=16,
    )
    decoder = Decoder(spec, placement)
    decoder.load(RandomReader(dtype))
    return decoder


def _logits(decoder: Decoder, batch: Batch) -> Tensor:
    with torch.inference_mode():
        return decoder.logits(decoder.forward(batch))


def _tokens(length: int, seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(90, (length,), generator=generator).tolist()


@pytest.mark.parametrize(
    "name",
    ["LlamaForCausalLM-plain", "Qwen2ForCausalLM-upper-windows", "Qwen3ForCausalLM-plain",
     "GemmaForCausalLM-plain", "GPT2LMHeadModel-plain", "MixtralForCausalLM-plain"],
)  # fmt: skip
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_decode_step_reads_nothing_back_from_the_device(name: str, dtype: torch.dtype) -> None:
    decoder = _decoder(name, dtype)
    rows = FakeRows(decoder.kv_layout, [_tokens(20, 0), _tokens(31, 1)], dtype=dtype)
    _logits(decoder, rows.batch({0: 12, 1: 25})[0])
    batch, _ = rows.batch({0: 1, 1: 1})
    logits = assert_no_sync(lambda: _logits(decoder, batch))
    assert bool(logits.isfinite().all())


@pytest.mark.parametrize(
    "sync",
    [
        lambda x: x.sum().item(),
        lambda x: bool(x[0] > 0),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: x.masked_select(x > 0),
        lambda x: x.unique(),
        lambda x: x.index_put_((x > 0,), torch.tensor(0.0)),
    ],
    ids=["item", "bool", "nonzero", "mask-index", "masked_select", "unique", "mask-assign"],
)
def test_the_mode_that_forbids_syncs_sees_them(sync) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(AssertionError), NoSync():
        sync(torch.tensor([1.0, -1.0, 2.0]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_logits_do_not_depend_on_the_order_of_rows(dtype: torch.dtype) -> None:
    decoder = _decoder("LlamaForCausalLM-plain", dtype)
    prompts = [_tokens(length, length) for length in (30, 9, 17)]
    forward = FakeRows(decoder.kv_layout, prompts, dtype=dtype, seed=1)
    backward = FakeRows(decoder.kv_layout, prompts[::-1], dtype=dtype, seed=2)
    last = {0: 29, 1: 38, 2: 55}
    there = _logits(decoder, forward.batch({0: 30, 1: 9, 2: 17})[0])
    back = _logits(decoder, backward.batch({0: 17, 1: 9, 2: 30})[0])
    for row, token in last.items():
        other = {0: 55, 1: 25, 2: 16}[row]
        torch.testing.assert_close(there[token], back[other], rtol=1e-2, atol=1e-5)


def test_loading_again_replaces_the_weights(tmp_path: Path) -> None:
    decoder = _decoder("LlamaForCausalLM-tied")
    prompt = [_tokens(10, 0)]
    first = _logits(decoder, FakeRows(decoder.kv_layout, prompt).batch({0: 10})[0])
    decoder.load(RandomReader(torch.float32, seed=1))
    second = _logits(decoder, FakeRows(decoder.kv_layout, prompt).batch({0: 10})[0])
    decoder.load(RandomReader(torch.float32, seed=0))
    third = _logits(decoder, FakeRows(decoder.kv_layout, prompt).batch({0: 10})[0])
    assert not torch.allclose(first, second)
    assert torch.equal(first, third)


def _whole_and_token_by_token(decoder: Decoder, tokens: list[int]) -> tuple[Tensor, Tensor]:
    whole = FakeRows(decoder.kv_layout, [tokens])
    single = FakeRows(decoder.kv_layout, [tokens])
    at_once = _logits(decoder, whole.batch({0: len(tokens)})[0])
    in_turn = [_logits(decoder, single.batch({0: 1})[0]) for _ in tokens]
    return at_once, torch.cat(in_turn)


def test_plans_are_made_before_the_angles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind the angles' kernel others may read what plans compute, before they wait."""
    decoder, calls = _decoder("LlamaForCausalLM-plain"), []

    def noted(owner: object, name: str) -> None:
        real = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *args: (calls.append(name), real(*args))[1])

    for angles in decoder._angles:
        noted(angles, "at")
    for backend, _ in decoder._planned:
        noted(backend, "plan")
    _logits(decoder, FakeRows(decoder.kv_layout, [_tokens(3, 0)]).batch({0: 3})[0])
    assert calls == ["plan", "at"]


def test_layers_without_attention_have_no_cache() -> None:
    spec = _spec("LlamaForCausalLM-plain")
    both = spec.layers[0]
    only_mlp = replace(both, attention=None, norms=both.norms[:1])
    only_attention = replace(both, mlp=None, norms=both.norms[:1])
    empty = LayerSpec(block="pre_norm", attention=None, mlp=None, norms=())
    layers = (only_mlp, both, empty, only_attention, both)
    decoder = _built(replace(spec, layers=layers))
    assert len(decoder.kv_layout.layers) == 3
    assert not any("layers.2." in name for name in decoder.spec.parameters())
    at_once, in_turn = _whole_and_token_by_token(decoder, _tokens(9, 0))
    torch.testing.assert_close(at_once, in_turn)
    assert bool(at_once.isfinite().all())


def test_logarithm_of_positions_matters_beyond_the_trained_length_only() -> None:
    spec = _spec("LlamaForCausalLM-plain")
    layers = tuple(
        replace(layer, attention=replace(layer.attention, log_length=20)) for layer in spec.layers
    )
    tokens = _tokens(30, 0)
    plain, _ = _whole_and_token_by_token(_built(spec), tokens)
    raised, in_turn = _whole_and_token_by_token(_built(replace(spec, layers=layers)), tokens)
    torch.testing.assert_close(raised, in_turn)
    torch.testing.assert_close(raised[:20], plain[:20])
    assert bool((raised[20:] - plain[20:]).abs().amax(1).gt(1e-6).all())


@pytest.mark.parametrize("name", ["Llama", "DeepseekV2", "Falcon", "Gemma2", "Mixtral"])
@pytest.mark.parametrize("lacks", ["nothing", "mlp", "everything"])
def test_only_wanted_hidden_states_are_computed_and_all_keys(name: str, lacks: str) -> None:
    spec = next(_spec(row) for row in _ROWS if row.startswith(f"{name}ForCausalLM"))
    last = spec.layers[-1]
    if lacks == "mlp" and last.block == "pre_norm":
        last = replace(last, mlp=None, norms=last.norms[:1])
    if lacks == "everything":
        last = LayerSpec(block="pre_norm", attention=None, mlp=None, norms=())
    decoder = _built(replace(spec, layers=(*spec.layers[:-1], last)))
    prompts = [_tokens(length, length) for length in (30, 9, 17)]
    whole, narrow = (FakeRows(decoder.kv_layout, prompts) for _ in range(2))
    everything = _logits(decoder, whole.batch({0: 29, 1: 1, 2: 16})[0])
    batch, _ = narrow.batch({0: 29, 1: 1, 2: 16})
    wanted = torch.tensor([45, 0, 29])
    found = _logits(decoder, replace(batch, outputs=wanted))
    torch.testing.assert_close(found, everything[wanted])
    rest = {0: 1, 1: 8, 2: 1}
    torch.testing.assert_close(
        _logits(decoder, narrow.batch(rest)[0]), _logits(decoder, whole.batch(rest)[0])
    )


@pytest.mark.parametrize(
    ("name", "num_layers"), [("LlamaForCausalLM-plain", 2), ("Qwen2ForCausalLM-upper-windows", 3)]
)
def test_a_smaller_decoder_has_a_layer_of_each_kind_and_the_last(
    name: str, num_layers: int
) -> None:
    spec = _spec(name)
    decoder = _built(replace(spec, layers=(*spec.layers, *spec.layers)))
    layers = list(decoder.layers)
    smaller = decoder.with_a_layer_of_each_kind()
    assert len(smaller.layers) == num_layers and smaller.layers[-1] is layers[-1]
    assert all(any(layer is one for one in layers) for layer in smaller.layers)
    assert decoder.layers == layers
    rows = FakeRows(decoder.kv_layout, [_tokens(9, 0)])
    assert bool(_logits(smaller, rows.batch({0: 9})[0]).isfinite().all())
