"""From the model a user names to a local folder: a folder as it is, or a download from a hub.

Which hub is read from the environment when a model is resolved. Knows nothing about what the files
mean.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from quire import env
from quire.errors import ModelLoadError
from quire.weights.hub_files import HubRequest

_REPOSITORY = re.compile(r"[\w][\w.-]*(/[\w][\w.-]*)?", re.ASCII)


def resolve_model(
    model: str,
    *,
    revision: str | None = None,
    token: str | None = None,
    download_dir: str | Path | None = None,
    what: str = "weights",
    load_format: str = "auto",
) -> Path:
    """The local folder of `model`, downloaded first if it is a hub name.

    `what` is "config", "tokenizer" (with the config) or "weights" (everything). `load_format` says
    which weights, as for a checkpoint. Errors are ModelLoadError, one line with the remedy.
    """
    check_model_name(model)
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    request = HubRequest(
        model=model,
        revision=revision,
        token=token,
        download_dir=None if download_dir is None else Path(download_dir).expanduser(),
        what=what,
        load_format=load_format,
    )
    try:
        return _fetch(request)
    except OSError as error:
        raise ModelLoadError(
            f"the cached files of {model} cannot be used ({error}); choose another folder with "
            "--download-dir, or give the path of a local folder"
        ) from error


def _fetch(request: HubRequest) -> Path:
    if env.USE_MODELSCOPE.get():
        from quire.weights import hub_modelscope

        return hub_modelscope.fetch(request)
    from quire.weights import hub_huggingface

    return hub_huggingface.fetch(request)


def check_model_name(model: str) -> None:
    """ModelLoadError for what is neither a folder nor a valid hub name, so that a mistyped path
    causes no network request."""
    if not str(model).strip():
        raise ModelLoadError(
            "the model's name is empty; give a hub's name or a folder ('.' is the current one)"
        )
    path = Path(model).expanduser()
    if path.is_dir():
        return
    if path.is_file():
        raise ModelLoadError(f"model {model!r} is a file; give the folder that holds config.json")
    if _is_path(model):
        raise ModelLoadError(
            f"model folder {model!r} does not exist; check the path, or give a hub's name such as "
            "'Qwen/Qwen3-0.6B'"
        )
    if not _REPOSITORY.fullmatch(model):
        raise ModelLoadError(
            f"model {model!r} is neither a folder here nor a hub's name (name, or owner/name)"
        )


def _is_path(model: str) -> bool:
    return (
        model.startswith((".", "~", os.sep))
        or model.endswith(os.sep)
        or "\\" in model
        or model.count("/") > 1
    )
