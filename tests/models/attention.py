"""A small transformer in standard parametrization: every pass has something to do on it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Attention(nn.Module):
    """Attention by hand: the scale is a literal."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = (
            part.view(batch, length, self.heads, -1).transpose(1, 2)
            for part in self.qkv(x).chunk(3, dim=-1)
        )
        scores = q @ k.transpose(-2, -1) / math.sqrt(width // self.heads)
        return self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, length, width))


class Model(nn.Module):
    """One block between a tied embedding and its readout."""

    def __init__(self, width: int = 32, heads: int = 2) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, width)
        self.scale = math.sqrt(width)
        self.norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.final = nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens) * self.scale
        x = x + self.attention(self.norm(x))
        return self.final(x) @ self.embedding.weight.T


def example_inputs(batch: int = 2) -> tuple[Tensor]:
    return (torch.zeros(batch, 7, dtype=torch.long),)


base = {"width": 32, "heads": 2}
target = {"width": 128, "heads": 4}
