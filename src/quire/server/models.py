"""Which models are served: one, under one or more names."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from quire.server.error_responses import json_response
from quire.server.state import ServedModels, ServerState, state_of

router = APIRouter(tags=["models"])


@router.get("/v1/models")
async def list_models(request: Request) -> Response:
    """OpenAI's list of models; the first is the one that answers report."""
    state = state_of(request)
    models = state.require_models()
    cards = [_card(state, models, name) for name in models.names]
    ends = {"has_more": False, "first_id": models.names[0], "last_id": models.names[-1]}
    return json_response({"object": "list", "data": cards, **ends})


@router.get("/v1/models/{name:path}")
async def one_model(name: str, request: Request) -> Response:
    """One model; 404 for a name that is not served."""
    if not name:  # the list's path with a slash at its end
        return await list_models(request)
    state = state_of(request)
    models = state.require_models()
    models.check(name)
    return json_response(_card(state, models, name))


def _card(state: ServerState, models: ServedModels, name: str) -> dict[str, Any]:
    limits = (models.max_tokens_limit, state.args.max_output_tokens)
    most_output = min([models.max_model_len, *filter(None, limits)])
    return {
        "id": name,
        "object": "model",
        "type": "model",  # from here to ``max_tokens`` is what Anthropic's clients read
        "display_name": name,
        "created_at": datetime.fromtimestamp(models.created, timezone.utc).isoformat(),
        "lifecycle": "active",
        "max_input_tokens": models.max_model_len,
        "max_tokens": most_output,
        "created": models.created,
        "owned_by": "quire",
        "root": models.root,
        "parent": None,
        "max_model_len": models.max_model_len,
        "permission": [_permission(models)],
    }


def _permission(models: ServedModels) -> dict[str, Any]:
    """The permissions that older OpenAI clients read; nothing here depends on them."""
    return {
        "id": f"modelperm-{models.created:x}",
        "object": "model_permission",
        "created": models.created,
        "allow_create_engine": False,
        "allow_sampling": True,
        "allow_logprobs": True,
        "allow_search_indices": False,
        "allow_view": True,
        "allow_fine_tuning": False,
        "organization": "*",
        "group": None,
        "is_blocking": False,
    }
