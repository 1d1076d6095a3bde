"""The reason in the 404 for a path without a route, or the 405 for one without the method: which
one was meant, or what is not supported.

Owns the table of other servers' endpoints that are not supported.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, Match, get_route_path
from starlette.types import Scope

from quire.near_names import nearest
from quire.not_built import LORA

_VERSION = "/v1/"
_ANTHROPIC = "/v1/messages"

_TEXTS = "only models that generate text are served"
_MEDIA = "only text is served"
_NO_STATE = (
    "nothing is kept between requests; send the whole conversation to /v1/chat/completions or "
    "/v1/responses"
)
_BATCHES = "batches are not supported; `quire run-batch` answers a file of requests"
_SLEEP = "sleep mode is not supported; stop the server, and start it again"
_PAUSE = "pausing is not supported; requests end, or are cancelled with /v1/requests/ID/cancel"
_RENDER = "use /apply-template for the prompt of a conversation, and /tokenize for its tokens"
_PROFILE = "profiling over HTTP is not supported"
_OLLAMA = "Ollama's API is not supported; use OpenAI's, whose base URL ends with /v1"
_NO_ANSWERS = f"no answers are stored, since {_NO_STATE}"
# Path without the version -> why it is not supported; this holds for paths below it too.
NOT_BUILT = {
    **dict.fromkeys(("embeddings", "embed"), f"embeddings are not supported; {_TEXTS}"),
    **dict.fromkeys(("rerank", "v2/rerank"), f"reranking is not supported; {_TEXTS}"),
    "score": f"scoring is not supported; {_TEXTS}",
    "classify": f"classification is not supported; {_TEXTS}",
    "pooling": f"pooling is not supported; {_TEXTS}",
    "moderations": f"moderation is not supported; {_TEXTS}",
    "audio": f"audio is not supported; {_MEDIA}",
    "images": f"images are not supported; {_MEDIA}",
    "videos": f"videos are not supported; {_MEDIA}",
    "realtime": f"speech is not supported; {_MEDIA}",
    **dict.fromkeys(("batches", "messages/batches"), _BATCHES),
    **dict.fromkeys(("files", "uploads"), "files are not stored; put their text into a message"),
    **dict.fromkeys(("assistants", "threads", "conversations", "vector_stores"), _NO_STATE),
    "fine_tuning": "training is not supported",
    **dict.fromkeys(("load_lora_adapter", "unload_lora_adapter"), LORA),
    **dict.fromkeys(("sleep", "wake_up", "is_sleeping"), _SLEEP),
    **dict.fromkeys(("pause", "resume", "is_paused"), _PAUSE),
    **dict.fromkeys(("start_profile", "stop_profile"), _PROFILE),
    **dict.fromkeys(("chat/completions/render", "completions/render"), _RENDER),
    "chat/completions/batch": "send a request for each conversation, which run together, or give "
    "`quire run-batch` a file of them",
    "generate": "use /v1/completions, which takes token ids, and returns them with "
    "return_token_ids, or /v1/chat/completions",
    "invocations": "one endpoint for all bodies is not supported; use /v1/chat/completions or "
    "/v1/completions",
    "tokenizer_info": "use /tokenize and /detokenize; the tokenizer's files are the model's",
    "collective_rpc": "methods of the engine cannot be called over HTTP",
    **dict.fromkeys(("api/chat", "api/generate", "api/tags", "api/show"), _OLLAMA),
}
# The same for paths that have a route, but not with this method of other servers.
NOT_WITH_METHOD = {
    ("GET", "chat/completions"): _NO_ANSWERS,
    ("POST", "responses/compact"): "conversations are not compacted; send as input what the model "
    "must see, or set truncation to 'auto', which leaves out the oldest turns",
}
_REASONS = {**NOT_BUILT, "chat/completions": _NO_ANSWERS}  # the latter for paths below the route
_MOST_PARTS = max(name.count("/") for name in _REASONS) + 1


def why_not_with_method(scope: Scope) -> str | None:
    """Why the path of a request has no such method; None where there is nothing to add."""
    return NOT_WITH_METHOD.get((scope["method"], _name_of(get_route_path(scope))))


def why_unknown(scope: Scope) -> str | None:
    """Why no route has the path of a request; None where there is nothing to add."""
    path = get_route_path(scope)
    name = _name_of(path)
    for meant in (f"{_VERSION}{name}", f"/{name}"):
        if meant != path and _is_route(scope, meant):
            return f"the endpoint is {meant}{_base_url(meant)}"
    parts = name.split("/")
    begins = ("/".join(parts[:count]) for count in range(_MOST_PARTS, 0, -1))
    why = next((_REASONS[begin] for begin in begins if begin in _REASONS), None)
    return why or _near(scope, name)


def _near(scope: Scope, name: str) -> str | None:
    """The endpoint of nearly this name and as many parts, for one that is mistyped."""
    paths = {
        _name_of(route.path_format): route.path_format
        for route in single_routes(scope["app"].routes)
        if isinstance(route, APIRoute) and route.include_in_schema
    }
    near = nearest(name, [one for one in paths if one.count("/") == name.count("/")], most=1)
    return f"the nearest endpoint is {paths[near[0]]}" if near else None


def single_routes(routes: Sequence[BaseRoute]) -> Iterator[BaseRoute]:
    """The routes one by one: newer versions of FastAPI keep those of an included router together.
    Quire includes its routers without a prefix, so their routes have the whole path."""
    for route in routes:
        router = getattr(route, "original_router", None)
        if router is None:
            yield route
        else:
            yield from single_routes(router.routes)


def _name_of(path: str) -> str:
    """The path without the version."""
    bare = "/".join(part for part in path.split("/") if part)
    return f"/{bare}".rpartition(_VERSION)[2].lstrip("/")


def _is_route(scope: Scope, path: str) -> bool:
    there = {**scope, "root_path": "", "path": path}
    return any(route.matches(there)[0] is not Match.NONE for route in scope["router"].routes)


def _base_url(path: str) -> str:
    if path.startswith(_ANTHROPIC):
        return "; a base URL for Anthropic's clients ends before /v1"
    return "; the base URL ends with /v1" if path.startswith(_VERSION) else ""
