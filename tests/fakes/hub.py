"""A hub on localhost that speaks enough of two hubs' HTTP interfaces for their own clients.

Hugging Face: model info, tree listing, HEAD and GET of files with ETag, commit and ranges, and the
error codes in headers. ModelScope: file listing, and GET of files. One commit per repository.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

# A repository as it may be, with what is not to be downloaded.
FILES = {
    "config.json": b'{"model_type": "llama"}',
    "generation_config.json": b'{"top_k": 9}',
    "tokenizer.json": b'{"version": "1.0"}',
    "tokenizer_config.json": b"{}",
    "model.safetensors": b"s" * 1000,
    "pytorch_model.bin": b"b" * 1000,
    "consolidated.00.pth": b"c" * 1000,
    "README.md": b"hello",
    "original/params.json": b"{}",
}
NAME = "owner/tiny-1.0"


@dataclass
class FakeRepository:
    """Files under one commit."""

    files: dict[str, bytes]
    revisions: tuple[str, ...] = ("main", "master")
    token: str | None = None  # needed to see it at all
    gated: bool = False  # listed for all, files for nobody

    @property
    def commit(self) -> str:
        return hashlib.sha1(repr(sorted(self.files.items())).encode()).hexdigest()


@dataclass
class FakeHub:
    """What it serves, and what it was asked for."""

    url: str
    repositories: dict[str, FakeRepository] = field(default_factory=dict)
    downloads: list[str] = field(default_factory=list)  # files sent, in order
    num_requests: int = 0
    status: int = 200  # another one is the answer to everything
    tree_status: int = 200  # another one is the answer to Hugging Face's tree listing
    failing: dict[str, int] = field(default_factory=dict)  # file -> status of its download
    cut: set[str] = field(default_factory=set)  # files of which half is sent


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    """A hub that lives as long as the block."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    hub = FakeHub(url=f"http://127.0.0.1:{server.server_port}")
    server.hub = hub  # type: ignore[attr-defined]
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    @property
    def _hub(self) -> FakeHub:
        return self.server.hub  # type: ignore[attr-defined]

    def _answer(self) -> None:
        self._hub.num_requests += 1
        url = urlsplit(self.path)
        path, query = unquote(url.path).strip("/"), parse_qs(url.query)
        if self._hub.status != 200:
            self._send(self._hub.status, b"{}")
        elif path.startswith("api/v1/models/"):
            self._modelscope(path.removeprefix("api/v1/models/"), query)
        elif path.startswith("api/models/"):
            self._huggingface_api(path.removeprefix("api/models/"))
        else:
            self._huggingface_file(path)

    def _repository(self, name: str) -> FakeRepository | None:
        repository = self._hub.repositories.get(name)
        if repository is None or repository.token is None:
            return repository
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        return repository if given == repository.token else None

    def _huggingface_api(self, path: str) -> None:
        name, _, rest = _split(path)
        repository = self._repository(name)
        kind, _, revision = rest.partition("/")
        if repository is None:
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif (revision or "main") not in (*repository.revisions, repository.commit):
            self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        elif kind == "tree" and self._hub.tree_status != 200:
            self._send(self._hub.tree_status, b"{}")
        elif kind == "tree":
            tree = [{"type": "file", "oid": _etag(d), "size": len(d), "path": f}
                    for f, d in repository.files.items()]  # fmt: skip
            self._send_json(tree)
        else:
            siblings = [{"rfilename": f, "size": len(d), "blobId": _etag(d)}
                        for f, d in repository.files.items()]  # fmt: skip
            self._send_json(
                {"id": name, "modelId": name, "sha": repository.commit, "siblings": siblings}
            )

    def _huggingface_file(self, path: str) -> None:
        name, _, rest = _split(path)
        repository = self._repository(name)
        _, _, file = rest.removeprefix("resolve/").partition("/")
        if repository is None:
            self._send(404, b"", {"X-Error-Code": "RepoNotFound"})
        elif repository.gated:
            self._send(403, b"", {"X-Error-Code": "GatedRepo"})
        elif file not in repository.files:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
        else:
            headers = {
                "X-Repo-Commit": repository.commit,
                "ETag": f'"{_etag(repository.files[file])}"',
            }
            self._send_file(file, repository.files[file], headers)

    def _modelscope(self, path: str, query: dict[str, list[str]]) -> None:
        name, _, rest = _split(path)
        repository = self._repository(name)
        revision = query.get("Revision", ["master"])[0]
        if repository is None or revision not in repository.revisions:
            self._send(404, json.dumps({"Code": 404, "Message": "not found"}).encode())
        elif rest == "repo/files":
            is_recursive = query.get("Recursive", ["False"])[0].lower() == "true"
            files = [
                {
                    "Path": file,
                    "Name": file.rpartition("/")[2],
                    "Size": len(data),
                    "Type": "blob",
                    "Sha256": hashlib.sha256(data).hexdigest(),
                }
                for file, data in repository.files.items()
                if is_recursive or "/" not in file
            ]
            self._send_json({"Code": 200, "Data": {"Files": files}, "Success": True})
        elif rest == "repo":
            file = query["FilePath"][0]
            self._send_file(file, repository.files[file], {})
        else:
            self._send_json({"Code": 200, "Data": {"Path": name}, "Success": True})

    def _send_file(self, file: str, data: bytes, headers: dict[str, str]) -> None:
        wanted = self.headers.get("Range", "").removeprefix("bytes=").partition("-")
        status, total = 200, len(data)
        if wanted[0]:
            start, stop = int(wanted[0]), int(wanted[2] or total - 1) + 1
            data, status = data[start:stop], 206
            headers = headers | {"Content-Range": f"bytes {start}-{stop - 1}/{total}"}
        if self.command == "GET":
            if file in self._hub.failing:
                self._send(self._hub.failing[file], b"{}")
                return
            self._hub.downloads.append(file)
            data = data[: total // 2] if file in self._hub.cut else data
        self._send(status, data, headers | {"Accept-Ranges": "bytes"})

    def _send_json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


def _split(path: str) -> tuple[str, str, str]:
    """owner/name/rest -> ("owner/name", "/", "rest")."""
    owner, _, rest = path.partition("/")
    name, slash, rest = rest.partition("/")
    return f"{owner}/{name}", slash, rest


def _etag(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


def file_names(folder: Path) -> set[str]:
    """What a snapshot holds at the top, without the notes in it."""
    return {entry.name for entry in folder.iterdir() if not entry.name.startswith(".")}
