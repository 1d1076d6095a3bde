"""The C++ kernels are compiled once for a machine; where they cannot be, the reason is told."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from quire import platform
from quire.kernels import kept_folders
from quire.kernels.cpp import compiler, library
from tests.fakes.compilers import needs_compiler

pytestmark = needs_compiler


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(kept_folders.tempfile, "gettempdir", lambda: str(tmp_path / "temporary"))
    return tmp_path / "cache" / "quire"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A source that compiles in no time."""
    monkeypatch.setattr(compiler, "_SOURCES", ())


@pytest.mark.usefixtures("quick")
def test_the_result_is_kept_for_this_cpu_and_source(
    cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    first = compiler.compiled()
    assert first.parent == cache and [*cache.iterdir()] == [first]
    assert compiler.compiled() == first
    assert len(caplog.records) == 1, "compiled once"
    monkeypatch.setattr(platform, "cpu_name", lambda: "another CPU")
    other = compiler.compiled()
    monkeypatch.setattr(compiler, "_OPTIONS", (*compiler._OPTIONS, "-DX"))
    assert len({first, other, compiler.compiled()}) == 3


@pytest.mark.usefixtures("quick", "cache")
def test_what_is_kept_serves_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = compiler.compiled()
    monkeypatch.setenv("PATH", "")
    assert compiler.compiled() == kept


@pytest.mark.usefixtures("quick")
def test_what_is_kept_serves_where_nothing_can_be_written(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = compiler.compiled()
    monkeypatch.setattr(kept_folders.os, "access", lambda *_: False)
    assert compiler.compiled() == kept and kept.parent == cache


@pytest.mark.usefixtures("quick", "cache")
def test_a_library_that_cannot_be_loaded_is_named() -> None:
    kept = compiler.compiled()
    kept.write_bytes(b"")
    reason = library._library.__wrapped__()
    assert f"{kept}: file too short; remove the file, or let XDG_CACHE_HOME" in reason


@pytest.mark.usefixtures("quick")
def test_a_cache_that_cannot_be_written_is_replaced_by_a_folder_of_this_user(
    cache: Path, tmp_path: Path
) -> None:
    cache.parent.write_text("a file")
    kept = compiler.compiled()
    assert kept.parent == tmp_path / "temporary" / f"quire-{os.getuid()}"
    assert kept.parent.stat().st_mode & 0o77 == 0, "nobody else may put code there"


@pytest.mark.usefixtures("quick")
def test_a_folder_that_others_may_write_to_is_not_trusted(cache: Path, tmp_path: Path) -> None:
    cache.mkdir(parents=True)
    cache.chmod(0o777)
    assert compiler.compiled().parent == tmp_path / "temporary" / f"quire-{os.getuid()}"


@pytest.mark.usefixtures("quick", "cache")
def test_the_compilers_command_may_have_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "g++ -m64 -O1")
    commands: list[list[str]] = []
    run = compiler._run
    monkeypatch.setattr(
        compiler, "_run", lambda command, text: (commands.append(command), run(command, text))
    )
    assert compiler.compiled().exists()
    assert commands[0].index("-O1") > commands[0].index("-O3"), "the last one counts"


def test_the_openmp_library_is_that_of_torch() -> None:
    torch = pytest.importorskip("torch")
    assert compiler._openmp().is_relative_to(Path(torch.__file__).resolve().parent.parent)


def test_the_openmp_library_is_that_of_torch_where_packages_are_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("sentencepiece")  # brings a library of its own
    own, packages = compiler._openmp(), Path(torch.__file__).parent.parent
    (tmp_path / "packages").symlink_to(packages)
    monkeypatch.setattr(torch, "__file__", str(tmp_path / "packages" / "torch" / "__init__.py"))
    assert compiler._openmp() == own


@pytest.mark.usefixtures("quick")
def test_a_folder_of_another_user_is_not_trusted(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = os.getuid()
    cache.mkdir(parents=True)
    monkeypatch.setattr(kept_folders.os, "getuid", lambda: owner + 1)
    with pytest.raises(RuntimeError, match=r"not a folder of this user.*let XDG_CACHE_HOME"):
        compiler.compiled()


@pytest.mark.usefixtures("cache")
def test_a_missing_compiler_comes_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(RuntimeError, match="CXX names 'no-such-compiler', which is not an exec"):
        compiler.compiled()
    monkeypatch.setenv("CXX", "g++ '")
    with pytest.raises(RuntimeError, match=r"CXX is no command: .*No closing quotation"):
        compiler.compiled()
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RuntimeError, match=r"no C\+\+ compiler; install one .*apt install g\+\+"):
        compiler.compiled()


@pytest.mark.usefixtures("quick")
def test_a_compiler_that_fails_is_quoted(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "_OPTIONS", ("-fno-such-option",))
    with pytest.raises(RuntimeError, match=r"g\+\+ failed: .*no-such-option"):
        compiler.compiled()
    assert not [*cache.iterdir()]


def test_an_engine_runs_without_the_kernels() -> None:
    program = (
        "from quire import LLM, SamplingParams\n"
        "llm = LLM(max_model_len=128, device='cpu')\n"
        "print(llm.generate('The capital of France is', SamplingParams(max_tokens=4,"
        " temperature=0))[0].outputs[0].text)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "QUIRE_CPP_KERNELS": "0"},
        capture_output=True,
        text=True,
    )
    assert "Paris" in done.stdout
    assert "attention backend 'cpp' is not used: QUIRE_CPP_KERNELS switches them off" in done.stderr
