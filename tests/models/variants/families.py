"""Random variants of every family that transformers has a class for, as strategies.

A strategy draws the fields of a config: head counts and sizes, groups, biases, tied heads, norms,
activations, rotary types, windows.
"""

from __future__ import annotations

from hypothesis import strategies as st

from tests.models.row import ParityRow
from tests.models.variants import dense, experts, gpt, parallel
from tests.models.variants.draws import Draw

_FAMILIES = {**dense.FAMILIES, **gpt.FAMILIES, **parallel.FAMILIES, **experts.FAMILIES}
ARCHITECTURES = sorted(_FAMILIES)


def variants(architecture: str) -> st.SearchStrategy[ParityRow]:
    """Rows of this architecture, each with another config; its fields are the row's variant."""
    config, fields_of = _FAMILIES[architecture]

    @st.composite
    def row(draw: Draw) -> ParityRow:
        fields = fields_of(draw)
        return ParityRow(
            architecture=architecture,
            variant=str(fields),
            make_config=lambda: config(**fields),
        )

    return row()
