"""Models from the Hugging Face Hub. Knows nothing about other hubs.

The client library reads its environment when it is imported; here the variables are read when used
and passed on, so that setting them after the import works.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import HfApi, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from tqdm import tqdm

from quire.errors import ModelLoadError
from quire.weights.hub_files import (
    HubRequest,
    check_disk_space,
    is_enough,
    offline_variable,
    wanted_files,
)

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

logger = logging.getLogger(__name__)

_DEFAULT_ENDPOINT = "https://huggingface.co"
_TIMEOUT_S = 30


def fetch(request: HubRequest) -> Path:
    """The snapshot folder of the model, complete for the request."""
    if (variable := offline_variable()) is not None:
        return _cached_or_error(request, f"{variable} is set")
    try:
        with _hub_errors(request):
            info = _list(request)
            return _download(request, info)
    except _Unreachable as error:
        folder = _cached_or_error(request, str(error))
        logger.warning("%s; using the copy in %s", error, folder)
        return folder


class _Unreachable(Exception):
    """The hub gave no answer, or not a useful one."""


def _list(request: HubRequest) -> ModelInfo:
    api = HfApi(endpoint=_endpoint(), token=_token(request), library_name="quire")
    return api.model_info(
        request.model, revision=request.revision, files_metadata=True, timeout=_TIMEOUT_S
    )


def _download(request: HubRequest, info: ModelInfo) -> Path:
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
    wanted = wanted_files(sizes, request)
    missing = {name: sizes[name] for name in wanted if not _is_cached(request, name, info.sha)}
    check_disk_space(missing, _cache_dir(request), request)
    folder = snapshot_download(
        request.model,
        revision=request.revision,
        cache_dir=_cache_dir(request),
        endpoint=_endpoint(),
        token=_token(request),
        allow_patterns=[escape(name) for name in wanted],
        library_name="quire",
        tqdm_class=None if missing else _NoBar,
    )
    return Path(folder)


class _NoBar(tqdm):
    """A progress bar that does not show: everything is here already."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.pop("name", None)  # a name for the library's own registry of bars
        super().__init__(*args, **(kwargs | {"disable": True}))


def _is_cached(request: HubRequest, name: str, commit: str | None) -> bool:
    found = try_to_load_from_cache(
        request.model, name, cache_dir=_cache_dir(request), revision=commit
    )
    return isinstance(found, str)


def _cached_or_error(request: HubRequest, reason: str) -> Path:
    cache = _cache_dir(request)
    try:
        folder = Path(
            snapshot_download(
                request.model,
                revision=request.revision,
                cache_dir=cache,
                local_files_only=True,
                allow_patterns=["config.json"],
                tqdm_class=_NoBar,
            )
        )
    except LocalEntryNotFoundError:
        folder = None
    if folder is not None and is_enough(folder, request):
        return folder
    at = f" at revision {request.revision!r}" if request.revision else ""
    raise ModelLoadError(
        f"{reason}, and {request.model}{at} is {'not' if folder is None else 'only in part'} in "
        f"the cache {cache}; go online once to download it, or give the path of a local folder"
    )


@contextmanager
def _hub_errors(request: HubRequest) -> Iterator[None]:
    """The client's errors as one line each, or `_Unreachable` where a cached copy would do."""
    model, endpoint = request.model, _endpoint()
    try:
        yield
    except GatedRepoError as error:
        raise ModelLoadError(
            f"access to {model} is restricted; accept its terms at {endpoint}/{model} and set "
            "HF_TOKEN to a token of that account"
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelLoadError(
            f"{model} is neither a folder here nor a model on {endpoint}; check the name, or set "
            "HF_TOKEN if the model is private"
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
            raise ModelLoadError(
                f"{endpoint} refuses access to {model} (HTTP {status}); set HF_TOKEN to a token "
                "that is valid and may read it"
            ) from error
        raise _Unreachable(f"{endpoint} answers HTTP {status} for {model}") from error
    except (HTTPError, ConnectionError, TimeoutError, LocalEntryNotFoundError) as error:
        raise _Unreachable(f"cannot reach {endpoint} ({_first_line(error)})") from error


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or _DEFAULT_ENDPOINT


def _token(request: HubRequest) -> str | None:
    """None leaves it to the client, which knows the saved login."""
    return request.token or os.environ.get("HF_TOKEN") or None


def _cache_dir(request: HubRequest) -> Path:
    if request.download_dir is not None:
        return request.download_dir
    if os.environ.get("HF_HUB_CACHE"):
        return Path(os.environ["HF_HUB_CACHE"]).expanduser()
    cache_home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    home = os.environ.get("HF_HOME") or cache_home / "huggingface"
    return Path(home).expanduser() / "hub"


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).split("\n", 1)[0]
