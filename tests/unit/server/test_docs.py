from __future__ import annotations

import re

from fastapi.routing import APIRoute

from quire.server.app import ROUTERS
from tools import server_docs


def test_every_endpoint_says_what_it_does() -> None:
    paths = {
        route.path for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)
    }
    rows = server_docs.endpoint_lines()[2:]
    assert len(rows) == len(paths)
    silent = [row for row in rows if re.search(r"\|\s*\|$", row)]
    assert silent == []
