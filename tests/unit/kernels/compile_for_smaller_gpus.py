"""Compiles kernels for GPUs older than Hopper, whose programs have less shared memory, and compares
what each takes with what there is. A script for a process of its own, since the tests' process
interprets kernels. With ``all`` it says what each takes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from quire.kernels.reference.moe import SortedPairs
from quire.kernels.triton import attention, attention_latent, launch, moe, moe_tiles

Launch = Callable[[], None]

TYPES = {
    torch.float32: "*fp32",
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.int32: "*i32",
}
BFLOAT, FLOAT = torch.bfloat16, torch.float32


class Compiler:
    """What kernels are launched with, instead of `launcher_of`: compiles and compares."""

    def __init__(self, capability: int, room: int) -> None:
        self._target = GPUTarget("cuda", capability, 32)
        self._room = room
        self.name = ""

    def __call__(self, kernel: Any, grid: Any) -> Callable[..., None]:
        def compile_it(*args: Any, **constants: Any) -> None:
            options = {name: constants.pop(name) for name in ("num_warps", "num_stages")}
            kinds = dict(zip(kernel.arg_names, map(kind_of, args), strict=False))
            source = ASTSource(
                fn=kernel,
                signature={name: kinds.get(name, "constexpr") for name in kernel.arg_names},
                constexprs=constants,
                attrs={
                    (place,): [["tt.divisibility", 16]]
                    for place, name in enumerate(kernel.arg_names)
                    if name == "q_stride" or kinds.get(name, "").startswith("*")
                },
            )
            compiled = triton.compile(source, target=self._target, options=options)
            used = f"{self.name}: {compiled.metadata.shared} of {self._room} bytes, {options}"
            assert compiled.metadata.shared <= self._room, used
            if "all" in sys.argv:
                print(self._target.arch, used, flush=True)

        return compile_it


def kind_of(argument: Any) -> str:
    if isinstance(argument, Tensor):
        return TYPES[argument.dtype]
    return "i32" if isinstance(argument, int) else "fp32"


def empty(*shape: int, dtype: torch.dtype = torch.int32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def rows_of(num_rows: int) -> tuple[Tensor, Tensor, Tensor]:
    """(block table, query start, lengths)."""
    return empty(num_rows, 8), empty(num_rows + 1), empty(num_rows)


def attend(dtype: torch.dtype, group: int, head_dim: int, is_decode: bool = False) -> None:
    shape = attention.AttentionShape(num_kv_heads=2, group=group, head_dim=head_dim, scale=0.1)
    q = empty(64, 2 * group, head_dim, dtype=dtype)
    cache = empty(2, 9, 64, 2, head_dim, dtype=dtype)
    attention.paged_attention(
        q, q, cache, *rows_of(64), shape, is_decode=is_decode, workspace=workspace()
    )


def attend_latents(dtype: torch.dtype, num_heads: int) -> None:
    """Of the sizes of DeepSeek-V2 and V3."""
    shape = attention_latent.LatentShape(
        num_heads=num_heads, head_dim=576, value_dim=512, scale=0.1
    )
    out, q = (empty(64, num_heads, size, dtype=dtype) for size in (512, 576))
    cache = empty(1, 9, 64, 1, 576, dtype=dtype)
    attention_latent.latent_attention(
        out, q, cache, *rows_of(64), shape, is_decode=False, workspace=workspace()
    )


def workspace() -> attention.Workspace:
    return attention.Workspace.of(512, 64, 256, torch.device("meta"))


def mix(dtype: torch.dtype, width: int) -> None:
    """Of the sizes of Qwen3-30B-A3B."""
    experts, size, hidden, num_pairs = 128, 768, 2048, 1024
    pairs = SortedPairs(
        empty(num_pairs), empty(num_pairs), empty(experts), empty(3, 200), block_m=width
    )
    gate_up, down = moe.best_tiles(width, dtype)
    x = empty(num_pairs // 8, hidden, dtype=dtype)
    inner = moe_tiles.gate_up_tiles(
        x, pairs, empty(experts, 2 * size, hidden, dtype=dtype), "silu", gate_up
    )
    moe_tiles.down_tiles(inner, pairs, empty(experts, hidden, size, dtype=dtype), down)


# By capability and bytes: T4; A10, L4, RTX 30 and 40; A100. Few, since each takes seconds: those
# that once took too much.
PROBLEMS: dict[tuple[int, int], dict[str, Launch]] = {
    (75, 65_536): {
        "decode, heads of 256, float32": lambda: attend(FLOAT, 4, 256, is_decode=True),
    },
    (80, 101_376): {
        "prompts, heads of 256, float32": lambda: attend(FLOAT, 4, 256),
        "latents": lambda: attend_latents(BFLOAT, 16),
        "experts": lambda: mix(BFLOAT, 128),
    },
    (80, 166_912): {
        "experts": lambda: mix(BFLOAT, 128),
    },
}


def main() -> None:
    for (capability, room), problems in PROBLEMS.items():
        compiler = Compiler(capability, room)
        for module in (attention, attention_latent, moe_tiles):
            module.launcher_of = compiler  # type: ignore[attr-defined]
        launch.shared_memory = lambda size=room: size  # type: ignore[assignment, misc]
        for choose in (attention.best_tile, attention_latent.latent_tile, moe.best_tiles):
            choose.cache_clear()  # type: ignore[attr-defined]
        for name, launch_it in problems.items():
            compiler.name = name
            launch_it()


if __name__ == "__main__":
    main()
