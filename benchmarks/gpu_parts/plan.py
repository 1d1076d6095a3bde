"""Which units a run consists of, and in which order, as computed from the command line."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from quire.bench.standard_workloads import standard_workload

from . import targets
from .checks import BF16, KERNELS, TOKENS
from .features import FEATURES
from .speed import PROFILE
from .targets import DENSE, SMALL, SPARSE, TARGETS
from .units import Unit

PARTS = (
    "checks", "families", "speed", "startup", "experts", "profile", "features", "soak", "kernels",
)  # fmt: skip
DEFAULT_PARTS = ("checks", "speed", "startup", "experts", "kernels")
MODELS = (SMALL, DENSE, SPARSE)
# Estimated seconds until an engine is open, and of a profile of one row.
OPENING_S = {SMALL: 14.0, DENSE: 16.0, SPARSE: 40.0}
EARLY_MODELS = (SMALL, DENSE)
PROFILE_S = 8.0
FEATURE_S = {SMALL: 6.0, DENSE: 16.0, SPARSE: 30.0}  # three repetitions with one and with all
TINY_MODELS = ("grouped-heads", "windows", "experts")
FAMILIES = (
    "parallel block", "alibi", "one kv head", "mixture", "latent attention", "window", "soft cap",
    "learned positions", "partial rotary", "interleaved", "sinks",
)  # fmt: skip
FAMILY_S = {f"{TOKENS}{name}": 12.0 for name in FAMILIES}
CHECK_S = {f"{TOKENS}{name}": 12.0 for name in TINY_MODELS} | {BF16: 20.0}
MANY = "many rows"
STEADY_ROW = "decode256"  # profiled on the small model, whatever its speed
MANY_ROWS = 256  # workloads of more rows than this need an engine of their own
SEEN_EXPERTS = ("decode1", "decode64", "decode256")


@dataclass(frozen=True, kw_only=True, slots=True)
class Choices:
    """What the command line asks for."""

    models: tuple[str, ...]
    workloads: tuple[str, ...]  # empty: all that are planned for a model
    parts: tuple[str, ...]
    repetitions: int = 3
    scale: float = 1.0
    minutes: float = 5.0  # of the soak
    profiles: bool = True  # of rows that fall short
    engine: dict[str, Any] = field(default_factory=dict)
    rates: dict[str, Any] = field(default_factory=dict)


def planned_rows(choices: Choices) -> list[tuple[str, str]]:
    """(model, workload) in the table's order."""
    rows = [
        (one.model, one.workload)
        for one in TARGETS
        if one.model in choices.models
        and (not choices.workloads or one.workload in choices.workloads)
    ]
    extra = [
        (model, workload)
        for model in choices.models
        for workload in choices.workloads
        if (model, workload) not in rows
    ]
    return rows + extra


def plan(choices: Choices) -> list[Unit]:
    """The units, most important first, since the last are skipped when time runs out."""
    units: list[Unit] = []
    if "checks" in choices.parts:
        units.append(_unit("checks", "checks", CHECK_S, choices, item_s=CHECK_S))
    if "families" in choices.parts:
        units.append(_unit("families", "checks", FAMILY_S, choices, item_s=FAMILY_S))
    speed = _speed_units(choices) if {"speed", "profile"} & {*choices.parts} else []
    units += [unit for unit in speed if unit.options["model"] in EARLY_MODELS]
    if "startup" in choices.parts:
        units.append(_startup_unit(choices))
    if "kernels" in choices.parts:
        units.append(_unit("kernels", "checks", (KERNELS,), choices, item_s={KERNELS: 40.0}))
    if "experts" in choices.parts:
        units += _experts_units(choices)
    units += [unit for unit in speed if unit not in units]
    if "features" in choices.parts:
        units += _features_units(choices)
    if "soak" in choices.parts:
        units.append(_soak_unit(choices))
    return sorted(units, key=lambda unit: unit.name.startswith(MANY))


def _unit(name: str, kind: str, items: Iterable[str], choices: Choices, **changes: Any) -> Unit:
    options = {"engine": choices.engine, **changes.pop("options", {})}
    return Unit(name=name, kind=kind, items=tuple(items), options=options, **changes)


def _speed_units(choices: Choices) -> list[Unit]:
    """One engine per model, and a second for workloads that need more rows than the first has."""
    rows = planned_rows(choices)
    units = []
    for is_large in (False, True):
        for model in choices.models:
            names = [w for m, w in rows if m == model and _is_large(w) == is_large]
            if names:
                units.append(_speed_unit(model, names, choices, is_large=is_large))
    return units


def _is_large(workload: str) -> bool:
    return workload.startswith("decode") and int(workload.removeprefix("decode")) > MANY_ROWS


def _speed_unit(model: str, names: list[str], choices: Choices, *, is_large: bool) -> Unit:
    items = list(names) if "speed" in choices.parts else []
    if "profile" in choices.parts:
        items += [PROFILE + name for name in names]
    elif model == SMALL and STEADY_ROW in names and choices.profiles:
        items.insert(items.index(STEADY_ROW) + 1, PROFILE + STEADY_ROW)
    engine = dict(choices.engine)
    if is_large:
        engine["max_num_seqs"] = max(int(name.removeprefix("decode")) for name in names)
    return _unit(
        f"{MANY} on {model}" if is_large else f"speed on {model}",
        "speed",
        items,
        choices,
        item_s={item: _item_s(model, item, choices) for item in items},
        opening_s=OPENING_S.get(model, 10.0),
        limit_s=420.0,
        options={
            "model": model,
            "engine": engine,
            "scale": choices.scale,
            "repetitions": choices.repetitions,
            "profiles": choices.profiles,
            "rates": choices.rates,
        },
    )


def _item_s(model: str, item: str, choices: Choices) -> float:
    """Estimated seconds of an item: the peer's time, and some for the warm-up."""
    if item.startswith(PROFILE):
        return PROFILE_S
    workload = standard_workload(item, scale=choices.scale)
    peer_s = targets.target_of(model, item).peer_s(workload)
    return 1 + (choices.repetitions + 0.3) * peer_s


def _startup_unit(choices: Choices) -> Unit:
    known = [one.model for one in targets.START_TARGETS if one.goal_cold is not None]
    models = tuple(model for model in choices.models if model in known) or choices.models[:1]
    return _unit("startup", "startup", models, choices, item_s=dict.fromkeys(models, 40.0))


def _experts_units(choices: Choices) -> list[Unit]:
    return [
        _unit(
            f"experts of {model}", "experts", SEEN_EXPERTS, choices,
            item_s=dict.fromkeys(SEEN_EXPERTS, 4.0),
            options={"model": model, "scale": choices.scale},
        )
        for model in choices.models
        if model == SPARSE
    ]  # fmt: skip


def _features_units(choices: Choices) -> list[Unit]:
    options = {"scale": choices.scale, "repetitions": choices.repetitions}
    return [
        _unit(
            f"features on {model}", "features", FEATURES, choices,
            item_s=dict.fromkeys(FEATURES, FEATURE_S.get(model, 10.0)),
            opening_s=OPENING_S.get(model, 10.0), options={"model": model, **options},
        )
        for model in choices.models
    ]  # fmt: skip


def _soak_unit(choices: Choices) -> Unit:
    seconds = 60 * choices.minutes
    each = seconds / len(TINY_MODELS)
    return _unit(
        "soak", "soak", TINY_MODELS, choices,
        item_s=dict.fromkeys(TINY_MODELS, each), limit_s=seconds + 120,
        options={"minutes": choices.minutes, "names": list(TINY_MODELS)},
    )  # fmt: skip
