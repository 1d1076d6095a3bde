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
    NoDownload,
    cached_copy,
    cannot_write,
    check_cache_folder,
    check_disk_space,
    missing_files,
    note_listing,
    wanted_files,
    why_offline,
)

logger = logging.getLogger(__name__)


def fetch(request: HubRequest) -> Path:
    """The snapshot folder of the model, complete for the request."""
    client = _Client(request)
    check_cache_folder(client.cache, "MODELSCOPE_CACHE")
    cached = client.cached_folder()
    if (offline := why_offline()) is not None:
        return cached_copy(cached, request, client.cache, offline)
    try:
        sizes = client.list_files()
        folder = cached or client.new_folder()
        missing = {name: sizes[name] for name in missing_files(folder, sizes, request)}
        check_disk_space(missing, client.cache, request)
        wanted = wanted_files(sizes, request)
        return client.download(wanted, folder, sizes if missing else None)
    except NoDownload as error:
        folder = cached_copy(cached, request, client.cache, error)
        logger.warning("%s; using the copy in %s", error, folder)
        return folder


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
        self._revision = request.revision or "master"

    @property
    def cache(self) -> Path:
        if self._request.download_dir is not None:
            return self._request.download_dir
        return Path(os.environ.get("MODELSCOPE_CACHE") or "~/.cache/modelscope").expanduser()

    def new_folder(self) -> Path:
        """Where a first download of this revision goes."""
        name = self._request.model.replace("/", "--")
        return self.cache / "models" / name / "snapshots" / self._revision

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
                self._request.model, revision=self._revision, recursive=True
            )
        except Exception as error:
            raise self._error(error) from error
        return {file["Path"]: file.get("Size") or 0 for file in files if file.get("Type") != "tree"}

    def download(self, files: list[str], folder: Path, noted: dict[str, int] | None) -> Path:
        """`noted` is the listing, to be noted in `folder` before anything comes."""
        try:
            if noted is not None:
                note_listing(folder, noted)
            return Path(self._snapshot(allow_patterns=[escape(name) for name in files]))
        except Exception as error:
            reason = self._error(error)
            if isinstance(reason, NoDownload) and os.access(folder, os.W_OK):
                # Files are replaced in place: an earlier copy may hold files of two versions now.
                raise ModelLoadError(
                    f"{reason}; {reason.remedy}, or give the path of a local folder"
                ) from error
            raise reason from error

    def _snapshot(self, **options: Any) -> str:
        return self._snapshot_download(
            self._request.model,
            revision=self._revision,
            cache_dir=str(self.cache),
            **self._access(),
            **options,
        )

    def _access(self) -> dict[str, str | None]:
        return {
            "endpoint": os.environ.get("MODELSCOPE_ENDPOINT") or None,
            "token": os.environ.get("MODELSCOPE_API_TOKEN") or None,
        }

    def _error(self, error: Exception) -> ModelLoadError | NoDownload:
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
        failed = list(getattr(error, "failed_files", {}).values())  # one error for each file
        cause = failed[0] if failed else error
        is_of_network = isinstance(cause, (ConnectionError, TimeoutError))
        if isinstance(cause, OSError) and cause.errno is not None and not is_of_network:
            return cannot_write(cause)
        reason = (str(cause) or type(cause).__name__).split("\n", 1)[0]
        return NoDownload(
            f"{request.model}{at} cannot be downloaded from ModelScope ({reason})",
            "check the connection and try again",
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
