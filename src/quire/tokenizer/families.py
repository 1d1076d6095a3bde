"""What the tokenizer classes of older model families add to their vocabulary files.

Their repositories ship Python code instead of a `tokenizer.json`; this module holds what that code
knows as data: special tokens and their ids, what every prompt begins with. Knows nothing about
files.
"""

from __future__ import annotations

from dataclasses import dataclass, field

# One letter run, one digit, one run of signs, white space: OpenAI's cl100k but for the digits.
_ONE_DIGIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_THREE_DIGITS = _ONE_DIGIT.replace(r"\p{N}|", r"\p{N}{1,3}|")


@dataclass(frozen=True, kw_only=True, slots=True)
class SentencePieceFamily:
    """A class that reads a sentencepiece `tokenizer.model`."""

    add_bos: bool = True  # where tokenizer_config.json does not say
    appended: tuple[str, ...] = ()  # special tokens with the ids after the vocabulary
    special_ids: tuple[int, ...] = ()  # tokens of the vocabulary that chat formats use as marks
    prefix: tuple[str, ...] = ()  # special tokens before every prompt, instead of BOS
    unk_is_pad: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class TiktokenFamily:
    """A class that reads a tiktoken vocabulary."""

    file: str
    pattern: str
    nfc: bool = False
    first_special_id: int
    special: tuple[str, ...]  # with the ids from there on
    eos: str
    prefix: tuple[str, ...] = ()
    named_ids: dict[str, str] = field(default_factory=dict)  # attribute -> token; users read them


_GLM_MARKS = ("[MASK]", "[gMASK]", "[sMASK]", "sop", "eop")
_GLM_ROLES = ("<|system|>", "<|user|>", "<|assistant|>", "<|observation|>")
_GLM4_MARKS = ("<|endoftext|>", "[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>", *_GLM_ROLES)
_ARCADE_SPECIAL = (
    *("<|endoftext|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>"),
    *("<gh_stars>", "<filename>", "<issue_start>", "<issue_comment>", "<issue_closed>"),
    *("<jupyter_start>", "<jupyter_text>", "<jupyter_code>", "<jupyter_output>"),
    *("<empty_output>", "<commit_before>", "<commit_msg>", "<commit_after>", "<reponame>"),
    *("<|endofprompt|>", "<|im_start|>", "<|im_end|>", "<|pause|>"),
    *(f"<|reg{i}|>" for i in range(8)),
    "<|extra0|>",
)

CHATGLM2 = SentencePieceFamily(
    add_bos=False, appended=_GLM_MARKS, prefix=("[gMASK]", "sop"), unk_is_pad=True
)
CHATGLM3 = SentencePieceFamily(
    add_bos=False, appended=(*_GLM_MARKS, *_GLM_ROLES), prefix=("[gMASK]", "sop"), unk_is_pad=True
)
_BAICHUAN = SentencePieceFamily(special_ids=(195, 196))  # the marks of user and assistant
_PLAIN = SentencePieceFamily()

# Spellings from before the class was released, which some uploads still use.
OLD_CLASS_NAMES = {"LLaMATokenizer": "LlamaTokenizer"}
# By tokenizer_class.
SENTENCEPIECE_FAMILIES = {
    "LlamaTokenizer": _PLAIN,
    "LlamaTokenizerFast": _PLAIN,
    "BaiChuanTokenizer": _BAICHUAN,
    "BaichuanTokenizer": _BAICHUAN,
    "ChatGLMTokenizer": CHATGLM3,
    "GemmaTokenizer": _PLAIN,
    "GemmaTokenizerFast": _PLAIN,
    "InternLMTokenizer": _PLAIN,
    "InternLM2Tokenizer": _PLAIN,
    "InternLM2TokenizerFast": _PLAIN,
    "MistralTokenizer": _PLAIN,
    "OrionTokenizer": _PLAIN,
    "SkyworkTokenizer": _PLAIN,
    "XverseTokenizer": _PLAIN,
    "YiTokenizer": _PLAIN,
}
TIKTOKEN_FAMILIES = {
    "QWenTokenizer": TiktokenFamily(
        file="qwen.tiktoken",
        pattern=_ONE_DIGIT,
        nfc=True,
        first_special_id=151643,
        special=(
            *("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
            *(f"<|extra_{i}|>" for i in range(205)),
        ),
        eos="<|endoftext|>",
        named_ids={
            "eod_id": "<|endoftext|>",
            "im_start_id": "<|im_start|>",
            "im_end_id": "<|im_end|>",
        },
    ),
    "Arcade100kTokenizer": TiktokenFamily(
        file="arcade100k.tiktoken",
        pattern=_ONE_DIGIT,
        first_special_id=100257,
        special=_ARCADE_SPECIAL,
        eos="<|endoftext|>",
    ),
    "ChatGLM4Tokenizer": TiktokenFamily(
        file="tokenizer.model",
        pattern=_THREE_DIGITS,
        first_special_id=151329,
        special=_GLM4_MARKS,
        eos="<|endoftext|>",
        prefix=("[gMASK]", "<sop>"),
    ),
}
# Their repositories name code of their own, but have a whole tokenizer.json.
JSON_CLASSES = (
    *SENTENCEPIECE_FAMILIES,
    *TIKTOKEN_FAMILIES,
    *("AquilaTokenizer", "DeciLMTokenizer", "JAISTokenizer", "OLMoTokenizerFast"),
)
# For folders whose tokenizer_config.json names no class.
CLASS_OF_MODEL_TYPE = {
    "baichuan": "BaichuanTokenizer",
    "chatglm": "ChatGLMTokenizer",
    "gemma": "GemmaTokenizer",
    "gemma2": "GemmaTokenizer",
    "gemma3": "GemmaTokenizer",
    "gemma3_text": "GemmaTokenizer",
    "internlm": "InternLMTokenizer",
    "internlm2": "InternLM2Tokenizer",
    "llama": "LlamaTokenizer",
    "mistral": "LlamaTokenizer",
    "mixtral": "LlamaTokenizer",
    "orion": "OrionTokenizer",
    "persimmon": "LlamaTokenizer",
    "phi3": "LlamaTokenizer",
    "qwen": "QWenTokenizer",
    "stablelm_epoch": "Arcade100kTokenizer",
    "xverse": "XverseTokenizer",
    "Yi": "YiTokenizer",
}
# Classes of `transformers` whose BOS and EOS come from `add_bos_token` and `add_eos_token` in
# tokenizer_config.json, whatever tokenizer.json adds -> whether they add BOS if only add_eos_token
# is set. All other classes follow tokenizer.json.
ADDS_BOS_UNASKED = {
    "CodeLlamaTokenizer": True,
    "CohereTokenizer": True,
    "GemmaTokenizer": True,
    "GPTNeoXTokenizer": False,
    "LlamaTokenizer": True,
}
