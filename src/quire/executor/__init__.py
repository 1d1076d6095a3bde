"""One call on every rank."""
