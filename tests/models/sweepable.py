"""A classifier whose batches are its own: the class is the largest input."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

base = {"width": 8}
target = {"width": 32}


class Classifier(nn.Module):
    def __init__(self, width: int = 8, gain: float = 1.0) -> None:
        super().__init__()
        self.gain = gain
        self.into = nn.Linear(4, width)
        self.hidden = nn.Linear(width, width)
        self.out = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.into(x))
        x = torch.relu(self.hidden(x))
        logits: Tensor = self.out(x) * self.gain
        return logits


def example_inputs(batch: int = 2) -> tuple[Tensor]:
    return (torch.randn(batch, 4),)


def data(batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        x = torch.randn(batch, 4)
        yield x, x.argmax(1)


def exploding(batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The third batch holds what no loss is finite on."""
    for step, (x, y) in enumerate(data(batch)):
        yield (x * float("inf") if step == 2 else x), y


def short(batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    for _, item in zip(range(3), data(batch), strict=False):
        yield item


def without_target(batch: int) -> Iterator[Tensor]:
    for x, _ in data(batch):
        yield x


def failing(batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    yield next(data(batch))
    raise ValueError("no more files")


def number(batch: int) -> int:
    return batch
