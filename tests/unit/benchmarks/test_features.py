from pathlib import Path

from benchmarks.gpu_parts.features import FEATURES, features_unit
from benchmarks.gpu_parts.records import Records, of_kind
from benchmarks.gpu_parts.report import feature_lines
from benchmarks.gpu_parts.units import Unit


def test_every_feature_is_compared_with_greedy_requests(tmp_path: Path) -> None:
    engine = {"device": "cpu", "max_model_len": 64, "enable_prefix_caching": False}
    options = {"model": "tiny", "scale": 0.03, "repetitions": 1, "engine": engine}
    unit = Unit(name="u", kind="features", items=tuple(FEATURES), options=options)
    records = Records(tmp_path / "records.jsonl")
    with features_unit(unit, records) as do:
        for item in unit.items:
            do(item)
    found = of_kind(records.read(), "feature")
    assert [one["what"] for one in found] == list(FEATURES)
    assert all(one["one"] > 0 and one["all"] > 0 and one["num_rows"] == 256 for one in found)
    assert len(feature_lines(records.read())) == len(FEATURES)
