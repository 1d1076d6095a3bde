"""Files of requests and answers at URLs: downloads and uploads. Knows nothing about their lines."""

from __future__ import annotations

import hashlib
import http.client
import re
import shutil
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path

_MAX_TRIES = 5
_FIRST_DELAY_S = 1.0
_TIMEOUT_S = 120.0  # of one wait for the network, not of a whole file
_DIGEST_CHARS = 16
_TOO_MANY, _SERVER_FAILED = 429, 500
_HEADERS = {"Content-Type": "application/octet-stream"}
# Names in the query of a signed URL whose values change when it is signed again: those of Amazon's,
# Google's and Azure's stores.
_OF_SIGNATURE = re.compile(
    r"x-(amz|goog)-.*|awsaccesskeyid|googleaccessid|signature|expires|sig|s[tepv]|sk[tev]",
    re.IGNORECASE,
)
_SECRETS = re.compile(r"(?<=://)[^/?#]*@|\?.*", re.DOTALL)


def is_url(name: str) -> bool:
    """Whether a file is named by a URL instead of a path."""
    return name.startswith(("http://", "https://"))


def fetched(source: str, folder: Path) -> Path:
    """The file that ``source`` names; one at a URL is stored in ``folder`` first."""
    if not is_url(source):
        return Path(source)
    check_url(source, "--input-file")
    target = folder / "input.jsonl"
    try:
        with (
            urllib.request.urlopen(source, timeout=_TIMEOUT_S) as answer,
            target.open("wb") as file,
        ):
            shutil.copyfileobj(answer, file)
            wanted, size = answer.headers.get("Content-Length"), file.tell()
    except (OSError, http.client.HTTPException) as error:
        raise ValueError(f"{_shown(source)} cannot be read: {error}") from error
    if wanted is not None and wanted.isdigit() and int(wanted) != size:
        raise ValueError(f"{_shown(source)} ended after {size} of {wanted} bytes; try again later")
    return target


def check_url(url: str, flag: str = "--output-file") -> None:
    """``ValueError`` for a URL, the value of ``flag``, that no attempt can reach."""
    try:
        parts = urllib.parse.urlsplit(url)
        host = (parts.hostname or "").encode("idna")
        _ = parts.port  # raises if it is none
    except ValueError as error:
        raise _unusable(flag, url, str(error)) from error
    if not host:
        raise _unusable(flag, url, "it names no host")
    if parts.username is not None:
        raise _unusable(flag, url, "its user name cannot be sent")
    if re.search(r"[\0- \x7f]", url) or not (parts.path + parts.query).isascii():
        raise _unusable(flag, url, "it has a character that must be percent-encoded")


def _unusable(flag: str, url: str, why: str) -> ValueError:
    return ValueError(
        f"{flag} {_shown(url)} cannot be used: {why}; give a path, or a URL such as "
        "https://HOST/FILE.jsonl"
    )


def staged(url: str, folder: Path) -> Path:
    """The file in ``folder`` that holds the answers for ``url`` until they are uploaded."""
    bare, _, query = url.partition("?")
    kept = [one for one in query.split("&") if not _OF_SIGNATURE.fullmatch(one.partition("=")[0])]
    digest = hashlib.sha256("?".join([bare, *filter(None, kept)]).encode()).hexdigest()
    return folder / f"quire_batch_{digest[:_DIGEST_CHARS]}.jsonl"


def upload(path: Path, url: str, *, sleep: Callable[[float], object] = time.sleep) -> None:
    """PUT the file; ``ValueError`` that says where it is if that fails."""
    for num_tries in range(1, _MAX_TRIES + 1):
        try:
            _put(path, url)
        except (OSError, http.client.HTTPException) as error:
            if num_tries == _MAX_TRIES or not _may_pass(error):
                raise ValueError(
                    f"--output-file {_shown(url)}: the upload failed: {error}; the answers are in "
                    f"{path}, and the same command uploads them again"
                ) from error
            delay_s = _FIRST_DELAY_S * 2 ** (num_tries - 1)
            print(
                f"the upload to {_shown(url)} failed: {error}; trying again in {delay_s:g} s",
                file=sys.stderr,
            )
            sleep(delay_s)
        else:
            return


def _put(path: Path, url: str) -> None:
    with path.open("rb") as file:
        size = {"Content-Length": str(path.stat().st_size)}
        request = urllib.request.Request(url, file, {**_HEADERS, **size}, method="PUT")
        urllib.request.urlopen(request, timeout=_TIMEOUT_S).close()


def _shown(url: str) -> str:
    """The URL without what may be secret."""
    return _SECRETS.sub("", url)


def _may_pass(error: Exception) -> bool:
    """Whether another attempt may succeed: a status below 500 is final."""
    if not isinstance(error, urllib.error.HTTPError):
        return True
    return error.code == _TOO_MANY or error.code >= _SERVER_FAILED
