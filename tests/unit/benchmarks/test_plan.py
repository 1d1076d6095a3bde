from benchmarks.gpu_parts.plan import DEFAULT_PARTS, MODELS, PARTS, Choices, plan, planned_rows
from benchmarks.gpu_parts.targets import SMALL, SPARSE, TARGETS


def choices(**changes: object) -> Choices:
    fields: dict[str, object] = {"models": MODELS, "workloads": (), "parts": DEFAULT_PARTS}
    return Choices(**{**fields, **changes})  # type: ignore[arg-type]


def test_every_row_with_figures_is_measured_once() -> None:
    wanted = {(one.model, one.workload) for one in TARGETS if one.model != "tiny"}
    assert set(planned_rows(choices())) == wanted
    measured = [
        (unit.options["model"], item)
        for unit in plan(choices())
        if unit.kind == "speed"
        for item in unit.items
        if ":" not in item
    ]
    assert sorted(measured) == sorted(wanted)


def test_more_rows_than_an_engine_has_get_an_engine_of_their_own() -> None:
    unit = plan(choices())[-1]
    assert unit.items == ("decode1024",)
    assert unit.options["engine"] == {"max_num_seqs": 1024}


def test_steady_steps_of_the_small_model_are_always_looked_at() -> None:
    (unit,) = [one for one in plan(choices()) if one.name == f"speed on {SMALL}"]
    assert unit.items[:3] == ("single", "decode256", "profile:decode256")


def test_only_what_is_asked() -> None:
    asked = choices(models=(SMALL,), workloads=("decode7",), parts=("speed",))
    assert planned_rows(asked) == [(SMALL, "decode7")]
    assert [unit.items for unit in plan(asked)] == [("decode7",)]
    profile = plan(choices(models=(SPARSE,), workloads=("single",), parts=("profile",)))
    assert [unit.items for unit in profile] == [("profile:single",)]


def test_units_have_names_of_their_own_and_an_estimate_for_every_item() -> None:
    units = plan(choices(parts=PARTS))
    assert len({unit.name for unit in units}) == len(units)
    assert all(unit.item_s[item] > 0 for unit in units for item in unit.items)
    kinds = {"checks", "speed", "startup", "experts", "features", "soak"}
    assert {unit.kind for unit in units} == kinds
