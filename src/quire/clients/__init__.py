"""Talking to HTTP servers with OpenAI's API, ours or another; knows nothing about engines."""
