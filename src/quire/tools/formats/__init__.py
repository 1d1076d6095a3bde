"""How models write calls of tools: one grammar for each kind of format."""
