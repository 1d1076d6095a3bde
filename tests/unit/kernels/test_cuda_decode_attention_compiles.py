"""Attention of decode steps compiles for Hopper, and as many blocks fit as are asked for.

Needs no GPU: how much a kernel takes is said by the assembler.
"""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

import pytest
from cuda.bindings import nvrtc

from quire.kernels import hopper
from quire.kernels.cuda import compiler
from quire.kernels.cuda.decode_attention import FEW, MANY, CompiledFor, Cut, _Inputs
from tests.unit.kernels.test_cuda_decode_attention import BLOCK_SIZE, SHAPES

# Of a multiprocessor, and how they are given out (CUDA C++ Programming Guide, "Technical
# Specifications per Compute Capability" of 9.0; CUDA Occupancy Calculator).
REGISTERS = 65_536
REGISTERS_OF_A_WARP = 256  # or a multiple
THREADS = 2048
SHARED_BYTES = hopper.SHARED_BYTES + 1024
DRIVERS_BYTES = 1024  # of each block
SHARED_STEP = 128


def made_for(
    heads: tuple[int, int, int], cut: Cut = FEW, *, has_norms: bool = True, is_fp16: bool = False
) -> CompiledFor:
    num_heads, num_kv_heads, dim = heads
    return CompiledFor(
        head=dim,
        group=num_heads // num_kv_heads,
        kv_heads=num_kv_heads,
        block=BLOCK_SIZE,
        has_norms=has_norms,
        is_fp16=is_fp16,
        cut=cut,
    )


def said_of(one: CompiledFor) -> str:
    """By the assembler."""
    _, program = nvrtc.nvrtcCreateProgram(
        compiler.source_of("decode_attention.cu").encode(), b"", 0, [], []
    )
    options = [*compiler._OPTIONS, *(f"-D{define}" for define in one.defines)]
    given = [option.encode() for option in (*options, "--ptxas-options=-v")]
    (status,) = nvrtc.nvrtcCompileProgram(program, len(given), given)
    _, size = nvrtc.nvrtcGetProgramLogSize(program)
    words = b" " * size
    nvrtc.nvrtcGetProgramLog(program, words)
    nvrtc.nvrtcDestroyProgram(program)
    assert status == nvrtc.nvrtcResult.NVRTC_SUCCESS, words.decode()
    return words.decode()


def number_in(words: str, pattern: str) -> int:
    found = re.search(pattern, words)
    assert found, words
    return int(found[1])


@pytest.mark.parametrize("is_fp16", [False, True])
@pytest.mark.parametrize("has_norms", [False, True])
@pytest.mark.parametrize("cut", [FEW, MANY], ids=["few", "many"])
@pytest.mark.parametrize("heads", SHAPES, ids=str)
def test_as_many_blocks_fit_as_are_promised(
    heads: tuple[int, int, int], cut: Cut, has_norms: bool, is_fp16: bool
) -> None:
    one = made_for(heads, cut, has_norms=has_norms, is_fp16=is_fp16)
    words = said_of(one)
    assert number_in(words, r"(\d+) bytes spill stores") == 0
    registers = number_in(words, r"Used (\d+) registers")
    of_a_warp = -(-32 * registers // REGISTERS_OF_A_WARP) * REGISTERS_OF_A_WARP
    assert one.blocks * cut.warps * of_a_warp <= REGISTERS
    assert one.blocks * cut.warps * 32 <= THREADS
    own = number_in(words, r"(\d+) bytes smem") + one.shared_bytes
    of_a_block = -(-own // SHARED_STEP) * SHARED_STEP + DRIVERS_BYTES
    assert 1 <= one.blocks <= SHARED_BYTES // of_a_block


def test_what_is_compiled_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler.knobs.cache, "dir", str(tmp_path))
    source, defines = compiler.source_of("decode_attention.cu"), made_for(SHAPES[0]).defines
    code = compiler.compiled(source, defines)
    assert code[:4] == b"\x7fELF"
    assert b"decode_attention" in code
    monkeypatch.setattr(compiler, "_compile", None)
    assert compiler.compiled(source, defines) == code


def test_inputs_lie_where_the_kernel_looks_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiler.knobs.cache, "dir", str(tmp_path))
    source = compiler.source_of("decode_attention.cu")
    assert declared(source) == list(_Inputs._fields_)
    size = f"\nstatic_assert(sizeof(Inputs) == {ctypes.sizeof(_Inputs)});"
    compiler.compiled(source + size, made_for(SHAPES[0]).defines)
    with pytest.raises(RuntimeError, match="static assertion"):
        compiler.compiled(source + size.replace("==", "!="), made_for(SHAPES[0]).defines)


def declared(source: str) -> list[tuple[str, type]]:
    """The fields of ``Inputs`` in the kernel's source, as ctypes has them: not every NVRTC can tell
    where a field lies."""
    body = re.search(r"struct Inputs \{(.*?)\n\};", source, re.DOTALL)
    assert body is not None
    fields: list[tuple[str, type]] = []
    for declaration in re.sub("//.*", "", body[1]).split(";")[:-1]:
        is_float = declaration.split()[0] == "float"
        for one in declaration.split(","):
            kind = ctypes.c_float if is_float else ctypes.c_uint32
            fields.append((re.findall(r"\w+", one)[-1], ctypes.c_void_p if "*" in one else kind))
    return fields


@pytest.mark.parametrize(
    ("heads", "block"), [((16, 8, 96), 16), ((36, 4, 128), 16), ((16, 8, 128), 24)], ids=str
)
def test_what_it_is_not_made_for_is_not_compiled(
    heads: tuple[int, int, int], block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiler.knobs.cache, "dir", str(tmp_path))
    defines = [define for define in made_for(heads).defines if not define.startswith("BLOCK=")]
    with pytest.raises(RuntimeError, match="static assertion"):
        compiler.compiled(compiler.source_of("decode_attention.cu"), [*defines, f"BLOCK={block}"])
