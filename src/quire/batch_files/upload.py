"""Uploads the file of answers to a URL. Knows nothing about its lines."""

from __future__ import annotations

import hashlib
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

_MAX_TRIES = 5
_FIRST_DELAY_S = 1.0
_DIGEST_CHARS = 16
_TOO_MANY, _SERVER_FAILED = 429, 500
_HEADERS = {"Content-Type": "application/octet-stream"}


def staged(url: str, folder: Path) -> Path:
    """The file in ``folder`` that holds the answers for ``url`` until they are uploaded."""
    bare = url.partition("?")[0]  # the query of a signed URL is another one every time
    digest = hashlib.sha256(bare.encode()).hexdigest()[:_DIGEST_CHARS]
    return folder / f"quire_batch_{digest}.jsonl"


def upload(path: Path, url: str, *, sleep: Callable[[float], object] = time.sleep) -> None:
    """PUT the file, then remove it; ``ValueError`` that says where it is if that fails."""
    for num_tries in range(1, _MAX_TRIES + 1):
        try:
            _put(path, url)
        except (OSError, http.client.HTTPException) as error:
            if num_tries == _MAX_TRIES or not _may_pass(error):
                raise ValueError(
                    f"--output-file {url}: the upload failed: {error}; the answers are in {path}, "
                    "and the same command uploads them again"
                ) from error
            sleep(_FIRST_DELAY_S * 2 ** (num_tries - 1))
        else:
            path.unlink()
            return


def _put(path: Path, url: str) -> None:
    with path.open("rb") as file:
        size = {"Content-Length": str(path.stat().st_size)}
        request = urllib.request.Request(url, file, {**_HEADERS, **size}, method="PUT")
        urllib.request.urlopen(request).close()


def _may_pass(error: Exception) -> bool:
    """Whether another attempt may succeed: a status below 500 is final."""
    if not isinstance(error, urllib.error.HTTPError):
        return True
    return error.code == _TOO_MANY or error.code >= _SERVER_FAILED
