"""A file that says everything: the factory, the inputs and the sizes."""

import torch
from torch import nn

base = {"width": 64}
target = {"width": 256}


class MLP(nn.Module):
    def __init__(self, width: int, depth: int = 2, act: str = "relu"):
        super().__init__()
        self.into = nn.Linear(10, width)
        self.hidden = nn.ModuleList([nn.Linear(width, width) for _ in range(depth - 1)])
        self.out = nn.Linear(width, 3)
        self.act = getattr(torch, act)

    def forward(self, x):
        x = self.act(self.into(x))
        for layer in self.hidden:
            x = self.act(layer(x))
        return self.out(x)


def build(width: int = 64, depth: int = 2) -> nn.Module:
    return MLP(width, depth)


def example_inputs(batch=2):
    return torch.randn(batch, 10)
