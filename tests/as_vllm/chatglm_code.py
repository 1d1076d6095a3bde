"""The code that lies in the fake ChatGLM3 repository: a tokenizer that builds chat inputs."""

import os
import shutil

import sentencepiece
from transformers import BatchEncoding, PreTrainedTokenizer

SPECIAL = ["[MASK]", "[gMASK]", "[sMASK]", "sop", "eop"]
SPECIAL += ["<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"]


class ChatGLMTokenizer(PreTrainedTokenizer):
    vocab_files_names = {"vocab_file": "tokenizer.model"}  # noqa: RUF012

    def __init__(self, vocab_file, **kwargs):
        self.vocab_file = vocab_file
        self.pieces = sentencepiece.SentencePieceProcessor(model_file=vocab_file)
        self.special = {text: self.pieces.get_piece_size() + i for i, text in enumerate(SPECIAL)}
        kwargs.pop("eos_token", None)
        super().__init__(eos_token="</s>", unk_token="<unk>", **kwargs)

    @property
    def vocab_size(self):
        return self.pieces.get_piece_size() + len(SPECIAL)

    def get_vocab(self):
        pieces = {self.pieces.id_to_piece(i): i for i in range(self.pieces.get_piece_size())}
        return {**pieces, **self.special}

    def _tokenize(self, text, **kwargs):
        return self.pieces.encode(text, out_type=str)

    def _convert_token_to_id(self, token):
        return self.special.get(token, self.pieces.piece_to_id(token))

    def _convert_id_to_token(self, index):
        return self.pieces.id_to_piece(index)

    def save_vocabulary(self, save_directory, filename_prefix=None):
        return (shutil.copy(self.vocab_file, os.path.join(save_directory, "tokenizer.model")),)

    def build_chat_input(self, query, history=None, role="user"):
        ids = [self.special["[gMASK]"], self.special["sop"]]
        for message in [*(history or []), {"role": role, "content": query}]:
            ids += [self.special[f"<|{message['role']}|>"]]
            ids += self.pieces.encode(f"{message.get('metadata', '')}\n")
            ids += self.pieces.encode(message["content"])
        return BatchEncoding(
            {"input_ids": [[*ids, self.special["<|assistant|>"]]]}, tensor_type="pt"
        )
