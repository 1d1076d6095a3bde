"""Metrics are measured once, under a name that says who asks for it; here they get their prefixes.

both:NAME   ``vllm:NAME`` and ``quire:NAME``, whichever are wanted
vllm:NAME   names that only older dashboards ask for
quire:NAME  what no other engine has
NAME        a name that belongs to no engine, such as those of the process
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Sample

CONTENT_TYPE = CONTENT_TYPE_LATEST
PREFIXES = {"vllm": ("vllm",), "quire": ("quire",), "both": ("vllm", "quire")}


def expose(families: Iterable[Metric], wanted: str) -> bytes:
    """The text that Prometheus reads; ``wanted`` is ``--metrics-prefix``."""
    prefixed = (new for one in families for new in _with_prefixes(one, PREFIXES[wanted]))
    return generate_latest(_Collected(prefixed))


class _Collected:
    """All that ``generate_latest`` asks of a registry."""

    def __init__(self, families: Iterator[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        return self._families


def _with_prefixes(family: Metric, wanted: tuple[str, ...]) -> Iterator[Metric]:
    prefix, _, rest = family.name.rpartition(":")
    if prefix == "both":
        for each in wanted:
            yield _renamed(family, f"{each}:{rest}")
    elif prefix == "" or prefix in wanted:
        yield _renamed(family, family.name)


def _renamed(family: Metric, name: str) -> Metric:
    """The family under another name, without its ``_created`` samples."""
    renamed = Metric(name, family.documentation, family.type, family.unit)
    cut = len(family.name)
    renamed.samples = [
        Sample(name + one.name[cut:], one.labels, one.value)
        for one in family.samples
        if not one.name.endswith("_created")
    ]
    return renamed
