"""Which files of a model repository hold its weights. Sees file names only, so that a folder on
disk and a listing from a hub are judged by the same rules. Imports no torch."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

LOAD_FORMATS = ("auto", "safetensors", "pt")

# Tensors that are not the model: other layouts of the same weights, adapters, training state.
_NOT_WEIGHTS = (
    "consolidated*",
    "adapter_*",
    "training_args*",
    "optimizer*",
    "scheduler*",
    "scaler*",
    "random_states*",
    "rng_state*",
    "*optim_states*",
    "*.onnx*",
)
# Files published instead of readable weights -> what they are and the remedy.
_NOT_READ = {
    "consolidated*": "is laid out for its maker's own code; give a repository that holds the "
    "weights in Hugging Face format",
    "adapter_model.*": "is a LoRA adapter without its model; merge it into the model's weights",
    "*.gguf": "is in the format of llama.cpp; give the repository that it was made from",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightFiles:
    """The files to read: `files`, or those that the index names if there is one."""

    kind: str  # "safetensors" or "pickle"
    files: tuple[str, ...]
    index: str | None = None
    single: str | None = None  # the usual name of a checkpoint in one file, if it is there


@dataclass(frozen=True, kw_only=True, slots=True)
class _Kind:
    name: str
    suffixes: tuple[str, ...]
    single: str  # the usual name of a checkpoint in one file
    index: str  # the usual name of an index


_SAFETENSORS = _Kind(
    name="safetensors",
    suffixes=(".safetensors",),
    single="model.safetensors",
    index="model.safetensors.index.json",
)
_PICKLE = _Kind(
    name="pickle",
    suffixes=(".bin", ".pt", ".pth"),
    single="pytorch_model.bin",
    index="pytorch_model.bin.index.json",
)
_KINDS = {
    "auto": (_SAFETENSORS, _PICKLE),
    "safetensors": (_SAFETENSORS,),
    "pt": (_PICKLE,),
}


def choose_weight_files(names: Collection[str], load_format: str = "auto") -> WeightFiles | None:
    """The weights among `names` (no folders), safetensors before pickles, or None."""
    if load_format not in _KINDS:
        raise ValueError(
            f"load_format is {load_format!r}; a checkpoint is read as one of "
            f"{', '.join(LOAD_FORMATS)} (dummy: random values)"
        )
    for kind in _KINDS[load_format]:
        chosen = _choose(sorted(names), kind)
        if chosen is not None:
            return chosen
    return None


def what_is_not_read(names: Collection[str]) -> str | None:
    """For a folder without weights: a file that a user may take for weights, and the remedy."""
    for pattern, clause in _NOT_READ.items():
        found = sorted(name for name in names if fnmatchcase(name, pattern))
        if found:
            return f"{found[0]} {clause}"
    return None


def _choose(names: Sequence[str], kind: _Kind) -> WeightFiles | None:
    index = _index_of(names, kind)
    files = [name for name in names if name.endswith(kind.suffixes) and not _is_ignored(name)]
    single = kind.single if kind.single in files else None
    if single is not None and index is None:
        files = [single]  # nothing says that the others belong to it
    if not files and index is None:
        return None
    return WeightFiles(kind=kind.name, files=tuple(files), index=index, single=single)


def _index_of(names: Sequence[str], kind: _Kind) -> str | None:
    if kind.index in names:
        return kind.index
    endings = tuple(f"{suffix}.index.json" for suffix in kind.suffixes)
    others = [name for name in names if name.endswith(endings) and not _is_ignored(name)]
    return others[0] if len(others) == 1 else None


def _is_ignored(name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in _NOT_WEIGHTS)
