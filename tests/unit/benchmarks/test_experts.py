from pathlib import Path

import pytest
from benchmarks.gpu_parts import experts
from benchmarks.gpu_parts.experts import experts_unit, watched_routing
from benchmarks.gpu_parts.records import Records, of_kind
from benchmarks.gpu_parts.tiny_models import save_tiny_model
from benchmarks.gpu_parts.units import Unit

SMALL = {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
         "head_dim": 8, "moe_intermediate_size": 16}  # fmt: skip


def test_the_share_of_experts_that_a_step_touches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """16 experts, 4 for each token: one row touches a quarter of them."""
    folder = tmp_path / "model"
    save_tiny_model("experts", folder, **SMALL)
    monkeypatch.setattr(experts, "write_model", lambda root, name: folder)
    sizes = {"num_experts": 16, "num_experts_per_tok": 4, "num_hidden_layers": 2, "vocab_size": 97}
    monkeypatch.setitem(experts.CONFIGS, "m", {**experts.CONFIGS["qwen3-30b-a3b"], **sizes})
    options = {"model": "m", "scale": 0.2, "engine": {"device": "cpu", "max_model_len": 512}}
    unit = Unit(name="u", kind="experts", items=("decode1", "decode8"), options=options)
    records = Records(tmp_path / "records.jsonl")
    with experts_unit(unit, records) as do:
        for item in unit.items:
            do(item)
    one, eight = of_kind(records.read(), "experts")
    assert (one["mean"], one["low"], one["high"], one["if_even"]) == (0.25, 0.25, 0.25, 0.25)
    assert 0.25 < eight["mean"] <= 1 and eight["num_rows"] == 8 and eight["num_layers"] == 2


def test_without_a_look_inside_nothing_is_seen() -> None:
    with watched_routing() as touched:
        pass
    assert touched.shares == {}
