"""Bodies of requests, as pydantic models. Responses are plain dicts: they are made, not parsed."""
