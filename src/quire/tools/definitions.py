"""The tools of a request, as parsers and grammars need them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from quire.tools.values import ALL, Kinds, kinds_of

TEXT: Kinds = frozenset({"string"})


@dataclass(frozen=True, slots=True)
class Tools:
    """Tool name -> JSON schema of its arguments, empty if none was given."""

    schemas: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, definitions: Sequence[Any] | None) -> Tools:
        """From OpenAI's definitions; those without a name are skipped."""
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
        """The kinds of values of a parameter; a string if nothing is known of it."""
        found = kinds_of(self.schemas.get(tool, {}), parameter)
        return TEXT if found == ALL else found
