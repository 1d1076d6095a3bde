"""Imports point down, and the light half of the package stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import quire

PACKAGE = Path(quire.__file__).parent

# From the bottom up; a module may import from its own level and from those below.
LEVELS: tuple[tuple[str, ...], ...] = (
    (
        *("errors", "sizes", "request", "step", "step_output", "batch", "config", "kv_layout"),
        *("kv_fit", "outputs", "prompts", "sampling_params", "sampling_limits", "row_sampling"),
        *("env", "platform", "log", "compat", "assets"),
    ),
    ("kernels",),
    ("attention", "weights"),
    ("layers",),
    ("models", "sampling", "tokenizer", "chat_template", "template_format"),
    ("kv_cache", "worker"),
    ("scheduler", "executor"),
    ("args", "context_length", "model_files", "resolve"),
    ("engine",),
    ("plan",),
    ("llm", "cli", "bench", "__main__"),
)
LEVEL_OF = {name: level for level, names in enumerate(LEVELS) for name in names}
ALLOWED_UPWARD = {
    ("attention", "quire.layers.spec"),  # frozen data that says what to build
}

WITHOUT_TORCH = (
    *("quire", "quire.args", "quire.cli", "quire.compat", "quire.config", "quire.kv_fit"),
    *("quire.llm", "quire.outputs", "quire.plan", "quire.prompts", "quire.request"),
    *("quire.resolve", "quire.sampling_params", "quire.scheduler.scheduler", "quire.step"),
    "quire.kv_cache.manager",
)


def imports_of(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("quire."))
        elif isinstance(node, ast.ImportFrom) and node.module == "quire":
            yield from (f"quire.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("quire."):
            yield str(node.module)


def part_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


FILES = sorted(file for file in PACKAGE.rglob("*.py") if file.parent.name != "assets")


def test_every_module_has_a_level() -> None:
    parts = {part_of(file) for file in FILES} - {"__init__", "assets"}
    assert parts - LEVEL_OF.keys() == set(), "give the new module a place in LEVELS"


def test_imports_point_down() -> None:
    wrong = [
        f"{file.relative_to(PACKAGE)} imports {name}"
        for file in FILES
        if (part := part_of(file)) in LEVEL_OF
        for name in imports_of(file)
        if LEVEL_OF.get(name.split(".")[1], -1) > LEVEL_OF[part]
        and (part, name) not in ALLOWED_UPWARD
    ]
    assert wrong == []


def test_light_modules_import_neither_torch_nor_transformers() -> None:
    code = (
        f"import importlib, sys\n"
        f"for name in {WITHOUT_TORCH!r}:\n"
        "    importlib.import_module(name)\n"
        "    heavy = {'torch', 'transformers'} & sys.modules.keys()\n"
        "    assert not heavy, f'{name} imports {heavy}'\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_public_names_can_be_imported() -> None:
    for name in quire.__all__:
        assert getattr(quire, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        quire.Nothing  # noqa: B018
