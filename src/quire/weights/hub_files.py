"""Which files of a model repository are needed, whether they fit on the disk, and whether a cached
copy has them. Shared by all hubs."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from quire.errors import ModelLoadError
from quire.sizes import format_bytes
from quire.weights.checkpoint_files import choose_weight_files, what_is_not_read
from quire.weights.hub_note import read_note
from quire.weights.shards import files_of, missing_of

_MAX_NAMED = 3  # missing files in an error
_USER = re.compile(r"(?<=//)[^/\s]*@|^[^/\s]*@")  # user:password@ in an address

# Where quantizing tools describe their result if config.json does not.
QUANTIZER_FILES = ("quantize_config.json", "quant_config.json", "hf_quant_config.json")
_CONFIG = ("config.json", "generation_config.json", "tokenizer_config.json", *QUANTIZER_FILES)
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
    """Why a download is impossible now, with a remedy; a cached copy may still be used."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.remedy = remedy


class Refused(NoDownload):
    """The hub has no such model for this user; messages do not mention a partial cached copy."""


def cannot_write(error: OSError) -> NoDownload:
    return NoDownload(
        f"the cache cannot be written ({error.strerror})",
        "choose another folder with --download-dir",
    )


def why_offline() -> NoDownload | None:
    """A NoDownload that names the environment variable that forbids downloads, or None."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    yes = ("1", "ON", "YES", "TRUE")
    variable = next((name for name in names if os.environ.get(name, "").upper() in yes), None)
    if variable is None:
        return None
    return NoDownload(f"{variable} is set", "go online once to download it")


def clean_token(given: str | None, source: str) -> str | None:
    """The token without the line ends and spaces that a file or a shell may add; None if empty."""
    token = "".join((given or "").split())
    if not (token.isascii() and token.isprintable()):
        raise ModelLoadError(
            f"the token of {source} has characters that are not allowed; copy it from the hub again"
        )
    return token or None


def one_line(error: BaseException, token: str | None) -> str:
    """The first line of a client's error, without token, user name or password."""
    text = without_user((str(error) or type(error).__name__).split("\n", 1)[0])
    return text.replace(token, "***") if token else text


def without_user(text: str) -> str:
    """`text` without the user and the password of the addresses in it."""
    return _USER.sub("", text)


def wanted_files(
    sizes: Mapping[str, int], request: HubRequest, folder: Path, stale: Collection[str] = ()
) -> list[str]:
    """The files of a listing (file -> bytes) that the request needs; ModelLoadError if it lacks the
    weights. Until `folder` has the current index (not a `stale` one), that stands for the
    shards."""
    wanted = files_besides_weights(sizes, request)
    if request.what == "weights":
        wanted |= _wanted_weights(sizes, request, folder, stale)
    return sorted(wanted)


def files_besides_weights(names: Collection[str], request: HubRequest) -> set[str]:
    """Those of `names` that the request needs, weights excluded."""
    patterns = _PATTERNS[request.what]
    return {name for name in names if any(_matches(name, pattern) for pattern in patterns)}


def _wanted_weights(
    sizes: Mapping[str, int], request: HubRequest, folder: Path, stale: Collection[str]
) -> set[str]:
    top = [name for name in sizes if "/" not in name]  # subfolders hold other formats of them
    chosen = choose_weight_files(top, request.load_format)
    if chosen is None:
        other = what_is_not_read(top)
        raise ModelLoadError(
            f"{request.model} holds no weights for load_format {request.load_format!r}: "
            f"expected *.safetensors, *.bin or *.pt and found {', '.join(sorted(top))}"
            f"{f'; {other}' if other else ''}"
        )
    if chosen.index is None:
        return set(chosen.files)
    if chosen.index in stale or not _is_whole(folder / chosen.index, sizes[chosen.index]):
        return {chosen.index}
    shards = files_of(folder, chosen, sizes)
    unknown = sorted(set(shards).difference(sizes))
    if unknown:
        raise ModelLoadError(
            f"{chosen.index} of {request.model} names {len(unknown)} of {len(shards)} files that "
            f"the repository does not hold (such as {unknown[0]}); choose another revision, or "
            "give the path of a local folder"
        )
    return {chosen.index, *shards}


def _matches(name: str, pattern: str) -> bool:
    """As fnmatch, but a star matches no slash."""
    return name.count("/") == pattern.count("/") and fnmatchcase(name, pattern)


def missing_files(
    folder: Path, sizes: Mapping[str, int], request: HubRequest, stale: Collection[str] = ()
) -> list[str]:
    """The needed files of a listing (file -> bytes) that `folder` lacks, or has `stale` or with a
    wrong size."""
    wanted = wanted_files(sizes, request, folder, stale)
    return [name for name in wanted if name in stale or not _is_whole(folder / name, sizes[name])]


def remove_damaged(file: Path, size: int) -> None:
    """Remove `file` if it exists with a size other than the listed one."""
    if file.is_file() and not _is_whole(file, size):
        file.unlink()


def _is_whole(file: Path, size: int) -> bool:
    """Whether `file` exists with the listed `size`; 0 accepts any size."""
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
    """ModelLoadError if `folder` is or lies below a file; it need not exist yet."""
    file = next((path for path in (folder, *folder.parents) if path.is_file()), None)
    if file is not None:
        raise ModelLoadError(
            f"models cannot be kept in {folder}: {file} is a file; give a folder with "
            f"--download-dir or {variable}"
        )


def cached_copy(folder: Path | None, request: HubRequest, cache: Path, error: NoDownload) -> Path:
    """`folder` if it has all that the request needs; else ModelLoadError because of `error`."""
    missing = [] if folder is None else _missing(folder, request)
    if folder is not None and not missing:
        return folder
    if isinstance(error, Refused):
        raise ModelLoadError(f"{error}; {error.remedy}") from error
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
    """What a snapshot folder lacks, by its note; without one (another program downloaded it), as
    far as its file names tell."""
    note = read_note(folder)
    if note is not None:
        return missing_files(folder, note.sizes, request, note.stale)
    names = {entry.name for entry in folder.iterdir()}
    if request.what == "tokenizer":
        has_one = any(_matches(name, pattern) for name in names for pattern in _VOCABULARY)
        return [] if has_one else ["a tokenizer"]
    lacks_weights = request.what == "weights" and not has_weights(folder, request)
    return ["config.json"] * ("config.json" not in names) + ["weights"] * lacks_weights


def has_weights(folder: Path, request: HubRequest) -> bool:
    """Whether all shards are there: an interrupted download leaves only some."""
    chosen = choose_weight_files([entry.name for entry in folder.iterdir()], request.load_format)
    return chosen is not None and not missing_of(folder, files_of(folder, chosen))
