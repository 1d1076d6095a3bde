"""Owns training: the main model and its draft, from generated text to float32 weights."""

from __future__ import annotations

import argparse
import math
import os
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .dataset import OTHER_WEIGHT, Rows, Writers, batches
from .export import save_model
from .model import DRAFT, MAIN, Mask, Shape, TinyLlama, block_mask, dense_mask

_WARMUP = 150


def schedule(step: int, steps: int) -> float:
    """The share of the peak learning rate: a short rise, then a cosine down to nothing."""
    if step < _WARMUP:
        return (step + 1) / _WARMUP
    done = (step - _WARMUP) / max(1, steps - _WARMUP)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def to_device(rows: Rows, device: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Tokens, positions, targets and the weight of each target."""
    tokens = torch.from_numpy(rows.tokens.astype(np.int64))
    places = torch.from_numpy(rows.places.astype(np.int64))
    weights = torch.from_numpy(rows.learn.astype(np.float32)).clamp_(min=OTHER_WEIGHT)
    targets, weights = torch.roll(tokens, -1, 1), torch.roll(weights, -1, 1)
    # The first token of a document is not predictable, and padding has position 0 throughout.
    weights = weights.masked_fill(torch.roll(places, -1, 1) == 0, 0.0)
    moved = (t.to(device, non_blocking=True) for t in (tokens, places, targets, weights))
    return tuple(moved)  # type: ignore[return-value]


class Trainer:
    """One model with its optimiser."""

    def __init__(self, shape: Shape, args: argparse.Namespace, peak: float) -> None:
        torch.manual_seed(args.seed)
        self.model = TinyLlama(shape).to(args.device)
        self.peak, self.steps = peak, args.steps
        wide = [p for p in self.model.parameters() if p.dim() == 2]
        thin = [p for p in self.model.parameters() if p.dim() != 2]
        groups = [{"params": wide, "weight_decay": 0.05}, {"params": thin, "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(
            groups, lr=peak, betas=(0.9, 0.98), eps=1e-9, fused=args.device == "cuda"
        )
        self.run = torch.compile(self.model) if args.compile else self.model
        self.device = args.device

    def step(self, number: int, batch: tuple[Tensor, Tensor, Tensor, Tensor], mask: Mask) -> Tensor:
        """Learn from one batch."""
        tokens, places, targets, weights = batch
        for group in self.optimiser.param_groups:
            group["lr"] = self.peak * schedule(number, self.steps)
        with torch.autocast(self.device, torch.bfloat16, enabled=self.device == "cuda"):
            loss = self.run(tokens, places, targets, weights, mask)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return loss.detach()


def train(args: argparse.Namespace) -> None:
    """Train both models on the same batches and write their weights."""
    torch.set_float32_matmul_precision("high")
    writers = Writers(args.tokenizer, args.shards_dir, args.seed, args.shards, args.workers)
    main, draft = Trainer(MAIN, args, args.rate), Trainer(DRAFT, args, args.rate * 2)
    make_mask = dense_mask if args.dense else block_mask
    start = time.time()
    for number, rows in enumerate(batches(writers.rows(), args.rows)):
        if number == args.steps:
            break
        batch = to_device(rows, args.device)
        mask = make_mask(batch[1])
        losses = main.step(number, batch, mask), draft.step(number, batch, mask)
        if number % args.report == 0:
            shown = " ".join(f"{x.item():.4f}" for x in losses)
            print(f"step {number} loss {shown} {time.time() - start:.0f}s", flush=True)
    writers.close()
    print(f"trained {args.steps} steps in {time.time() - start:.0f}s", flush=True)
    for trainer, name in ((main, "tiny-chat"), (draft, "tiny-draft")):
        save_model(trainer.model, args.out / name, args.tokenizer.parent)


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", type=Path, required=True, help="tokenizer.json")
    parser.add_argument("--out", type=Path, required=True, help="folder for the models")
    parser.add_argument("--shards-dir", type=Path, required=True, help="folder for the text")
    parser.add_argument("--shards", type=int, default=400)
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 2))
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--rows", type=int, default=64, help="rows of 2048 tokens in a batch")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--report", type=int, default=100)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dense", action="store_true", help="no flex attention")
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
