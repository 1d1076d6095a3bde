"""Chat templates for families that ship none, and which model gets which.

Owns the choice, and the texts that end an answer in each format. A tokenizer's own template always
takes precedence. Knows nothing about engines.
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

_FOLDER = Path(__file__).parent

# Texts that end an answer, besides the model's end-of-sequence tokens.
_ENDS = {
    "alpaca": ("### Instruction:",),
    "aquila": ("###", "</s>", "[UNK]"),
    "aquila2": ("</s>",),
    "chatglm2": (),
    "chatglm3": ("<|user|>", "<|observation|>"),
    "chatml": ("<|im_end|>",),
    "deci": ("### User:", "### System:"),
    "dolly": ("### End",),
    "falcon": ("\nUser:",),
    "internlm": ("<eoa>",),
    "internlm2": ("<|im_end|>",),
    "internlm2_first": ("[UNUSED_TOKEN_145]",),
    "jais": ("### Input:",),
    "llama3": ("<|eot_id|>",),
    "mpt_instruct": ("### Instruction:",),
    "qwen": ("<|im_end|>", "<|endoftext|>"),
    "stablelm_zephyr": ("<|endoftext|>",),
    "xverse": ("<|endoftext|>",),
}


@dataclass(frozen=True, slots=True)
class _Rule:
    """Assigns a template to models that meet every condition."""

    template: str
    architectures: tuple[str, ...] = ()  # any, if empty
    name: str = ""  # a regular expression found in the model's lower-case name
    config: str = ""  # a key that config.json must have
    vocab_size: int | None = None
    token: str = ""  # that the vocabulary must have


_CHATGLM = ("ChatGLMModel", "ChatGLMForConditionalGeneration")
_AQUILA = ("AquilaModel", "AquilaForCausalLM")
_BAICHUAN = ("BaiChuanForCausalLM", "BaichuanForCausalLM")
_LLAMA = ("LlamaForCausalLM", "LLaMAForCausalLM")
_MISTRAL = ("MistralForCausalLM", "MixtralForCausalLM")
_MPT = ("MPTForCausalLM", "MptForCausalLM")
_YI = r"(?<![a-z])yi-[^/]*chat"

# The first matching rule applies; special ones come before general ones.
_RULES = (
    _Rule("aquila2", _AQUILA, name="aquilachat2-7b"),
    _Rule("aquila", _AQUILA),
    _Rule("baichuan2", _BAICHUAN, vocab_size=125696),
    _Rule("baichuan2", _BAICHUAN, config="z_loss_weight"),
    _Rule("baichuan", _BAICHUAN),
    _Rule("chatglm2", _CHATGLM, name="glm2|codegeex2"),
    _Rule("chatglm3", _CHATGLM),
    _Rule("llama3", ("DeciLMForCausalLM",), config="block_configs"),
    _Rule("deci", ("DeciLMForCausalLM",)),
    _Rule("falcon", ("FalconForCausalLM", "RWForCausalLM")),
    _Rule("internlm", ("InternLMForCausalLM",)),
    _Rule("internlm2_first", ("InternLM2ForCausalLM",), token="[UNUSED_TOKEN_146]"),
    _Rule("internlm2", ("InternLM2ForCausalLM",)),
    _Rule("jais", ("JAISLMHeadModel",)),
    _Rule("mpt_instruct", _MPT, name="instruct"),
    _Rule("chatml", _MPT),
    _Rule("orion", ("OrionForCausalLM",)),
    _Rule("qwen", ("QWenLMHeadModel",)),
    _Rule("stablelm_zephyr", ("StableLMEpochForCausalLM", "StableLmForCausalLM")),
    _Rule("tulu", ("OLMoForCausalLM", "OlmoForCausalLM")),
    _Rule("xverse", ("XverseForCausalLM",)),
    _Rule("chatml", ("YiForCausalLM",)),
    # One architecture, many formats: only the name tells.
    _Rule("vicuna", _LLAMA, name="vicuna|wizardlm|longchat"),
    _Rule("koala", _LLAMA, name="koala"),
    _Rule("alpaca", _LLAMA, name="alpaca"),
    _Rule("llama2", _LLAMA, name="llama-?2.*chat"),
    _Rule("chatml", _LLAMA, name=_YI),
    _Rule("mistral", _MISTRAL, name="instruct"),
    _Rule("dolly", ("GPTNeoXForCausalLM",), name="dolly"),
)


def chat_template_names() -> tuple[str, ...]:
    return tuple(sorted(file.stem for file in _FOLDER.glob("*.jinja")))


@functools.cache
def named_chat_template(name: str) -> str:
    """The Jinja text of one of `chat_template_names`."""
    return (_FOLDER / f"{name}.jinja").read_text(encoding="utf-8").rstrip("\n")


@functools.cache
def ends_of_format(template: str) -> tuple[str, ...]:
    """Texts that end an answer in this format; empty for a template that is not one of ours."""
    for name, ends in _ENDS.items():
        if named_chat_template(name) == template:
            return ends
    return ()


def give_chat_template(
    tokenizer: PreTrainedTokenizerBase, hf_config: Mapping[str, Any], architecture: str, model: str
) -> None:
    """Set the template of the model's family if ``tokenizer`` has none, and log its name."""
    if tokenizer.chat_template:
        return
    name = _choice(tokenizer, hf_config, architecture, model)
    if name is None:
        return
    tokenizer.chat_template = named_chat_template(name)
    logger.info(
        "the tokenizer has no chat template; conversations use Quire's %r, the format of this "
        "model's family (%s); chat_template (--chat-template) sets another one",
        name,
        architecture,
    )


def _choice(
    tokenizer: PreTrainedTokenizerBase, hf_config: Mapping[str, Any], architecture: str, model: str
) -> str | None:
    names = " ".join((_last_part(model), _last_part(str(hf_config.get("_name_or_path") or ""))))
    for rule in _RULES:
        if (
            (not rule.architectures or architecture in rule.architectures)
            and re.search(rule.name, names.lower())
            and (not rule.config or hf_config.get(rule.config) is not None)
            and rule.vocab_size in (None, hf_config.get("vocab_size"))
            and (not rule.token or rule.token in tokenizer.get_vocab())
        ):
            return rule.template
    return None


def _last_part(model: str) -> str:
    """A model's name without owner or folder; in a hub's cache it stands above ``snapshots``."""
    parts = [part for part in re.split(r"[/\\]", model) if part]
    if "snapshots" in parts[:-1]:
        parts = parts[: parts.index("snapshots")]
    return parts[-1] if parts else ""
