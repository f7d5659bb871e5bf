"""A parameter in an operation that has no rule."""

import torch
from torch import Tensor, nn


class Net(nn.Module):
    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.up = nn.Linear(4, width)
        self.centres = nn.Parameter(torch.randn(5, width))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.up(x))
        return torch.cdist(h, self.centres)


def example_inputs(batch: int = 2) -> Tensor:
    return torch.zeros(batch, 4)


base = {"width": 16}
target = {"width": 64}
