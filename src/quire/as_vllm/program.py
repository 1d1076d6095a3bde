"""Runs a program, or a module, as Python itself would: its arguments, path, exit status, traceback.

Knows nothing about vLLM's names: `finder.py` has made them importable, `children.py` does so for
the processes that the program starts.
"""

from __future__ import annotations

import builtins
import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.machinery import BuiltinImporter, ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType, TracebackType
from typing import NoReturn

from quire.as_vllm.children import prepare_children
from quire.as_vllm.finder import install, no_module
from quire.as_vllm.names import PACKAGE

_NAME = "python -m quire.as_vllm"
_HELP = f"""\
usage: {_NAME} PROGRAM [ARGS]
       {_NAME} -m MODULE [ARGS]
       {_NAME} -c CODE [ARGS]
       {_NAME} - [ARGS]            (the program is read from standard input)

Run a program that was written for vLLM: `import vllm` is Quire, in the Python processes that it
starts too, and so is the command `vllm`. docs/coming_from_vllm.md lists what there is.
"""
_USAGE_ERROR = 2
_OF_ARGUMENT = "<string>"
_NEEDS = {"-m": "the name of a module", "-c": "a program"}


def run(words: Sequence[str]) -> None:
    """Become the program that ``words`` name, with the arguments that follow."""
    if not words or words[0] in ("-h", "--help"):
        print(_HELP, end="", file=sys.stdout if words else sys.stderr)
        sys.exit(0 if words else _USAGE_ERROR)
    install()
    prepare_children()
    sys.excepthook = _show_error
    if words[0] in _NEEDS and len(words) == 1:
        _fail(f"{words[0]} needs {_NEEDS[words[0]]}", _USAGE_ERROR)
    if words[0] == "-m":
        module, code = _module(words[1])
        sys.argv[:] = [str(module.__file__), *words[2:]]
    elif words[0] == "-c":
        module, code = _text(words[1], _OF_ARGUMENT)
        sys.argv[:] = ["-c", *words[2:]]
    elif words[0] == "-":
        module, code = _text(sys.stdin.buffer.read(), "<stdin>")
        sys.argv[:] = words
    else:
        module, code = _program(words[0])
        sys.argv[:] = words
    sys.modules["__main__"] = module
    exec(code, vars(module))


def _program(name: str) -> tuple[ModuleType, CodeType]:
    """Load a program's file; its folder replaces the current one in ``sys.path``."""
    file = os.path.abspath(name)
    try:
        source = Path(file).read_bytes()
    except OSError as error:
        _fail(f"can't open file {file!r}: {error.strerror}", _USAGE_ERROR)
    if not _is_safe_path():
        sys.path[0] = str(Path(file).resolve().parent)
    module = _main_module(file, loader=SourceFileLoader("__main__", file))
    return module, compile(source, file, "exec", dont_inherit=True)


def _text(source: str | bytes, name: str) -> tuple[ModuleType, CodeType]:
    """A program that has no file; modules are then searched in the current folder."""
    if not _is_safe_path():
        sys.path[0] = ""
    module = _main_module(None if name == _OF_ARGUMENT else name, loader=BuiltinImporter)
    return module, compile(source, name, "exec", dont_inherit=True)


def _module(name: str) -> tuple[ModuleType, CodeType]:
    try:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            name = f"{name}.__main__"
            spec = importlib.util.find_spec(name)
    except ModuleNotFoundError as error:
        _fail(str(error))
    if spec is None or spec.loader is None or not hasattr(spec.loader, "get_code"):
        is_vllm = name.partition(".")[0] == PACKAGE
        _fail(no_module(name) if is_vllm else f"No module named {name}")
    code = spec.loader.get_code(spec.name)
    if code is None:
        _fail(f"{name} has no code to run")
    return _main_module(str(spec.origin), loader=spec.loader, spec=spec), code


def _main_module(file: str | None, loader: object, spec: ModuleSpec | None = None) -> ModuleType:
    module = ModuleType("__main__")
    vars(module).update(
        __loader__=loader,
        __spec__=spec,
        __package__=None if spec is None else spec.parent,
        __builtins__=builtins,
    )
    if file is not None:
        module.__file__ = file
    return module


def _is_safe_path() -> bool:
    """Whether ``-P`` (Python 3.11 and later) keeps the program's folder out of ``sys.path``."""
    return bool(getattr(sys.flags, "safe_path", False))


def _show_error(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Print an uncaught error as Python does, without the frames of this runner."""
    here = os.path.dirname(__file__)
    while trace is not None and _is_ours(trace.tb_frame.f_code.co_filename, here):
        trace = trace.tb_next
    sys.__excepthook__(kind, error.with_traceback(trace), trace)


def _is_ours(file: str, here: str) -> bool:
    return file.startswith((here, "<frozen runpy>", "<frozen importlib")) or file.endswith(
        f"{os.sep}runpy.py"
    )


def _fail(message: str, status: int = 1) -> NoReturn:
    print(f"{_NAME}: {message}", file=sys.stderr)
    sys.exit(status)
