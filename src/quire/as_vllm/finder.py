"""Makes `import vllm` and its submodules find Quire, by the table in `names.py`.

Knows how imports work, not what programs do. A name that the table lacks raises the error type that
Python itself would raise, so that programs with an `except ImportError` go on;
`importlib.util.find_spec` returns None for it.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Sequence
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import TYPE_CHECKING, Any

from quire.as_vllm.names import MODULES, PACKAGE, VERSION, Module
from quire.near_names import did_you_mean, nearest

if TYPE_CHECKING:
    from importlib.metadata import Distribution, DistributionFinder

_FILE = str(Path(__file__).with_name("__init__.py"))  # of every module: programs take its folder
_LIST = "docs/coming_from_vllm.md lists what there is"
_MAIN = ".__main__"


def install() -> None:
    """From now on `vllm` is Quire in this process. A second call does nothing."""
    if any(isinstance(finder, Finder) for finder in sys.meta_path):
        return
    if PACKAGE in sys.modules:
        raise RuntimeError(f"{PACKAGE} has been imported already; call install() before")
    sys.meta_path.insert(0, Finder())


class Finder:
    """Finds `vllm` and everything under it, before any other finder does."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != PACKAGE and not name.startswith(f"{PACKAGE}."):
            return None
        command = MODULES.get(name.removesuffix(_MAIN), Module()).runs
        if name.endswith(_MAIN) and command is not None:
            return ModuleSpec(name, _Command(command), origin=_COMMAND_FILE)
        if name not in MODULES:
            _miss(name)
            return None
        return ModuleSpec(name, _Loader(MODULES[name]), origin="Quire", is_package=True)

    def find_distributions(self, context: DistributionFinder.Context) -> Iterator[Distribution]:
        """For programs that ask `importlib.metadata` for the version."""
        if context.name == PACKAGE:
            yield _distribution()


class _Loader(Loader):
    """Fills one module, whose names are looked up when they are used."""

    def __init__(self, known: Module) -> None:
        self._known = known

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        known = self._known
        public = sorted(known.names)

        def find(name: str) -> Any:
            return _lookup(module, known, name)

        vars(module).update(
            __doc__=f"{module.__name__}, as Quire has it.",
            __file__=_FILE,
            __all__=public,
            __getattr__=find,
            __dir__=lambda: sorted([*vars(module), *public]),
        )


class _Command(Loader):
    """What `python -m vllm.some.module` runs: a command of Quire."""

    def __init__(self, words: tuple[str, ...]) -> None:
        self._words = words

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        exec(self.get_code(module.__name__), vars(module))

    def get_code(self, name: str) -> CodeType:
        source = (
            "import sys\n"
            "from quire.cli import main\n"
            f"sys.exit(main([*{self._words!r}, *sys.argv[1:]]))\n"
        )
        return compile(source, _COMMAND_FILE, "exec")


_COMMAND_FILE = str(Path(__file__).parents[1] / "cli" / "__init__.py")  # becomes sys.argv[0]


def _lookup(module: ModuleType, known: Module, name: str) -> Any:
    """The attribute ``name`` of a module that does not have it in its dict."""
    if name in known.names:
        place, _, attribute = known.names[name].partition(":")
        return getattr(importlib.import_module(place), attribute)
    if name in known.not_built:
        made = _not_built(module.__name__, name, known.not_built[name])
        setattr(module, name, made)  # one class, however often it is imported
        return made
    if f"{module.__name__}.{name}" in MODULES:
        return importlib.import_module(f"{module.__name__}.{name}")
    if known.same_as and not name.startswith("__"):
        return getattr(importlib.import_module(known.same_as), name)
    near = did_you_mean(name, [*known.names, *known.not_built])
    raise AttributeError(f"Quire has no {module.__name__}.{name}{near}; {_LIST}")


class _NotBuilt(type):
    """Metaclass of names that can be imported; using one raises an error that says why."""

    why: str

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        raise ValueError(f"{cls.__name__} cannot be used: {cls.why}")

    def __getattr__(cls, name: str) -> Any:
        raise AttributeError(f"{cls.__name__}.{name} cannot be used: {cls.why}")


def _not_built(module: str, name: str, why: str) -> type:
    return _NotBuilt(name, (), {"__module__": module, "__doc__": f"Not built: {why}.", "why": why})


def _miss(name: str) -> None:
    """Raise the error that Python would raise if a module is being imported, so that no other
    finder can supply an installed vLLM; return if a caller only asks whether the module exists."""
    caller = _caller_in_importlib()
    if caller in ("", "find_spec"):
        return
    if caller == "_handle_fromlist":  # it replaces a ModuleNotFoundError of this name by its own
        raise ImportError(no_module(name), name=name.rpartition(".")[0], path=_FILE)
    raise ModuleNotFoundError(no_module(name), name=name)


def _caller_in_importlib() -> str:
    """The name of the `importlib` function that led to the finder; "" if none did."""
    name = ""
    frame: FrameType | None = sys._getframe(3)  # the caller of `Finder.find_spec`
    while frame is not None and _is_of_importlib(frame):
        name = frame.f_code.co_name
        frame = frame.f_back
    return name


def _is_of_importlib(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).partition(".")[0] == "importlib"


def no_module(name: str) -> str:
    """The error text for a missing module, or for a missing ``y`` of ``from vllm.x import y``."""
    parent, _, last = name.rpartition(".")
    if parent in MODULES and parent != PACKAGE:
        known = [*MODULES[parent].names, *MODULES[parent].not_built]
    else:
        known = [*MODULES[PACKAGE].names, *MODULES[PACKAGE].not_built]
    near = did_you_mean(last, known) or did_you_mean(name, _modules_besides(name))
    return f"Quire has no {name}{near}; {_LIST}"


def _modules_besides(name: str) -> list[str]:
    """The modules without those that ``name`` is looked for in, and without their neighbours in the
    same one whose own name is another: of these most of the path is the same anyway."""
    parent, _, last = name.rpartition(".")
    return [
        one
        for one in MODULES
        if not name.startswith(f"{one}.")
        and (one.rpartition(".")[0] != parent or nearest(last, [one.rpartition(".")[2]]))
    ]


def _distribution() -> Distribution:
    from importlib.metadata import Distribution

    class Quire(Distribution):
        """What an installed package says of itself."""

        def read_text(self, filename: str) -> str | None:
            metadata = f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: {VERSION}\n"
            return metadata if filename == "METADATA" else None

        def locate_file(self, path: Any) -> Any:
            return Path(__file__).parent / path

    return Quire()
