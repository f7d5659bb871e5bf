"""A plain classifier with two hidden layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

base = {"width": 64}
target = {"width": 1024}


class MLP(nn.Module):
    def __init__(self, width: int = 64, n_in: int = 32, n_classes: int = 10) -> None:
        super().__init__()
        self.fc1 = nn.Linear(n_in, width)
        self.fc2 = nn.Linear(width, width)
        self.out = nn.Linear(width, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.fc1(x))
        x = torch.relu(self.fc2(x))
        logits: Tensor = self.out(x)
        return logits


def example_inputs(batch: int = 2) -> tuple[Tensor]:
    return (torch.randn(batch, 32),)
