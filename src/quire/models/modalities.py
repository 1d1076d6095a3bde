"""Refuses multi-modal models, which are not served.

Knows the config.json keys that mark them. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quire.errors import UnsupportedModelError
from quire.models.registry import ModelRegistry

_OTHER_THAN_TEXT = ("vision_config", "audio_config")
_OF_IMAGES = ("patch_size", "image_size")  # beside a text_config, as in Fuyu's


def refuse_multi_modal(config: Mapping[str, Any], architecture: str) -> None:
    """UnsupportedModelError for a multi-modal config, unless a program or plug-in has registered
    the architecture itself: it may serve the text part."""
    is_known = architecture in ModelRegistry
    if is_known and not ModelRegistry.is_ours(architecture):
        return
    keys = [key for key in _OTHER_THAN_TEXT if config.get(key)]
    if not keys and not is_known and config.get("text_config"):
        of_images = [key for key in _OF_IMAGES if config.get(key)]
        if of_images or not architecture.endswith("ForCausalLM"):
            keys = of_images or ["text_config"]
    if keys:
        raise UnsupportedModelError(
            f"{architecture} is a multi-modal model (config.json has {' and '.join(keys)}), and "
            "Quire serves text models only"
        )
