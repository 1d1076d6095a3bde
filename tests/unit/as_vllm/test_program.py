"""Programs run as Python runs them, and so do the processes that they start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

_SHOW = """
import os, sys
print(sys.argv, sys.path[0], __name__, __file__, __package__, __spec__ and __spec__.name)
print(sys.modules["__main__"].__dict__ is globals(), __builtins__)
"""


def run(*words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


def assert_as_python(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The same output, errors and status by `quire.as_vllm` as by Python alone."""
    alone = run(*words, cwd=cwd)
    done = run("-m", "quire.as_vllm", *words, cwd=cwd)
    assert (done.stdout, done.stderr) == (alone.stdout, alone.stderr)
    assert done.returncode == alone.returncode
    return done


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "show.py").write_text(_SHOW)
    (tmp_path / "inner" / "__main__.py").write_text(_SHOW)
    return tmp_path


@pytest.mark.parametrize(
    "words",
    [
        ["inner/show.py", "a", "-m", "--b=c"],
        ["-m", "inner.show", "a", "-h"],
        ["-m", "inner"],
    ],
)
def test_arguments_path_and_names(words: list[str], folder: Path) -> None:
    done = assert_as_python(*words, cwd=folder)
    assert done.returncode == 0 and "__main__" in done.stdout


@pytest.mark.parametrize(
    ("source", "status"),
    [
        ("import sys; sys.exit(7)", 7),
        ("import sys; sys.exit('a message')", 1),
        ("def f():\n    raise KeyError('x')\ntry:\n    f()\nexcept KeyError as e:\n    1/0", 1),
        ("print(1\nprint(2)", 1),
        ("import nothing_like_this", 1),
        ("raise KeyboardInterrupt", -signal.SIGINT),
        ("import atexit; atexit.register(print, 'the end')", 0),
        ("import threading; threading.Timer(0.05, print, ['later']).start()", 0),
        ("import sys; sys.excepthook = lambda *_: print('mine'); 1/0", 1),
    ],
)
def test_ends_are_those_of_python(source: str, status: int, tmp_path: Path) -> None:
    (tmp_path / "end.py").write_text(source)
    assert assert_as_python("end.py", cwd=tmp_path).returncode == status


@pytest.mark.parametrize(
    ("words", "message", "status"),
    [
        ([], "usage: python -m quire.as_vllm PROGRAM", 2),
        (["nowhere.py"], "can't open file '/", 2),
        (["-m"], "-m needs the name of a module", 2),
        (["-m", "nowhere.at.all"], "No module named 'nowhere'", 1),
        (["-m", "vllm.entrypoints.llm"], "Quire has no vllm.entrypoints.llm.__main__", 1),
        (["-m", "vllm.nothing"], "Quire has no vllm.nothing; docs/", 1),
    ],
)
def test_mistakes_are_one_line(words: list[str], message: str, status: int, tmp_path: Path) -> None:
    done = run("-m", "quire.as_vllm", *words, cwd=tmp_path)
    assert message in done.stderr and "Traceback" not in done.stderr
    assert done.returncode == status


_SHOW_TEXT = """
import sys
print(sys.argv, repr(sys.path[0]), __name__, globals().get("__file__"), __spec__, __loader__)
"""


def test_a_program_may_be_an_argument(tmp_path: Path) -> None:
    assert assert_as_python("-c", _SHOW_TEXT, "a", "-m", cwd=tmp_path).stdout.startswith("['-c'")
    shown = run("-m", "quire.as_vllm", "-c", "import vllm; print(vllm.LLM)", cwd=tmp_path)
    assert shown.stdout == "<class 'quire.llm.LLM'>\n"
    assert_as_python("-c", "1 / 0", cwd=tmp_path)


def test_a_program_may_come_from_standard_input(tmp_path: Path) -> None:
    outputs = [
        subprocess.run(
            [sys.executable, *words, "-", "a"],
            cwd=tmp_path, input=_SHOW_TEXT, capture_output=True, text=True,
        ).stdout
        for words in ([], ["-m", "quire.as_vllm"])
    ]  # fmt: skip
    assert outputs[0] == outputs[1] and outputs[0].startswith("['-', 'a']")


def test_children_have_it_too(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text("import os; os.environ['THEIRS'] = '1'")
    (tmp_path / "parent.py").write_text(
        "import multiprocessing, os, subprocess, sys\n"
        "import vllm\n"
        "def child(number):\n"
        "    import vllm\n"
        "    print(vllm.SamplingParams(n=number).n, __name__, flush=True)\n"
        "if __name__ == '__main__':\n"
        "    process = multiprocessing.get_context('spawn').Process(target=child, args=(3,))\n"
        "    process.start(); process.join()\n"
        "    code = 'import os, vllm; print(vllm.__version__, os.environ[\"THEIRS\"])'\n"
        "    subprocess.run([sys.executable, '-c', code], check=True)\n"
        "    server = 'vllm.entrypoints.openai.api_server'\n"
        "    subprocess.run([sys.executable, '-m', server, '--help=port'], check=True)\n"
        "    subprocess.run(['vllm', 'serve', '--help=port'], check=True)\n"
        "    print(os.environ['QUIRE_AS_VLLM'])\n"
    )
    search = os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")])
    done = run("-m", "quire.as_vllm", "parent.py", cwd=tmp_path, PYTHONPATH=search)
    assert done.returncode == 0, done.stderr
    first, second, *helps, folder = done.stdout.splitlines()
    assert (first, second) == ("3 __mp_main__", "0.33.0 1")
    assert sum("--port" in line for line in helps) == 2
    assert not Path(folder).exists()


def test_without_it_nothing_is_changed(tmp_path: Path) -> None:
    done = run("-c", "import quire, quire.as_vllm; import vllm", cwd=tmp_path)
    assert "No module named 'vllm'" in done.stderr
