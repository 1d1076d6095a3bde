"""Units of work: each runs in a process of its own, so that a crash, a hang or a broken device
does not affect the others. A unit has items; an item's exception is reported, and the next runs.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from .records import (
    BEGIN,
    END,
    FAILED,
    SKIPPED,
    Records,
    settled_items,
    unfinished_item,
)

GRACE_S = 20.0  # after its deadline, before a process is killed
SLACK = 2.5  # a unit that takes this many times its expected time is taken to hang
DEVICE_LOST = 3  # exit status of a process whose device no longer answers
OPENING = "opening"  # the item of a unit that fails before its first


@dataclass(frozen=True, kw_only=True, slots=True)
class Unit:
    """The work of one process."""

    name: str
    kind: str  # a key of the table of unit functions
    items: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)
    item_s: dict[str, float] = field(default_factory=dict)  # about how long each item takes
    opening_s: float = 10.0  # before the first item
    limit_s: float = 300.0  # for the whole unit, however much time is left

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Unit:
        fields = json.loads(text)
        return cls(**{**fields, "items": tuple(fields["items"])})


DoItem = Callable[[str], None]
OpenUnit = Callable[[Unit, Records], AbstractContextManager[DoItem]]


@dataclass(slots=True)
class Budget:
    """Wall-clock time that is left."""

    deadline: float  # time.time()

    @property
    def left_s(self) -> float:
        return self.deadline - time.time()


# -- in the unit's own process ---------------------------------------------------------------------


def run_items(unit: Unit, open_unit: OpenUnit, records: Records, budget: Budget) -> int:
    """Run the items that time allows; returns the process's exit status."""
    try:
        with open_unit(unit, records) as do_item:
            for item in unit.items:
                if not _is_time_for(unit, item, records, budget):
                    continue
                with _reported(unit.name, item, records):
                    do_item(item)
                if not _device_answers():
                    return DEVICE_LOST
    except Exception as error:
        traceback.print_exc()
        for item in set(unit.items) - settled_items(records.read(), unit.name):
            records.add(FAILED, unit=unit.name, item=item, error=_in_short(error))
    return 0


def _is_time_for(unit: Unit, item: str, records: Records, budget: Budget) -> bool:
    needed_s = unit.item_s.get(item, 0.0)
    if needed_s <= budget.left_s:
        return True
    reason = f"needs about {needed_s:.0f} s, {max(0, budget.left_s):.0f} s were left"
    print(f"SKIPPED {unit.name}, {item}: {reason}", flush=True)
    records.add(SKIPPED, unit=unit.name, item=item, reason=reason)
    return False


@contextmanager
def _reported(unit: str, item: str, records: Records) -> Iterator[None]:
    records.add(BEGIN, unit=unit, item=item)
    started = time.perf_counter()
    try:
        yield
    except Exception as error:
        traceback.print_exc()
        print(f"FAILED {unit}, {item}: {_in_short(error)}", flush=True)
        records.add(FAILED, unit=unit, item=item, error=_in_short(error))
    else:
        took_s = round(time.perf_counter() - started, 2)
        records.add(END, unit=unit, item=item, seconds=took_s)


def _device_answers() -> bool:
    """Whether the device still works; False after an error that breaks it for this process."""
    if not torch.cuda.is_initialized():
        return True
    try:
        torch.cuda.synchronize()
        torch.zeros(1, device="cuda")
    except Exception as error:
        print(f"the device is lost to this process: {_in_short(error)}", flush=True)
        return False
    return True


def _in_short(error: BaseException) -> str:
    text = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {text}"[:300]


# -- in the process that starts them ---------------------------------------------------------------


def run_unit(script: str, unit: Unit, records: Records, budget: Budget) -> None:
    """Run the unit in processes of its own, a new one after each crash, until every item is done,
    failed or skipped."""
    for _ in unit.items:
        items = tuple(
            item for item in unit.items if item not in settled_items(records.read(), unit.name)
        )
        if not items:
            return
        first_s = unit.opening_s + unit.item_s.get(items[0], 0.0)
        if budget.left_s < first_s:
            reason = f"needs about {first_s:.0f} s, {max(0, budget.left_s):.0f} s were left"
            print(f"SKIPPED {unit.name}: {', '.join(items)}: {reason}", flush=True)
            for item in items:
                records.add(SKIPPED, unit=unit.name, item=item, reason=reason)
            return
        rest = Unit(**{**asdict(unit), "items": items})
        _blame(unit, _run_process(script, rest, records, budget), records)


def _run_process(script: str, unit: Unit, records: Records, budget: Budget) -> str | None:
    """Run one process of the unit; why it failed, or None."""
    expected_s = unit.opening_s + sum(unit.item_s.get(item, 0.0) for item in unit.items)
    limit_s = min(unit.limit_s, budget.left_s, SLACK * expected_s + 60)
    words = ["--unit", unit.to_json(), "--records", str(records.path)]
    words += ["--deadline", str(time.time() + limit_s)]
    try:
        ended = subprocess.run(
            [sys.executable, script, *words], check=False, timeout=limit_s + GRACE_S
        )
    except subprocess.TimeoutExpired:
        return f"it was killed after {limit_s + GRACE_S:.0f} s"
    if ended.returncode in (0, DEVICE_LOST):
        return None
    return f"its process ended with status {ended.returncode}"


def _blame(unit: Unit, problem: str | None, records: Records) -> None:
    """Report the item at which a process died, or all that are left if it died before the first."""
    if problem is None:
        return
    item = unfinished_item(records.read(), unit.name)
    left = set(unit.items) - settled_items(records.read(), unit.name)
    print(f"FAILED {unit.name}, {item or OPENING}: {problem}", flush=True)
    for name in [item] if item is not None else sorted(left):
        records.add(FAILED, unit=unit.name, item=name, error=problem)
