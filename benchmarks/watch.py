"""What a training step of the GPT costs while its activations are recorded, beside a plain one.

python benchmarks/watch.py

A step is forward, backward and AdamW. The recording one takes the mean size of every activation of
that forward pass, attention logits included, and of its change since the first step.
`mufx check` itself records twice in a run, before the first step and after the last.

The two take turns, as in step.py. The bound holds at the example's target width and the length
that it trains on: the exit status is 1 if the confidence interval of the ratio there lies above it.
At base width, or on an eighth of the tokens, a step takes a few milliseconds, of which Python needs
as many to follow its hundred calls; that is printed beside it.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import torch
from step import BATCH, CONFIGS, HEADER, ROUNDS, Ratio, example, ratio, turns
from torch import Tensor, nn

from mufx.check.training import distance, size
from mufx.check.watch import watched

BOUND = 1.3
TRAINED = 128
"""Tokens a sequence, as in examples/train.py."""
TOKENS = (16, TRAINED)


@dataclass
class Training:
    """A model with its optimizer, and what it learns by heart."""

    model: nn.Module
    batch: tuple[Tensor, Tensor]

    def __post_init__(self) -> None:
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3)
        self.first: dict[str, Tensor] = {}
        self.sizes: dict[str, tuple[float, float]] = {}

    def step(self) -> None:
        self.optimizer.zero_grad()
        torch.autograd.backward(self.model(*self.batch)[1])
        self.optimizer.step()

    def recorded(self) -> None:
        self.optimizer.zero_grad()
        with watched(self.model, self.see):
            loss = self.model(*self.batch)[1]
        torch.autograd.backward(loss)
        self.optimizer.step()

    def see(self, name: str, value: Tensor) -> None:
        first = self.first.setdefault(name, value)
        self.sizes[name] = size(value), distance(value, first)


def training(knobs: dict[str, int], tokens: int) -> Training:
    module = example("gpt")
    torch.manual_seed(0)
    text = torch.randint(0, 256, (BATCH, tokens + 1))
    model = module.GPT(getattr(module, CONFIGS["gpt"])(**knobs))
    return Training(model, (text[:, :-1].contiguous(), text[:, 1:].contiguous()))


def compare(knobs: dict[str, int], tokens: int) -> Ratio:
    pairs = [(training(knobs, tokens), training(knobs, tokens)) for _ in range(ROUNDS)]
    return ratio([turn for one, other in pairs for turn in turns(one.recorded, other.step)])


def main() -> int:
    print(f"a training step of the GPT with recording beside a plain one, at most {BOUND}x\n")
    print(f"{'width':>6} {'tokens':>10} {HEADER}")
    held = True
    module = example("gpt")
    for knobs in (module.base, module.target):
        for tokens in TOKENS:
            found = compare(knobs, tokens)
            bound = knobs is module.target and tokens == TRAINED
            verdict = "" if not bound else "ok" if found.holds(BOUND) else "MISSED"
            size = f"{knobs['n_embd']:6} {BATCH:4} x {tokens:3}"
            print(f"{size} {found} {verdict}", flush=True)
            held = held and (not bound or found.holds(BOUND))
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
