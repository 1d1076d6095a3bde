"""Imports point down and in no circle, and the light half of the package stays light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import quire

PACKAGE = Path(quire.__file__).parent
ARCHITECTURE = Path(__file__).parents[2] / "docs/architecture.md"

# From the bottom up; a module may import from its own level and from those below.
LEVELS: tuple[tuple[str, ...], ...] = (
    (
        *("errors", "sizes", "request", "step", "step_output", "batch", "config", "kv_layout"),
        *("kv_fit", "outputs", "prompts", "sampling_params", "sampling_limits", "row_sampling"),
        "dtypes",
        *("structured", "whole_text"),
        *("env", "platform", "log", "heap", "compat", "assets", "generation_config", "near_names"),
        *("not_built", "child_process", "bytecode", "standard_streams", "shown"),
        *("kv_budget", "plugins", "named_processors", "incremental", "pinned_memory"),
    ),
    ("kernels",),
    ("attention", "weights"),
    ("layers",),
    ("models", "sampling", "lora", "tokenizer", "structured_outputs"),
    ("chat_calls", "chat_template", "chat_template_choice", "chat_templates", "template_format"),
    ("tools",),
    ("reasoning",),
    ("kv_cache", "worker"),
    ("scheduler", "executor"),
    ("args", "arg_types", "model_files", "resolve"),
    ("engine",),
    ("plan",),
    ("metrics", "clients"),
    ("server",),
    ("batch_files",),
    ("llm", "cli", "bench", "entrypoints", "__main__"),
    ("as_vllm",),
)
LEVEL_OF = {name: level for level, names in enumerate(LEVELS) for name in names}

WITHOUT_TORCH = (
    *("quire", "quire.args", "quire.cli", "quire.compat", "quire.config", "quire.kv_fit"),
    *("quire.llm", "quire.outputs", "quire.plan", "quire.prompts", "quire.request"),
    *("quire.resolve", "quire.sampling_params", "quire.scheduler.scheduler", "quire.step"),
    *("quire.kv_layout", "quire.step_output", "quire.structured"),
    *("quire.kv_cache.manager", "quire.models.context_length", "quire.as_vllm.program"),
)


# Modules that import each other, lazily at least, and why that may stay.
CYCLES: dict[frozenset[str], str] = {
    frozenset({"quire.args", "quire.arg_types", "quire.model_files", "quire.resolve"}): (
        "`EngineArgs.create_engine_config()` is a method, over what `resolve` and `model_files` "
        "make of its data"
    ),
}


def imports_of(source: str) -> Iterator[str]:
    """The modules of Quire that ``source`` imports, at its top or inside functions."""
    return imports_in(ast.parse(source))


def run_time_imports_of(source: str) -> Iterator[str]:
    """`imports_of` without those that only a type checker sees."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    return imports_in(tree)


def imports_in(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("quire."))
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield "." * node.level + (node.module or "")
        elif isinstance(node, ast.ImportFrom) and node.module == "quire":
            yield from (PUBLIC.get(alias.name, f"quire.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("quire."):
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in MODULES else str(node.module)


def cycles_in(imports: Mapping[str, set[str]]) -> set[frozenset[str]]:
    """The largest groups of modules each of which imports, over others, all of its group."""
    reached = {module: reachable(module, imports) for module in imports}
    return {
        frozenset(other for other in reached[module] if module in reached.get(other, ()))
        for module in imports
        if module in reached[module]
    }


def reachable(module: str, imports: Mapping[str, set[str]]) -> set[str]:
    found: set[str] = set()
    left = [module]
    while left:
        new = imports.get(left.pop(), set()) - found
        found |= new
        left += new
    return found


def wrong_imports(part: str, source: str) -> list[str]:
    """What ``source``, a file of the module or package ``part``, must not import."""
    return [
        name
        for name in imports_of(source)
        if name.startswith(".")  # a relative import hides where it goes
        or is_above(name, part)
    ]


def is_above(name: str, part: str) -> bool:
    return LEVEL_OF.get(name.split(".")[1], -1) > LEVEL_OF[part]


def part_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def module_of(file: Path) -> str:
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


# The package's own file only names the others, for whoever asks.
FILES = sorted(file for file in PACKAGE.rglob("*.py") if file != PACKAGE / "__init__.py")
MODULES = {module_of(file) for file in FILES}
PUBLIC = quire._MODULE_OF


def test_every_module_has_a_level() -> None:
    parts = {part_of(file) for file in FILES}
    assert parts == LEVEL_OF.keys(), "give a new module a place in LEVELS; drop one that is gone"


def test_the_architecture_lists_the_levels() -> None:
    text = ARCHITECTURE.read_text(encoding="utf-8")
    listed = text.partition("checks it): ")[2].partition(" → the leaf")[0]
    levels = [set(re.findall(r"\w+", level)) for level in listed.split("→")]
    assert levels == [set(level) for level in reversed(LEVELS[1:])]


def test_imports_point_down() -> None:
    wrong = {
        str(file.relative_to(PACKAGE)): names
        for file in FILES
        if part_of(file) in LEVEL_OF
        and (names := wrong_imports(part_of(file), file.read_text(encoding="utf-8")))
    }
    assert wrong == {}


@pytest.mark.parametrize(
    "source",
    [
        "import quire.engine.core",
        "from quire.engine import core",
        "from quire import engine",
        "from quire import LLM",
        "def f():\n    from quire.engine.core import EngineCore",
        "if TYPE_CHECKING:\n    import quire.engine.core as core",
        "from ..engine import core",
    ],
)
def test_an_import_upwards_is_found(source: str) -> None:
    assert len(wrong_imports("scheduler", source)) == 1
    assert wrong_imports("scheduler", "from quire.step import StepPlan") == []


def test_modules_import_each_other_nowhere_else() -> None:
    imports = {
        module_of(file): set(run_time_imports_of(file.read_text(encoding="utf-8")))
        for file in FILES
    }
    assert cycles_in(imports) == CYCLES.keys(), "break a new cycle; drop one that is gone"


@pytest.mark.parametrize(
    ("source", "is_cycle"),
    [
        ("from quire.sampling.sampler import Sampler", True),
        ("def f():\n    from quire.sampling.sampler import Sampler", True),
        ("def f():\n    from quire.sampling import sampler", True),
        ("if TYPE_CHECKING:\n    from quire.sampling.sampler import Sampler", False),
        ("if not READY:\n    import quire.sampling.sampler", True),
        ("from quire.sampling import penalties", False),
    ],
)
def test_a_cycle_is_found(source: str, is_cycle: bool) -> None:
    imports = {
        "quire.sampling.sampler": {"quire.sampling.choice"},
        "quire.sampling.choice": {"quire.sampling.ops"},
        "quire.sampling.ops": set(run_time_imports_of(source)),
        "quire.sampling.outside": {"quire.sampling.sampler"},
    }
    cycle = frozenset({"quire.sampling.sampler", "quire.sampling.choice", "quire.sampling.ops"})
    assert cycles_in(imports) == ({cycle} if is_cycle else set())


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


def test_only_where_a_rank_is_put_together_are_graphs_known() -> None:
    graphs = "quire.worker.step_graphs"
    knows = [file for file in FILES if graphs in imports_of(file.read_text(encoding="utf-8"))]
    assert knows == [PACKAGE / "worker/build.py"]


def test_public_names_can_be_imported() -> None:
    for name in quire.__all__:
        assert getattr(quire, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        quire.Nothing  # noqa: B018
