"""The model of the figures: it predicts a byte from the sixteen before it."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import torch
from torch import Tensor, nn

CONTEXT = 16


class ByteModel(nn.Module):
    """Embeddings of a fixed size, two layers that grow, and a readout."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.embed = nn.Embedding(256, 16)
        self.first = nn.Linear(16 * CONTEXT, width)
        self.second = nn.Linear(width, width)
        self.readout = nn.Linear(width, 256)

    def forward(self, text: Tensor) -> Tensor:
        x = self.embed(text).flatten(1)
        x = torch.relu(self.first(x))
        x = torch.relu(self.second(x))
        logits: Tensor = self.readout(x)
        return logits


def example_inputs(batch: int = 2) -> tuple[Tensor]:
    return (torch.zeros(batch, CONTEXT, dtype=torch.long),)


def standard_library(megabytes: float = 4.0) -> Tensor:
    """The sources of Python's standard library as bytes, one file after the other."""
    folder = Path(sysconfig.get_path("stdlib"))
    sources = b"".join(path.read_bytes() for path in sorted(folder.glob("*.py")))
    return torch.frombuffer(bytearray(sources[: int(megabytes * 1e6)]), dtype=torch.uint8).long()


def sample(text: Tensor, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random windows, (batch, CONTEXT), and the byte that follows each."""
    starts = torch.randint(len(text) - CONTEXT, (batch, 1), generator=generator)
    windows = text[starts + torch.arange(CONTEXT + 1)]
    return windows[:, :-1], windows[:, -1]
