"""What of a model repository is needed, whether it fits the disk, and whether a cached copy has it.
The same for every hub.

A snapshot folder holds, besides the repository's files, a note of what the repository has. It is
written before the first file comes, so that a download that broke off is known without the hub.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from uuid import uuid4

from quire.errors import ModelLoadError
from quire.sizes import format_bytes
from quire.weights.checkpoint_files import choose_weight_files, what_is_not_read
from quire.weights.shards import files_of, missing_of

_NOTE = ".quire.json"
_MAX_NAMED = 3  # missing files in an error

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


class NoDownload(Exception):
    """Why there is no download now, where a cached copy would do, and what can be done about it."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.remedy = remedy


def cannot_write(error: OSError) -> NoDownload:
    return NoDownload(
        f"the cache cannot be written ({error.strerror})",
        "choose another folder with --download-dir",
    )


def why_offline() -> NoDownload | None:
    """The environment variable that forbids downloads now, if one does."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    yes = ("1", "ON", "YES", "TRUE")
    variable = next((name for name in names if os.environ.get(name, "").upper() in yes), None)
    if variable is None:
        return None
    return NoDownload(f"{variable} is set", "go online once to download it")


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


def missing_files(folder: Path, sizes: Mapping[str, int], request: HubRequest) -> list[str]:
    """Which wanted files of a listing (file -> bytes) `folder` lacks, or has with a wrong size."""
    wanted = wanted_files(sizes, request)
    return [name for name in wanted if not _is_whole(folder / name, sizes[name])]


def remove_damaged(file: Path, size: int) -> None:
    """Remove `file` if it is there with another size than the listing says."""
    if file.is_file() and not _is_whole(file, size):
        file.unlink()


def _is_whole(file: Path, size: int) -> bool:
    """`size` is that of the listing; 0: it says none."""
    return file.is_file() and size in (0, file.stat().st_size)


def check_disk_space(missing: Mapping[str, int], folder: Path, request: HubRequest) -> None:
    """NoDownload if `missing` (file -> bytes) does not fit where `folder` is or will be."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free, needed = shutil.disk_usage(existing).free, sum(missing.values())
    if needed > free:
        raise NoDownload(
            f"downloading {request.model} needs {format_bytes(needed)} more and {folder} has "
            f"{format_bytes(free)} free",
            "make room, or choose another folder with --download-dir",
        )


def check_cache_folder(folder: Path, variable: str) -> None:
    """ModelLoadError if `folder` cannot be one; it need not be there yet."""
    file = next((path for path in (folder, *folder.parents) if path.is_file()), None)
    if file is not None:
        raise ModelLoadError(
            f"models cannot be kept in {folder}: {file} is a file; give a folder with "
            f"--download-dir or {variable}"
        )


def note_listing(folder: Path, sizes: Mapping[str, int]) -> None:
    """Note in a snapshot folder, made if need be, what its repository holds (file -> bytes)."""
    folder.mkdir(parents=True, exist_ok=True)
    replace_text(folder / _NOTE, json.dumps(dict(sizes)))


def replace_text(file: Path, text: str) -> None:
    """Other processes read the old text or the new one, never a part."""
    new = file.with_name(f"{file.name}.{uuid4().hex}.tmp")
    new.write_text(text, encoding="utf-8")
    os.replace(new, file)


def cached_copy(folder: Path | None, request: HubRequest, cache: Path, error: NoDownload) -> Path:
    """`folder` if it has all that is wanted; else ModelLoadError, with `error` as the reason."""
    missing = [] if folder is None else _missing(folder, request)
    if folder is not None and not missing:
        return folder
    at = f" at revision {request.revision!r}" if request.revision else ""
    named = ", ".join(missing[:_MAX_NAMED])
    if len(missing) > _MAX_NAMED:
        named += f" and {len(missing) - _MAX_NAMED} more"
    raise ModelLoadError(
        f"{error}, and {request.model}{at} is {'only in part' if missing else 'not'} in the cache "
        f"{cache}{f' (missing: {named})' if missing else ''}; {error.remedy}, or give the path of "
        "a local folder"
    ) from error


def _missing(folder: Path, request: HubRequest) -> list[str]:
    """What a snapshot folder lacks, by its note, or where it has none (another program downloaded
    it) as far as can be told."""
    sizes = _noted(folder)
    if sizes is not None:
        return missing_files(folder, sizes, request)
    names = {entry.name for entry in folder.iterdir()}
    if request.what == "tokenizer":
        has_one = any(_matches(name, pattern) for name in names for pattern in _VOCABULARY)
        return [] if has_one else ["a tokenizer"]
    lacks_weights = request.what == "weights" and not has_weights(folder, request)
    return ["config.json"] * ("config.json" not in names) + ["weights"] * lacks_weights


def _noted(folder: Path) -> dict[str, int] | None:
    file = folder / _NOTE
    try:
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
    except ValueError:  # as after a power cut
        return None


def has_weights(folder: Path, request: HubRequest) -> bool:
    """All shards, that is: an interrupted download leaves some."""
    chosen = choose_weight_files([entry.name for entry in folder.iterdir()], request.load_format)
    return chosen is not None and not missing_of(folder, files_of(folder, chosen))
