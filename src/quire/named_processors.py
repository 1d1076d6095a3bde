"""Logits processors by name, which a request can carry to an engine in another process.

A name is one that a plug-in has registered in the entry-point group `quire.logits_processors`, or
an import path, ``package.module.function``. Whether a caller may name code at all is not
decided here (`quire serve` asks --logits-processor-pattern). Imports no torch.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any

from quire.compat import BATCH_PROCESSORS

GROUP = "quire.logits_processors"
_FORM = 'a name, or {"qualname": name, "args": [...], "kwargs": {...}} for one that must be made'


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedProcessor:
    """The name of a function, or of a class or factory with its arguments."""

    qualname: str
    is_made: bool = False  # the name is that of a class or function that returns the processor
    args: list[Any] = field(default_factory=list)
    kwargs: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, value: object) -> NamedProcessor:
        """Parse a name or an object with ``qualname``; ``ValueError`` for anything else."""
        if isinstance(value, NamedProcessor):
            return value
        if isinstance(value, str) and value:
            return cls(qualname=value)
        if not isinstance(value, Mapping) or not isinstance(value.get("qualname"), str):
            raise ValueError(f"a logits processor is {_FORM}; got {value!r}")
        unknown = sorted(map(str, value.keys() - {"qualname", "args", "kwargs"}))
        if unknown:
            raise ValueError(f"a logits processor has no {unknown[0]!r}; it is {_FORM}")
        args, kwargs = value.get("args") or [], value.get("kwargs") or {}
        if not isinstance(args, (list, tuple)) or not isinstance(kwargs, Mapping):
            raise ValueError(f"args must be a list and kwargs an object, got {value!r}")
        return cls(qualname=value["qualname"], is_made=True, args=[*args], kwargs={**kwargs})

    def load(self) -> Callable[..., Any]:
        """Import and return the function; ``ValueError`` if that fails."""
        found = _find(self.qualname)
        if isinstance(found, type) and not self.is_made:
            remedy = f'name it as {{"qualname": "{self.qualname}", "args": [...]}}'
            raise _class_error(found, repr(self.qualname), remedy)
        if not self.is_made:
            return found
        try:
            made = found(*self.args, **self.kwargs)
        except Exception as error:  # foreign code
            raise ValueError(
                f"the logits processor {self.qualname!r} cannot be made of args={self.args!r} and "
                f"kwargs={self.kwargs!r}: {type(error).__name__}: {error}"
            ) from error
        return _checked(made, self.qualname)


def functions_and_names(
    processors: Iterable[Any],
) -> tuple[tuple[Callable[..., Any], ...], tuple[NamedProcessor, ...]]:
    """(functions, names): a request's processors, in order; one of the two tuples is empty.

    Names are loaded, so that a bad one is a ``ValueError`` here. If any processor is a function,
    which cannot leave this process, named ones are returned as functions too.
    """
    given = list(processors)
    functions = tuple(_function(one) for one in given)
    if any(_is_function(one) for one in given):
        return functions, ()
    return (), tuple(NamedProcessor.parse(one) for one in given)


def _is_function(value: object) -> bool:
    return callable(value)


def _function(value: Any) -> Callable[..., Any]:
    if isinstance(value, type):
        name = value.__qualname__
        raise _class_error(value, name, f"pass an object of it, {name}(...)")
    return value if _is_function(value) else NamedProcessor.parse(value).load()


def _class_error(found: type, name: str, remedy: str) -> ValueError:
    """The error for a class, whose objects may be what was meant."""
    if any("__call__" in vars(one) for one in found.__mro__):
        return ValueError(f"the logits processor {name} is a class, which has to be made; {remedy}")
    return ValueError(f"the logits processor {name} is no function: {BATCH_PROCESSORS}")


@functools.cache
def _find(qualname: str) -> Callable[..., Any]:
    plugged = list(entry_points(group=GROUP, name=qualname))
    try:
        return _checked(plugged[0].load() if plugged else _imported(qualname), qualname)
    except Exception as error:  # foreign code: importing it may raise anything
        raise ValueError(
            f"the logits processor {qualname!r} cannot be loaded: {type(error).__name__}: {error}; "
            f"name a plug-in of the group {GROUP}, or package.module.function"
        ) from error


def _imported(qualname: str) -> Any:
    """The object at ``module:attribute.path`` or ``module.attribute``."""
    module_name, _, path = qualname.partition(":")
    if path:
        return functools.reduce(getattr, path.split("."), importlib.import_module(module_name))
    module_name, _, attribute = qualname.rpartition(".")
    if not module_name:
        raise ImportError("it is neither registered nor a path of modules")
    return getattr(importlib.import_module(module_name), attribute)


def _checked(value: Any, qualname: str) -> Callable[..., Any]:
    if not callable(value):
        raise ValueError(
            f"the logits processor {qualname!r} is a {type(value).__name__}, not a function"
        )
    return value
