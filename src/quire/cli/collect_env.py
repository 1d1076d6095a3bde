"""Versions and hardware, in a form to paste into a bug report."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform as python_platform
import sys

import quire
from quire import env, platform
from quire.sizes import format_bytes
from quire.weights.hub_files import without_user

PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "huggingface_hub",
    "numpy",
    "pyzmq",
    "msgspec",
    "triton",
    "modelscope",
    "sentencepiece",
    "tiktoken",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    report = collect()
    if arguments.json:
        print(json.dumps(report, indent=2))
        return 0
    for title, rows in report.items():
        print(title)
        width = max(map(len, rows), default=0)
        for name, value in rows.items():
            print(f"  {name:<{width}}  {value}")
    return 0


def collect() -> dict[str, dict[str, str]]:
    """The report: section -> name -> value."""
    return {
        "Quire": {"version": quire.__version__, "folder": os.path.dirname(quire.__file__)},
        "System": _system(),
        "CPU": _cpu(),
        "GPU": _gpu(),
        "Packages": {name: _version(name) for name in PACKAGES},
        "Environment": _environment(),
    }


def _system() -> dict[str, str]:
    return {
        "platform": python_platform.platform(),
        "libc": " ".join(python_platform.libc_ver()) or "unknown",
        "python": sys.version.split()[0],
        "executable": sys.executable,
    }


def _cpu() -> dict[str, str]:
    info = platform.cpu_info()
    return {
        "name": info.name,
        "cores usable": str(platform.num_cpu_cores()),
        "fast formats": ", ".join(sorted(info.fast_dtypes)),
        "memory usable": format_bytes(info.memory_bytes),
        "memory free": format_bytes(platform.available_memory()),
    }


def _gpu() -> dict[str, str]:
    import torch

    if not torch.cuda.is_available():
        return {"devices": f"none seen by torch {torch.__version__}"}
    info = platform.cuda_info()
    return {
        "devices": str(info.num_devices),
        "name": info.name,
        "memory": format_bytes(info.memory_bytes),
        "CUDA of torch": str(torch.version.cuda),
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _environment() -> dict[str, str]:
    """Environment variables that affect Quire; a secret's value is shown only as "(set)"."""
    prefixes = ("QUIRE_", "VLLM_", "CUDA_", "OMP_", "NCCL_", "TORCH_")
    names = {*env.OF_OTHERS, *(name for variable in env.REGISTRY for name in variable.names)}
    secret = ("KEY", "TOKEN", "SECRET", "PASSWORD")
    return {
        name: "(set)" if value and any(one in name for one in secret) else without_user(value)
        for name, value in sorted(os.environ.items())
        if name in names or name.startswith(prefixes)
    }
