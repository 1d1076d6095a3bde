"""Models from the Hugging Face Hub. Knows nothing about other hubs.

The client library reads its environment when it is imported; here the variables are read when used
and passed on, so that setting them after the import works.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from huggingface_hub import HfApi, get_session, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

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
    has_weights,
    missing_files,
    one_line,
    remove_damaged,
    why_offline,
    without_user,
)
from quire.weights.hub_note import Note, replace_text, write_note

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo, RepoSibling

logger = logging.getLogger(__name__)

_DEFAULT_ENDPOINT = "https://huggingface.co"
_TIMEOUT_S = 30
_PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")


def fetch(request: HubRequest) -> Path:
    """The snapshot folder of the model, complete for the request."""
    cache = _cache_dir(request)
    check_cache_folder(cache, "HF_HUB_CACHE")
    if (offline := why_offline()) is not None:
        return cached_copy(_cached_folder(request), request, cache, offline)
    try:
        _check_connection(request)
        with _hub_errors(request):
            return _download(request, _list(request))
    except NoDownload as error:
        folder = cached_copy(_cached_folder(request), request, cache, error)
        logger.warning("%s; using the copy in %s", error, folder)
        return folder


def _check_connection(request: HubRequest) -> None:
    """NoDownload if the client cannot use its settings; its errors are of many types."""
    try:
        get_session()
    except Exception as error:
        variables = _CERTIFICATES if isinstance(error, OSError) else _PROXIES
        names = sorted(name for name in os.environ if name.upper() in variables)
        raise NoDownload(
            f"no connection can be opened ({one_line(error, _token(request))})",
            f"correct or unset {' and '.join(names)}" if names else "try again",
        ) from error


def _list(request: HubRequest) -> ModelInfo:
    api = HfApi(endpoint=_endpoint(), token=_token(request), library_name="quire")
    with _answer_of_a_hub(request):
        info = api.model_info(
            request.model, revision=request.revision, files_metadata=True, timeout=_TIMEOUT_S
        )
        if info.sha is None:
            raise ValueError("it names no commit")
    return info


def _download(request: HubRequest, info: ModelInfo) -> Path:
    folder = _storage(request) / "snapshots" / str(info.sha)
    files = {file.rfilename: file for file in info.siblings or []}
    sizes = {name: file.size or 0 for name, file in files.items()}
    while missing := missing_files(folder, sizes, request):  # repeats once the index has arrived
        for name in missing:  # the client takes any existing file for complete
            remove_damaged(folder / name, sizes[name])
            remove_damaged(_content(request, files[name]), sizes[name])
        new = {n: sizes[n] for n in missing if not _content(request, files[n]).is_file()}
        check_disk_space(new, _cache_dir(request), request)
        write_note(folder, Note(sizes=sizes))
        if _cached_folder(request) is None:
            _set_ref(request, folder)
        with _answer_of_a_hub(request), _tells_at_ctrl_c():
            snapshot_download(
                request.model,
                revision=info.sha,  # a branch name would give the commit of the old ref
                cache_dir=_cache_dir(request),
                endpoint=_endpoint(),
                token=_token(request),
                allow_patterns=[escape(name) for name in missing],
                library_name="quire",
            )
        if not set(missing).isdisjoint(missing_files(folder, sizes, request)):
            # The client ignores some errors.
            raise NoDownload(f"the download of {request.model} is incomplete", "try again")
    current = _cached_folder(request)
    if current is None or request.what == "weights" or not has_weights(current, request):
        _set_ref(request, folder)  # a config alone must not replace a model
    return folder


def _content(request: HubRequest, file: RepoSibling) -> Path:
    """The blob in the cache with the content of `file`, shared by all commits that have it."""
    name = os.path.basename((file.lfs.sha256 if file.lfs else file.blob_id) or "")
    return _storage(request) / "blobs" / name  # no name: no file; a path leads nowhere else


def _set_ref(request: HubRequest, folder: Path) -> None:
    """Make the request's revision resolve to `folder` when the hub cannot be reached."""
    ref = _ref(request)
    if folder.name == request.revision or folder == _cached_folder(request):
        return
    try:
        ref.parent.mkdir(parents=True, exist_ok=True)
        replace_text(ref, folder.name)
    except OSError as error:
        logger.warning("%s cannot be written (%s); offline it stays as it was", ref, error)


