"""Write the tables of docs/server.md from the code: endpoints from routes, flags from ServerArgs.

python tools/server_docs.py
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from pathlib import Path
from typing import Any

from fastapi.routing import APIRoute

from quire.args import Flag
from quire.server.app import ROUTERS
from quire.server.args import ServerArgs
from quire.server.guard import is_open

PAGE = Path(__file__).resolve().parents[1] / "docs" / "server.md"


def written(text: str) -> str:
    """``text``, the page, with its tables replaced by those of the code."""
    for name, lines in {"endpoints": endpoint_lines(), "flags": flag_lines()}.items():
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        table = "\n".join([begin, *lines, end])
        text, count = re.subn(f"{begin}.*{end}", lambda _: table, text, flags=re.DOTALL)  # noqa: B023
        if count != 1:
            raise ValueError(f"the page needs {begin} and {end}, once")
    return text


def endpoint_lines() -> list[str]:
    """One row a path; what it does is the first sentence of its function's docstring."""
    rows: dict[str, tuple[set[str], str]] = {}
    for router in ROUTERS:
        for route in router.routes:
            if isinstance(route, APIRoute):
                text = _first_sentence(route.endpoint)
                methods, _ = rows.setdefault(route.path, (set(), text))
                methods |= route.methods
    head = ["| endpoint | methods | key | |", "|---|---|---|---|"]
    return head + [
        f"| `{path}` | {', '.join(sorted(methods))} | {'no' if is_open(path) else 'yes'} | {text} |"
        for path, (methods, text) in rows.items()
    ]


def flag_lines() -> list[str]:
    """One table a group, in the order of the fields."""
    lines: list[str] = []
    group = ""
    for item in dataclasses.fields(ServerArgs):
        flag: Flag = item.metadata["flag"]
        if flag.group != group:
            group = flag.group
            lines += ["", f"**{group}**", "", "| flag | default | |", "|---|---|---|"]
        name = f"--{item.name.replace('_', '-')}"
        lines.append(f"| `{name}` | {_default(item.default)} | {_help(flag)} |")
    return [*lines, ""]


def _first_sentence(function: Any) -> str:
    text = " ".join((inspect.getdoc(function) or "").split())
    return _cell(re.split(r"(?<=\.) ", text)[0].rstrip("."))


def _default(value: Any) -> str:
    if value is None or value in ("", ()):
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _help(flag: Flag) -> str:
    choices = f" ({', '.join(flag.choices)})" if flag.choices else ""
    return _cell(f"{flag.help}{choices}")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("``", "`")


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
