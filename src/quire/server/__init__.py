"""The HTTP server: one endpoint is one file. Knows engines only through `AsyncLLM`."""
