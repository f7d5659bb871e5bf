"""A model that is another one when it is wide."""

import torch
from torch import Tensor, nn


class Net(nn.Module):
    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.width = width
        self.up = nn.Linear(4, width)
        self.down = nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        wide = self.width > 16
        h = torch.sigmoid(self.up(x)) if wide else torch.relu(self.up(x))
        return self.down(h)


def example_inputs(batch: int = 2) -> Tensor:
    return torch.zeros(batch, 4)


base = {"width": 16}
target = {"width": 64}
