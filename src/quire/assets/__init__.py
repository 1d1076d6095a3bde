"""Owns the models that Quire carries: a chat model, its draft model and a LoRA adapter.

Each path is a folder. The first two load as ``LlamaForCausalLM`` with their tokenizer, the last is
a PEFT adapter for the first. ``tools/train_tiny`` made them; ``docs/tiny_model.md`` says what
they can do.
"""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).resolve().parent

TINY_CHAT: Path = _HERE / "tiny-chat"
"""The chat model: eight layers, context of 2,048 tokens."""

TINY_DRAFT: Path = _HERE / "tiny-draft"
"""A two-layer model with the same tokenizer, for speculative decoding."""

TINY_LORA: Path = _HERE / "tiny-lora-capitals"
"""An adapter for the chat model that makes it answer in capital letters."""
