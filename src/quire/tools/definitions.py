"""The tools of a request, as parsers and grammars want to know them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from quire.tools.values import ALL, Kinds, kinds_of

TEXT: Kinds = frozenset({"string"})


@dataclass(frozen=True, slots=True)
class Tools:
    """By their names; the values are JSON schemas of the arguments, empty where none was given."""

    schemas: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, definitions: Sequence[Any] | None) -> Tools:
        """Of OpenAI's definitions; parts that are missing say nothing."""
        schemas: dict[str, Mapping[str, Any]] = {}
        for one in definitions or ():
            function = one.get("function", one) if isinstance(one, Mapping) else {}
            if isinstance(function, Mapping) and isinstance(function.get("name"), str):
                parameters = function.get("parameters")
                schemas[function["name"]] = parameters if isinstance(parameters, Mapping) else {}
        return cls(schemas)

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self.schemas)

    def kinds(self, tool: str, parameter: str) -> Kinds:
        """Of the values of a parameter; a string is one of which nothing is known."""
        found = kinds_of(self.schemas.get(tool, {}), parameter)
        return TEXT if found == ALL else found