def _cached_folder(request: HubRequest) -> Path | None:
    """The snapshot, complete or not, that the request's revision resolves to offline."""
    ref = _ref(request)
    commit = ref.read_text(encoding="utf-8") if ref.is_file() else request.revision or "main"
    folder = _storage(request) / "snapshots" / commit
    return folder if folder.is_dir() else None


def _ref(request: HubRequest) -> Path:
    return _storage(request) / "refs" / (request.revision or "main")


def _storage(request: HubRequest) -> Path:
    """The model's part of the cache, whose layout the client documents: the commit of a branch in
    refs/, the files of a commit in snapshots/, their contents in blobs/."""
    return _cache_dir(request) / f"models--{request.model.replace('/', '--')}"


@contextmanager
def _hub_errors(request: HubRequest) -> Iterator[None]:
    """Turn the client's errors into one line each; NoDownload where a cached copy would do."""
    model, endpoint, token = request.model, without_user(_endpoint()), _token(request)
    try:
        yield
    except GatedRepoError as error:
        raise Refused(
            f"access to {model} is restricted",
            f"accept its terms at {endpoint}/{model} and set HF_TOKEN to a token of that account",
        ) from error
    except RepositoryNotFoundError as error:
        raise Refused(
            f"{model} is neither a folder here nor a model on {endpoint}",
            "check the name, or set HF_TOKEN if the model is private",
        ) from error
    except RevisionNotFoundError as error:
        raise ModelLoadError(
            f"{model} has no revision {request.revision!r} on {endpoint}; give a branch, a tag or "
            "a full commit hash"
        ) from error
    except HFValidationError as error:
        raise ModelLoadError(
            f"model {model!r} is not a valid name on {endpoint}: {error}"
        ) from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise Refused(
                f"{endpoint} refuses access to {model} (HTTP {status})",
                "set HF_TOKEN to a token that is valid and may read it",
            ) from error
        raise NoDownload(f"{endpoint} answers HTTP {status} for {model}", "try again") from error
    except (HTTPError, ConnectionError, TimeoutError, LocalEntryNotFoundError) as error:
        reason = one_line(error.__cause__ or error, token)
        raise NoDownload(f"cannot reach {endpoint} ({reason})", "try again") from error
    except OSError as error:
        if error.errno is None:  # raised by the client itself, about damaged data
            reason = f"the download of {model} is damaged ({one_line(error, token)})"
            raise NoDownload(reason, "try again") from error
        raise cannot_write(error) from error


@contextmanager
def _answer_of_a_hub(request: HubRequest) -> Iterator[None]:
    """NoDownload where the client stumbles over an answer, as over a login page's HTML."""
    try:
        yield
    except (HFValidationError, OSError):
        raise  # `_hub_errors` says what these mean
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise NoDownload(
            f"{without_user(_endpoint())} does not answer as a hub does for {request.model} "
            f"({type(error).__name__}: {one_line(error, _token(request))})",
            "check HF_ENDPOINT and whether the network wants a login",
        ) from error


@contextmanager
def _tells_at_ctrl_c() -> Iterator[None]:
    """Say at Ctrl-C what it waits for: the client lets the files that are under way arrive.

    Only where Python's own handler is set: any other was set on purpose.
    """

    def tell(signum: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        logger.warning("the files under way still arrive; press Ctrl-C again to end at once")
        raise KeyboardInterrupt

    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield
        return
    signal.signal(signal.SIGINT, tell)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or _DEFAULT_ENDPOINT


def _token(request: HubRequest) -> str | None:
    """The token given or of HF_TOKEN; None lets the client use the saved login."""
    given = clean_token(request.token, "hf_token")
    return given or clean_token(os.environ.get("HF_TOKEN"), "HF_TOKEN")


def _cache_dir(request: HubRequest) -> Path:
    if request.download_dir is not None:
        return request.download_dir
    cache_home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or f"{cache_home}/huggingface"
    names = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE")  # the second is an older name
    cache = next(filter(None, map(os.environ.get, names)), f"{home}/hub")
    return Path(os.path.expandvars(os.path.expanduser(cache)))
