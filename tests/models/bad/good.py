"""A model that converts."""

import torch
from torch import Tensor, nn

base = {"width": 16}
target = {"width": 64}


class Net(nn.Module):
    def __init__(self, width: int = 16, p: int = 1) -> None:
        super().__init__()
        self.p = p
        self.up = nn.Linear(4, width)
        self.down = nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(torch.relu(self.up(x)) * self.p)


def example_inputs(batch: int = 2) -> Tensor:
    return torch.zeros(batch, 4)
