"""What a config.json leaves out, or says as older files did, means what transformers makes of it.

No weights: the spec of the file as it is must be the spec of the config that transformers makes of
it, which says everything.
"""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

import pytest
from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig

from quire.errors import UnsupportedModelError
from quire.layers.spec import AttentionSpec, RopeSpec
from quire.models.loading import plan_of
from quire.models.spec import DecoderSpec
from tests.models.configs import PARITY_ROWS
from tests.models.row import ParityRow

_ROWS = list({row.architecture: row for row in reversed(PARITY_ROWS)}.values())
# Other sizes than those of transformers' example, which no published file is silent about.
_OWN_DEFAULTS = {("PhiForCausalLM", "intermediate_size")}
_SCALINGS: dict[str, dict[str, Any]] = {
    "linear": {"factor": 2.5},
    "dynamic": {"factor": 3.0},
    "llama3": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    },
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 16, "beta_fast": 16.0},
}


def _whole(config: PreTrainedConfig, architecture: str) -> dict[str, Any]:
    config.architectures = [architecture]
    data: dict[str, Any] = json.loads(config.to_json_string(use_diff=False))
    return data


def _spec(data: dict[str, Any], architecture: str) -> DecoderSpec | None:
    try:
        return plan_of(data, architecture).spec
    except UnsupportedModelError:
        return None


def _as_transformers_reads_it(row: ParityRow, data: dict[str, Any]) -> DecoderSpec | None:
    """None where it refuses the file, or makes sizes of it that do not fit together."""
    try:
        config = type(row.make_config()).from_dict(deepcopy(data))
    except (StrictDataclassError, ValueError, KeyError, TypeError, ZeroDivisionError):
        return None
    return _spec(_whole(config, row.architecture), row.architecture)


@pytest.mark.parametrize("row", _ROWS, ids=lambda row: row.architecture)
def test_a_key_that_is_not_there_has_the_value_that_transformers_gives_it(row: ParityRow) -> None:
    whole = _whole(row.make_config(), row.architecture)
    compared = 0
    for key in whole.keys() - {"architectures"}:
        if (row.architecture, key) in _OWN_DEFAULTS:
            continue
        silent = {name: value for name, value in whole.items() if name != key}
        spec, expected = _spec(silent, row.architecture), _as_transformers_reads_it(row, silent)
        if spec is not None and expected is not None:
            assert spec == expected, key
            compared += 1
    assert compared > 10


def _in_the_older_spelling(row: ParityRow, kind: str) -> dict[str, Any] | None:
    whole = _whole(row.make_config(), row.architecture)
    attention = plan_of(whole, row.architecture).spec.layers[0].attention
    if not isinstance(attention, AttentionSpec) or not isinstance(attention.positions, RopeSpec):
        return None
    params = whole.pop("rope_parameters", None) or {}
    share = {key: params[key] for key in ("partial_rotary_factor",) if key in params}
    scaling = {"rope_type": kind, **_SCALINGS[kind]}
    return {**whole, **share, "rope_theta": 777.0, "rope_scaling": scaling}


@pytest.mark.parametrize("kind", sorted(_SCALINGS))
def test_scaling_in_the_older_spelling_is_what_transformers_makes_of_it(kind: str) -> None:
    compared = []
    for row in _ROWS:
        data = _in_the_older_spelling(row, kind)
        if data is None or row.architecture == "GPTJForCausalLM":  # whose class has no such keys
            continue
        spec, expected = _spec(data, row.architecture), _as_transformers_reads_it(row, data)
        if spec is not None and expected is not None:
            assert spec == expected, row.architecture
            compared.append(row.architecture)
    assert len(compared) > 20, compared
