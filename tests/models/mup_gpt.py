"""A GPT in μP, written by hand in the form of Table 8, with its optimizer.

Every keyword of `GPT` and of `optimizer` that is not a size breaks one rule.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BASE = 32
base = {"width": 32, "heads": 2}
target = {"width": 128, "heads": 4}
BASE_HEAD = 16


class Block(nn.Module):
    """Attention and a feed-forward layer."""

    def __init__(self, width: int, heads: int, scale: float | None) -> None:
        super().__init__()
        self.heads, self.scale = heads, scale
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        parts = self.qkv(self.norm1(x)).split(width, dim=-1)
        q, k, v = (p.view(batch, length, self.heads, -1).transpose(1, 2) for p in parts)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=self.scale)
        x = x + self.out(y.transpose(1, 2).reshape(batch, length, width))
        out: Tensor = x + self.down(F.gelu(self.up(self.norm2(x))))
        return out


class GPT(nn.Module):
    """Equal blocks, an untied or a tied readout."""

    def __init__(
        self,
        width: int = 32,
        heads: int = 2,
        depth: int = 2,
        tied: bool = False,
        attention: float = -1.0,
        constant: float = math.sqrt(BASE_HEAD),
        readout: float = -1.0,
        embedding_std: float = 0.0,
    ) -> None:
        super().__init__()
        m = width / BASE
        self.multiplier = m**readout
        self.token = nn.Embedding(64, width)
        self.position = nn.Embedding(16, width)
        scale = constant * (width // heads) ** attention
        self.blocks = nn.ModuleList(Block(width, heads, scale) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 64, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear) and module is not self.head:
                nn.init.normal_(module.weight, std=0.02 / math.sqrt(m))
                nn.init.zeros_(module.bias)
        if tied:
            self.head.weight = self.token.weight
        with torch.no_grad():
            self.token.weight.mul_(m**embedding_std)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.token(tokens) + self.position(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x)) * self.multiplier
        return logits


def hidden(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    for name, parameter in model.named_parameters():
        if name.startswith("blocks") and parameter.ndim == 2:
            yield name, parameter


def groups(
    model: GPT, lr: float = 1e-3, decay: float = 0.1, compensated: bool = True, power: float = 1.0
) -> list[dict[str, Any]]:
    m = model.norm.weight.shape[0] / BASE
    matrices = [p for _, p in hidden(model)]
    chosen = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in chosen]
    return [
        {
            "params": matrices,
            "lr": lr / m**power,
            "weight_decay": decay * (m if compensated else 1),
        },
        {"params": others, "lr": lr, "weight_decay": decay},
    ]


def optimizer(model: GPT) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups(model))


def plain(model: GPT) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), weight_decay=0.0)


def example_inputs(batch: int = 2) -> tuple[Tensor]:
    return (torch.zeros(batch, 8, dtype=torch.long),)
