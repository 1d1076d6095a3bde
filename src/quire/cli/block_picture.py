"""Draws KV blocks, one cell per block, with a legend. Knows only the blocks' states."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import groupby

WIDTH = 64  # cells in a line


@dataclass(frozen=True, slots=True)
class State:
    """How one state of a KV block is drawn."""

    name: str
    cell: str
    colour: str  # ANSI colour code


# Indexed by the value in `LLM.block_map()`.
STATES = (
    State("free", "·", "90"),
    State("in use", "█", "32"),
    State("shared", "▓", "35"),
    State("cached", "░", "34"),
)


def draw(blocks: bytes, *, colours: bool) -> str:
    """The picture with its legend below."""
    lines = [blocks[start : start + WIDTH] for start in range(0, len(blocks), WIDTH)]
    return "\n".join([*(_line(line, colours) for line in lines), legend(blocks, colours=colours)])


def legend(blocks: bytes, *, colours: bool) -> str:
    counts = Counter(blocks)
    parts = [
        f"{_paint(state.cell, state, colours)} {counts[value]} {state.name}"
        for value, state in enumerate(STATES)
    ]
    return "   ".join(parts)


def num_used(blocks: bytes) -> int:
    """Blocks that running requests hold."""
    return blocks.count(1) + blocks.count(2)


def _line(blocks: bytes, colours: bool) -> str:
    runs = ((STATES[value], len(list(run))) for value, run in groupby(blocks))
    return "".join(_paint(state.cell * length, state, colours) for state, length in runs)


def _paint(text: str, state: State, colours: bool) -> str:
    return f"\x1b[{state.colour}m{text}\x1b[0m" if colours else text
