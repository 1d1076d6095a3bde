"""Write the table of docs/models.md from the registry of model families.

python tools/models_doc.py
"""

from __future__ import annotations

import re
from pathlib import Path

from quire.models.registry import supported_families

PAGE = Path(__file__).resolve().parents[1] / "docs" / "models.md"
BEGIN, END = "<!-- families -->", "<!-- end of families -->"


def written(text: str) -> str:
    """``text``, the page, with its table replaced by that of the code."""
    table = "\n".join([BEGIN, *family_lines(), END])
    text, count = re.subn(f"{BEGIN}.*{END}", lambda _: table, text, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"the page needs {BEGIN} and {END}, once")
    return text


def family_lines() -> list[str]:
    """One row per family."""
    rows = []
    for family in supported_families():
        names = ", ".join(f"`{name}`" for name in family.architectures)
        examples = ", ".join(f"`{name}`" for name in family.examples)
        rows.append(f"| {names} | {family.special} | {examples} |")
    return ["| architectures | what they are | for example |", "|---|---|---|", *rows]


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
