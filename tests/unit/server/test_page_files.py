"""The page's own files, which anybody may ask for."""

from __future__ import annotations

import httpx
import pytest


@pytest.mark.parametrize("name", ["index.html", "page.js", "style.css", "icon.svg"])
async def test_its_files_are_there(client: httpx.AsyncClient, name: str) -> None:
    assert (await client.get(f"/page/{name}")).status_code == 200


@pytest.mark.parametrize(
    "name", ["page.py", "%2e%2e", "a" * 300 + ".js", "%00.js", "..%2fpage.py", "%2fetc%2fhosts"]
)
async def test_nothing_else_is_there(client: httpx.AsyncClient, name: str) -> None:
    answer = await client.get(f"/page/{name}")
    assert answer.status_code == 404
    assert len(answer.text) < 300 + len(name)
