"""Constraints on the text: checked, compiled, and followed token by token."""
