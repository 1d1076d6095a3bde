"""Which files a sharded checkpoint consists of, by its index or else by their numbers. Reads no
tensors and imports no torch, so that a cached copy can be checked before the engine starts."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path

from quire.errors import ModelLoadError
from quire.weights.checkpoint_files import WeightFiles

_NUMBERED = re.compile(r"(.*?)(\d+)-of-(\d+)(\..+)")


def read_index(file: Path) -> dict[str, str]:
    """Tensor name -> shard, according to the index."""
    try:
        shard_of = json.loads(file.read_text(encoding="utf-8-sig"))["weight_map"]
        return {str(name): str(shard) for name, shard in shard_of.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelLoadError(
            f"{file} is damaged ({type(error).__name__}: {error}); download it again"
        ) from error


def files_of(
    folder: Path, chosen: WeightFiles, listing: Collection[str] | None = None
) -> list[str]:
    """All files of the weights `chosen` in `folder`, including missing ones. `listing` names the
    files to be downloaded into the folder, which then needs to hold only the index."""
    if chosen.index is None:
        return sorted({*chosen.files, *_implied(chosen.files)})
    shards = sorted(set(read_index(folder / chosen.index).values()))
    missing = missing_of(folder, shards) if listing is None else set(shards).difference(listing)
    if chosen.single is not None and len(missing) == len(shards):
        return [chosen.single]  # the shards were merged and the index left behind
    return shards


def missing_of(folder: Path, names: Collection[str]) -> list[str]:
    """Those of `names` that are not files in `folder`."""
    return [name for name in names if not (folder / name).is_file()]


def _implied(names: Collection[str]) -> set[str]:
    """model-00001-of-00003.safetensors implies two more; some count from 0."""
    numbers_of: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for match in filter(None, map(_NUMBERED.fullmatch, names)):
        stem, number, total, suffix = match.groups()
        numbers_of[stem, total, suffix].append(number)
    implied: set[str] = set()
    for (stem, total, suffix), numbers in numbers_of.items():
        width = min(map(len, numbers))  # 1 where numbers have no leading zeros
        shards = [f"{stem}{i:0{width}d}-of-{total}{suffix}" for i in range(int(total) + 1)]
        implied.update(shards[:-1] if shards[0] in names else shards[1:])
    return implied
