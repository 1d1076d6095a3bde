"""The supported architectures as shown to people: families, example hub ids, what is special.

What is special about a family is the first paragraph of its module's docstring, read without
importing the module. Knows nothing about configs. Imports no torch.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

FAMILIES = "quire.models.architectures."
# Family -> models on the Hugging Face hub.
EXAMPLES: dict[str, tuple[str, ...]] = {
    "baichuan": ("baichuan-inc/Baichuan2-7B-Chat", "baichuan-inc/Baichuan-13B-Chat"),
    "bloom": ("bigscience/bloom-560m", "bigscience/bloomz-7b1"),
    "chatglm": ("zai-org/chatglm2-6b", "zai-org/chatglm3-6b"),
    "cohere": ("CohereLabs/c4ai-command-r-v01", "CohereLabs/c4ai-command-r-plus"),
    "cohere2": ("CohereLabs/c4ai-command-r7b-12-2024", "CohereLabs/c4ai-command-a-03-2025"),
    "dbrx": ("databricks/dbrx-instruct",),
    "decilm": ("Deci/DeciLM-7B-instruct", "nvidia/Llama-3_3-Nemotron-Super-49B-v1"),
    "deepseek": ("deepseek-ai/DeepSeek-V2-Lite-Chat", "moonshotai/Moonlight-16B-A3B-Instruct"),
    "falcon": ("tiiuae/falcon-7b-instruct", "tiiuae/falcon-40b", "tiiuae/falcon-rw-1b"),
    "gemma": ("google/gemma-2b-it",),
    "gemma2": ("google/gemma-2-2b-it", "google/gemma-2-9b-it"),
    "gemma3": ("google/gemma-3-1b-it",),
    "glm": ("zai-org/glm-4-9b-chat-hf", "zai-org/GLM-4-9B-0414"),
    "gpt2": ("openai-community/gpt2", "openai-community/gpt2-xl"),
    "gpt_bigcode": ("bigcode/starcoder", "bigcode/gpt_bigcode-santacoder"),
    "gpt_neox": ("EleutherAI/pythia-1.4b", "EleutherAI/gpt-neox-20b"),
    "gpt_oss": ("openai/gpt-oss-20b", "openai/gpt-oss-120b"),
    "gptj": ("EleutherAI/gpt-j-6b",),
    "granite": ("ibm-granite/granite-3.1-8b-instruct",),
    "internlm": ("internlm/internlm-chat-7b",),
    "internlm2": ("internlm/internlm2_5-7b-chat",),
    "jais": ("inceptionai/jais-13b-chat", "inceptionai/jais-family-590m"),
    "llama": (
        *("meta-llama/Llama-3.1-8B-Instruct", "01-ai/Yi-6B-Chat", "lmsys/vicuna-7b-v1.5"),
        *("BAAI/AquilaChat-7B", "xverse/XVERSE-7B-Chat"),
    ),
    "mistral": ("mistralai/Mistral-7B-Instruct-v0.3",),
    "mixtral": ("mistralai/Mixtral-8x7B-Instruct-v0.1",),
    "mpt": ("mosaicml/mpt-7b-chat", "mosaicml/mpt-30b"),
    "nemotron": ("nvidia/Minitron-4B-Base",),
    "olmo": ("allenai/OLMo-1B-hf",),
    "olmo2": ("allenai/OLMo-2-1124-7B-Instruct",),
    "olmo_original": ("allenai/OLMo-1B",),
    "opt": ("facebook/opt-125m", "facebook/opt-350m"),
    "orion": ("OrionStarAI/Orion-14B-Chat",),
    "persimmon": ("adept/persimmon-8b-chat",),
    "phi": ("microsoft/phi-2", "microsoft/phi-1_5"),
    "phi3": ("microsoft/Phi-3-mini-4k-instruct", "microsoft/phi-4"),
    "phimoe": ("microsoft/Phi-3.5-MoE-instruct",),
    "qwen": ("Qwen/Qwen-7B-Chat", "Qwen/Qwen-1_8B-Chat"),
    "qwen2": ("Qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen1.5-0.5B-Chat"),
    "qwen2_moe": ("Qwen/Qwen1.5-MoE-A2.7B-Chat",),
    "qwen3": ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-8B"),
    "qwen3_moe": ("Qwen/Qwen3-30B-A3B",),
    "smollm3": ("HuggingFaceTB/SmolLM3-3B",),
    "stablelm": ("stabilityai/stablelm-2-1_6b-chat", "stabilityai/stablelm-2-12b-chat"),
    "starcoder2": ("bigcode/starcoder2-3b",),
    "yi": ("01-ai/Yi-6B",),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """Architectures that share a module."""

    name: str
    architectures: tuple[str, ...]  # as config.json spells them
    examples: tuple[str, ...]  # hub ids
    special: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def families(places: Iterable[tuple[str, str]]) -> list[Family]:
    """The families of (architecture, "module:function") pairs, by name; a user's own come last."""
    members: dict[str, list[str]] = {}
    for architecture, place in places:
        members.setdefault(place.partition(":")[0], []).append(architecture)
    own = sorted(module for module in members if module.startswith(FAMILIES))
    others = sorted(members.keys() - set(own))
    return [
        *(_family(module, members[module]) for module in own),
        *(
            Family(
                name=module,
                architectures=tuple(members[module]),
                examples=(),
                special="registered by a plug-in or a program",
            )
            for module in others
        ),
    ]


def _family(module: str, architectures: list[str]) -> Family:
    name = module.removeprefix(FAMILIES)
    return Family(
        name=name,
        architectures=tuple(architectures),
        examples=EXAMPLES.get(name, ()),
        special=_first_paragraph(module),
    )


def _first_paragraph(module: str) -> str:
    spec = find_spec(module)
    assert spec is not None and spec.origin is not None, module
    text = ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))) or ""
    return " ".join(text.partition("\n\n")[0].split())
