"""Tokenizers: loading them, and what the engine must know of a loaded one."""
