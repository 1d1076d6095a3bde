"""What of a model repository is needed, and whether it fits the disk. The same for every hub."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from quire.errors import ModelLoadError
from quire.sizes import format_bytes
from quire.weights.checkpoint_files import choose_weight_files, what_is_not_read
from quire.weights.shards import files_of, missing_of

_CONFIG = ("config.json", "generation_config.json", "tokenizer_config.json")
_VOCABULARY = (
    "tokenizer.json",
    "vocab*",
    "*.model",
    "*.tiktoken",
    "tekken*.json",
)
_TOKENIZER = (
    *_VOCABULARY,
    "tokenizer*",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
    "*.jinja",
    "additional_chat_templates/*.jinja",
    "*processor_config.json",
    "*.py",  # run only where trust_remote_code allows it
)
_PATTERNS = {
    "config": _CONFIG,
    "tokenizer": _CONFIG + _TOKENIZER,
    "weights": _CONFIG + _TOKENIZER,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class HubRequest:
    """One model wanted from a hub."""

    model: str
    revision: str | None = None
    token: str | None = None
    download_dir: Path | None = None  # None: the hub's usual cache
    what: str = "weights"  # or "config" or "tokenizer"; "weights" brings all three
    load_format: str = "auto"

    def __post_init__(self) -> None:
        assert self.what in _PATTERNS, self.what


def offline_variable() -> str | None:
    """The environment variable that forbids downloads now, if one does."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    yes = ("1", "ON", "YES", "TRUE")
    return next((name for name in names if os.environ.get(name, "").upper() in yes), None)


def wanted_files(names: Collection[str], request: HubRequest) -> list[str]:
    """Which of a repository's files to have; ModelLoadError if wanted weights are not there."""
    top = [name for name in names if "/" not in name]  # folders hold other formats of the same
    patterns = _PATTERNS[request.what]
    wanted = {name for name in names if any(_matches(name, pattern) for pattern in patterns)}
    if request.what == "weights":
        chosen = choose_weight_files(top, request.load_format)
        if chosen is None:
            other = what_is_not_read(top)
            raise ModelLoadError(
                f"{request.model} holds no weights for load_format {request.load_format!r}: "
                f"expected *.safetensors, *.bin or *.pt and found {', '.join(sorted(top))}"
                f"{f'; {other}' if other else ''}"
            )
        wanted.update(chosen.files)
        if chosen.index is not None:
            wanted.add(chosen.index)
    return sorted(wanted)


def _matches(name: str, pattern: str) -> bool:
    """Folder by folder: a star stands for no slash."""
    return name.count("/") == pattern.count("/") and fnmatchcase(name, pattern)


def is_enough(folder: Path, request: HubRequest) -> bool:
    """Whether a cached folder, whose repository cannot be listed now, will do."""
    names = {entry.name for entry in folder.iterdir()}
    if request.what == "tokenizer":
        return any(_matches(name, pattern) for name in names for pattern in _VOCABULARY)
    has_config = "config.json" in names
    return has_config and (request.what == "config" or _has_weights(folder, names, request))


def _has_weights(folder: Path, names: Collection[str], request: HubRequest) -> bool:
    """All shards, that is: an interrupted download leaves some."""
    chosen = choose_weight_files(names, request.load_format)
    return chosen is not None and not missing_of(folder, files_of(folder, chosen))


def check_disk_space(missing: Mapping[str, int], folder: Path, request: HubRequest) -> None:
    """ModelLoadError if `missing` (file -> bytes) does not fit where `folder` is or will be."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free, needed = shutil.disk_usage(existing).free, sum(missing.values())
    if needed > free:
        raise ModelLoadError(
            f"downloading {request.model} needs {format_bytes(needed)} more and {folder} has "
            f"{format_bytes(free)} free; make room, or choose another folder with --download-dir"
        )
