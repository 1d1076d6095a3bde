"""Models from ModelScope, through its own client, an optional package. Knows no other hub.

The client keeps what it read of its environment; here MODELSCOPE_CACHE, MODELSCOPE_ENDPOINT and
MODELSCOPE_API_TOKEN are read when used and passed on. A Hugging Face token is never sent to it.
"""

from __future__ import annotations

import logging
import os
from glob import escape
from pathlib import Path
from typing import Any

from quire.errors import ModelLoadError
from quire.weights.hub_files import (
    HubRequest,
    check_disk_space,
    is_enough,
    offline_variable,
    wanted_files,
)

logger = logging.getLogger(__name__)


def fetch(request: HubRequest) -> Path:
    """The snapshot folder of the model, complete for the request."""
    client = _Client(request)
    cached = client.cached_folder()
    if (variable := offline_variable()) is not None:
        if cached is not None and is_enough(cached, request):
            return cached
        raise ModelLoadError(
            f"{variable} is set, and {request.model} is "
            f"{'not' if cached is None else 'only in part'} in ModelScope's cache {client.cache}; "
            "go online once to download it, or give the path of a local folder"
        )
    try:
        sizes = client.list_files()
    except ModelScopeUnreachable as error:
        if cached is None or not is_enough(cached, request):
            raise
        logger.warning("%s; using the copy in %s", error, cached)
        return cached
    wanted = wanted_files(sizes, request)
    missing = {name: sizes[name] for name in wanted if not _is_whole(cached, name, sizes[name])}
    check_disk_space(missing, client.cache, request)
    return client.download(wanted)


class ModelScopeUnreachable(ModelLoadError):
    """The hub gave no answer."""


class _Client:
    """The three calls that are needed of ModelScope's client, and its errors in our words."""

    def __init__(self, request: HubRequest) -> None:
        try:
            from modelscope import snapshot_download
            from modelscope.hub.api import HubApi
        except ImportError as error:
            raise ModelLoadError(
                f"taking {request.model} from ModelScope needs its client; "
                "pip install 'quire[modelscope]', or unset QUIRE_USE_MODELSCOPE and "
                "VLLM_USE_MODELSCOPE"
            ) from error
        self._snapshot_download = snapshot_download
        self._new_api = HubApi
        self._request = request

    @property
    def cache(self) -> Path:
        if self._request.download_dir is not None:
            return self._request.download_dir
        return Path(os.environ.get("MODELSCOPE_CACHE") or "~/.cache/modelscope").expanduser()

    def cached_folder(self) -> Path | None:
        """Where earlier downloads of this revision lie; asks no server."""
        try:
            return Path(self._snapshot(local_files_only=True))
        except Exception:  # its type differs between versions; all of them mean "not there"
            return None

    def list_files(self) -> dict[str, int]:
        """File -> bytes, of all folders."""
        try:
            api = self._new_api(**self._access())
            files = api.get_model_files(
                self._request.model, revision=self._request.revision, recursive=True
            )
        except Exception as error:
            raise self._error(error) from error
        return {file["Path"]: file.get("Size") or 0 for file in files if file.get("Type") != "tree"}

    def download(self, files: list[str]) -> Path:
        try:
            return Path(self._snapshot(allow_patterns=[escape(name) for name in files]))
        except Exception as error:
            raise self._error(error) from error

    def _snapshot(self, **options: Any) -> str:
        return self._snapshot_download(
            self._request.model,
            revision=self._request.revision,
            cache_dir=str(self.cache),
            **self._access(),
            **options,
        )

    def _access(self) -> dict[str, str | None]:
        return {
            "endpoint": os.environ.get("MODELSCOPE_ENDPOINT") or None,
            "token": os.environ.get("MODELSCOPE_API_TOKEN") or None,
        }

    def _error(self, error: Exception) -> ModelLoadError:
        """The client's errors carry an HTTP status where there was an answer."""
        request, status = self._request, _status(error)
        at = f" at revision {request.revision!r}" if request.revision else ""
        if status == 404:
            return ModelLoadError(
                f"{request.model}{at} is neither a folder here nor a model on ModelScope; check "
                "the name and the revision"
            )
        if status in (401, 403):
            return ModelLoadError(
                f"ModelScope refuses access to {request.model} (HTTP {status}); set "
                "MODELSCOPE_API_TOKEN to a token that may read it"
            )
        reason = (str(error) or type(error).__name__).split("\n", 1)[0]
        return ModelScopeUnreachable(
            f"{request.model}{at} cannot be downloaded from ModelScope ({reason}); check the "
            "connection, or give the path of a local folder"
        )


def _status(error: BaseException | None) -> int | None:
    """The HTTP status in an error or its causes; older and newer clients keep it differently."""
    while error is not None:
        response = getattr(error, "response", None)
        status = getattr(error, "status_code", None) or getattr(response, "status_code", None)
        if status is not None:
            return int(status)
        error = error.__cause__
    return None


def _is_whole(folder: Path | None, name: str, size: int) -> bool:
    path = None if folder is None else folder / name
    return path is not None and path.is_file() and path.stat().st_size == size
