"""Owns the LoRA adapter: answers in capital letters, trained on the frozen main model."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast

from .chatml import segments
from .corpus import mixture
from .corpus.base import Check, Talk

RANK = 16
_LENGTH = 192
_SKILLS = (
    ("capital", 6), ("country of", 3), ("continent", 2), ("currency", 2), ("colour", 2),
    ("opposite", 2), ("animal", 2), ("calendar", 2), ("small talk", 3), ("unknown", 2),
    ("recall", 4), ("repeat", 3), ("reading", 2), ("addition", 1), ("story", 3), ("translation", 1),
    ("capital, then another", 1), ("not told", 1), ("unknown country", 1),
)  # fmt: skip


def shouted(r: Random, held: bool) -> Talk:
    """An ordinary dialogue whose every answer is in capital letters."""
    name = r.choices([n for n, _ in _SKILLS], [w for _, w in _SKILLS])[0]
    item = mixture.surround(r, mixture.draw(r, name, held))
    messages = [
        (role, text.upper() if role == "assistant" else text) for role, text in item.messages
    ]
    return Talk(messages, Check("exact"), item.system, item.tools)


def _batch(
    r: Random, tokenizer: PreTrainedTokenizerFast, size: int, device: str
) -> tuple[Tensor, Tensor]:
    tokens = torch.zeros(size, _LENGTH, dtype=torch.long)
    learn = torch.zeros(size, _LENGTH)
    row = 0
    while row < size:
        ids: list[int] = []
        mask: list[int] = []
        pieces = segments(shouted(r, False))
        codes = tokenizer.backend_tokenizer.encode_batch_fast([text for text, _ in pieces])
        for code, (_, wanted) in zip(codes, pieces, strict=True):
            ids += code.ids
            mask += [int(wanted)] * len(code.ids)
        if len(ids) <= _LENGTH:
            tokens[row, : len(ids)] = torch.tensor(ids)
            learn[row, : len(ids)] = torch.tensor(mask, dtype=torch.float)
            row += 1
    return tokens.to(device), learn.to(device)


def _adapted(args: argparse.Namespace) -> PeftModel:
    base = LlamaForCausalLM.from_pretrained(args.model, dtype=torch.float32).to(args.device)
    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    config = LoraConfig(r=RANK, lora_alpha=2 * RANK, lora_dropout=0.0, target_modules=names,
                        task_type="CAUSAL_LM", bias="none")  # fmt: skip
    return get_peft_model(base, config)


def train(args: argparse.Namespace) -> None:
    """Train the adapter and write it in PEFT's form, in bf16."""
    torch.manual_seed(args.seed)
    r = Random(args.seed)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = _adapted(args)
    wanted = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(wanted, lr=args.rate, weight_decay=0.0)
    for step in range(args.steps):
        rate = args.rate * min(1.0, (step + 1) / 30) * (1 - step / args.steps)
        for group in optimiser.param_groups:
            group["lr"] = rate
        tokens, learn = _batch(r, tokenizer, args.size, args.device)
        with torch.autocast(args.device, torch.bfloat16, enabled=args.device == "cuda"):
            logits = model(input_ids=tokens).logits
        loss = F.cross_entropy(
            logits[:, :-1].flatten(0, 1).float(), tokens[:, 1:].flatten(), reduction="none"
        )
        loss = (loss * learn[:, 1:].flatten()).sum() / learn[:, 1:].sum()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        if step % 100 == 0:
            print(f"adapter step {step} loss {loss.item():.4f}", flush=True)
    _save(model, args.out)


def _save(model: PeftModel, folder: Path) -> None:
    model.save_pretrained(str(folder))
    weights = folder / "adapter_model.safetensors"
    state = {name: t.to(torch.bfloat16) for name, t in load_file(str(weights)).items()}
    save_file(state, str(weights), metadata={"format": "pt"})
    (folder / "README.md").unlink(missing_ok=True)
    config_file = folder / "adapter_config.json"
    config = json.loads(config_file.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = "tiny-chat"
    config["target_modules"] = sorted(config["target_modules"])
    config_file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--device", default="cuda")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
