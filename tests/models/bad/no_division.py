"""Heads that do not divide the width at target."""

import torch
from torch import Tensor, nn


class Net(nn.Module):
    def __init__(self, width: int = 16, heads: int = 4) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"{heads} heads do not divide {width}")
        self.up = nn.Linear(4, width)
        self.out = nn.Linear(width, heads)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.up(x))


def example_inputs(batch: int = 2) -> Tensor:
    return torch.zeros(batch, 4)


base = {"width": 16, "heads": 4}
target = {"width": 65, "heads": 8}
