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
    Refused,
    cached_copy,
    cannot_write,
    check_cache_folder,
    check_disk_space,
    clean_token,
    files_besides_weights,
    missing_files,
    one_line,
    wanted_files,
    why_offline,
)
from quire.weights.hub_flat import change_revision, find_flat, has_files, read_revision
from quire.weights.hub_note import Note, read_note, remove_files, write_note

logger = logging.getLogger(__name__)


def fetch(request: HubRequest) -> Path:
    """The snapshot folder of the model, complete for the request."""
    client = _Client(request)
    check_cache_folder(client.cache, "MODELSCOPE_CACHE")
    cached = client.cached_folder()
    if (offline := why_offline()) is not None:
        return _copy(client, request, cached, offline)
    try:
        return _download(client, request, client.folder_to_fill(cached))
    except NoDownload as error:
        folder = _copy(client, request, cached, error)
        logger.warning("%s; using the copy in %s", error, folder)
        return folder


def _copy(client: _Client, request: HubRequest, folder: Path | None, error: NoDownload) -> Path:
    """`cached_copy` for a folder that may hold another revision than the one requested."""
    asked = request.revision
    held = None if folder is None else client.revision_in(folder)
    if folder is None or asked in (None, held):
        return cached_copy(folder, request, client.cache, error)
    if isinstance(error, _NotThere):
        raise ModelLoadError(f"{error}; {error.remedy}") from error
    if held is not None:
        raise ModelLoadError(
            f"{error}, and {folder} holds revision {held!r} of {request.model}, not {asked!r}; "
            f"{error.remedy}, or ask for revision {held!r}"
        ) from error
    copy = cached_copy(folder, request, client.cache, error)
    logger.warning(
        "%s does not say which revision of %s it holds; it may not be %r",
        *(copy, request.model, asked),
    )
    return copy


def _download(client: _Client, request: HubRequest, folder: Path) -> Path:
    note = _new_note(client.list_files(), request, read_note(folder))
    sizes, came = note.sizes, list[str]()
    while (wanted := wanted_files(sizes, request, folder, note.stale)) != came:
        # Repeats once the index has arrived, which names the shards.
        missing = missing_files(folder, sizes, request, note.stale)
        check_disk_space({name: sizes[name] for name in missing}, client.cache, request)
        client.download(wanted, folder, note)
        came = wanted
        note = note.without_stale(came)
    # Only now: a failed download, or one of the config alone, must not remove weights.
    is_of_all = request.what == "weights"
    gone = note.gone if is_of_all else files_besides_weights(note.gone, request)
    remove_files(folder, gone)
    write_note(folder, note.without_stale(gone))
    return folder


def _new_note(listing: Note, request: HubRequest, older: Note | None) -> Note:
    """The note for a folder that receives files of ``listing``. A request for config or tokenizer
    keeps the ``older`` note if those files are unchanged, since the folder may be complete by
    it."""
    if older is not None and request.what != "weights":
        changed = listing.changed_from(older).union(older.stale)
        if not files_besides_weights(changed, request):
            return older
    return listing.after(older)


class _NotThere(Refused):
    """The hub has no such model, or no such revision of it."""


class _Client:
    """The three calls of ModelScope's client that are used, with its errors translated."""

    def __init__(self, request: HubRequest) -> None:
        try:
            from modelscope import snapshot_download
            from modelscope_hub import HubApi
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
        self._token = clean_token(os.environ.get("MODELSCOPE_API_TOKEN"), "MODELSCOPE_API_TOKEN")

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
        """The folder of an earlier download, of this revision or of that of `revision_in`. Makes no
        network requests."""
        own = self.new_folder()
        return own if has_files(own) else find_flat(self.cache, self._request.model)

    def revision_in(self, folder: Path) -> str | None:
        """Which revision a cached folder holds, where that is known."""
        return self._revision if folder == self.new_folder() else read_revision(folder)

    def folder_to_fill(self, cached: Path | None) -> Path:
        """Where a download goes: never over another revision if one was requested."""
        asked = self._request.revision
        if cached is None or (asked and self.revision_in(cached) not in (None, asked)):
            return self.new_folder()
        return cached

    def list_files(self) -> Note:
        """All files of the repository, including those in subfolders."""
        try:
            api = self._new_api(**self._access())
            files = api.list_repo_files(
                self._request.model, "model", revision=self._revision, recursive=True
            )
        except Exception as error:
            raise self._error(error) from error
        files = [file for file in files if file.type != "tree"]
        return Note(
            sizes={file.path: file.size or 0 for file in files},
            hashes={file.path: file.sha256 for file in files if file.sha256},
        )

    def download(self, files: list[str], folder: Path, note: Note) -> None:
        """Write the note, then download the newest version of `files`."""
        try:
            change_revision(folder, self._revision)
            write_note(folder, note)
            self._snapshot_download(
                self._request.model,
                revision=self._revision,
                cache_dir=str(self.cache),
                local_dir=str(folder),  # else the client would fill any older folder
                allow_patterns=[escape(name) for name in files],
                **self._access(),
            )
        except Exception as error:
            reason = self._error(error)
            if os.access(folder, os.W_OK):
                # Files are replaced in place: an earlier copy may hold files of two versions now.
                raise ModelLoadError(
                    f"{reason}; {reason.remedy}, or give the path of a local folder"
                ) from error
            raise reason from error

    def _access(self) -> dict[str, Any]:  # Any: keyword arguments of others' functions
        return {
            "endpoint": os.environ.get("MODELSCOPE_ENDPOINT") or None,
            "token": self._token,
        }

    def _error(self, error: Exception) -> NoDownload:
        """The client's errors carry an HTTP status where there was an answer."""
        failed = list(getattr(error, "failed_files", {}).items())  # one error for each file
        file, cause = failed[0] if failed else (None, error)
        request, status = self._request, _status(cause)
        at = f" at revision {request.revision!r}" if request.revision else ""
        if status == 404 and file is not None:
            return NoDownload(
                f"ModelScope lists {file} of {request.model}{at} but does not have it (HTTP 404)",
                "try again",
            )
        if status == 404:
            return _NotThere(
                f"{request.model}{at} is neither a folder here nor a model on ModelScope",
                "check the name and the revision",
            )
        if status in (401, 403):
            return Refused(
                f"ModelScope refuses access to {request.model} (HTTP {status})",
                "set MODELSCOPE_API_TOKEN to a token that may read it",
            )
        is_of_network = isinstance(cause, (ConnectionError, TimeoutError))
        if isinstance(cause, OSError) and cause.errno is not None and not is_of_network:
            return cannot_write(cause)
        reason = one_line(cause, self._token)
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
