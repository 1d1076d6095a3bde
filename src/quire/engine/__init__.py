"""The engine: requests in, outputs out, and the core between them, here or in another process."""
