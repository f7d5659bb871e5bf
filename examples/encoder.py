"""A masked-token model around the stock nn.TransformerEncoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

base = {"d_model": 64, "nhead": 4, "dim_feedforward": 128}
target = {"d_model": 256, "nhead": 8, "dim_feedforward": 640}

VOCABULARY = 256
LENGTH = 64


class Encoder(nn.Module):
    def __init__(
        self,
        d_model: int = 64,
        nhead: int = 4,
        dim_feedforward: int = 128,
        num_layers: int = 2,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, d_model)
        self.positions = nn.Parameter(0.02 * torch.randn(LENGTH, d_model))
        layer = nn.TransformerEncoderLayer(
            d_model,
            nhead,
            dim_feedforward,
            dropout,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.encoder = nn.TransformerEncoder(
            layer, num_layers, norm=nn.LayerNorm(d_model), enable_nested_tensor=False
        )
        self.head = nn.Linear(d_model, VOCABULARY)
        nn.init.normal_(self.tokens.weight, std=0.02)

    def forward(self, idx: Tensor) -> Tensor:
        x = self.tokens(idx) + self.positions[: idx.shape[1]]
        logits: Tensor = self.head(self.encoder(x))
        return logits


def example_inputs(batch: int = 2) -> tuple[Tensor]:
    return (torch.randint(0, VOCABULARY, (batch, 16)),)
