"""An axis of which only a part grows is named, never scaled in silence."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import mufx
from mufx.source import from_callable


class Conditioned(nn.Module):
    """A hidden layer that sees its input beside 16 features of fixed size."""

    def __init__(self, width: int, condition: int) -> None:
        super().__init__()
        self.first = nn.Linear(20, width)
        self.second = nn.Linear(width + condition, width)
        self.last = nn.Linear(width, 10)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        hidden = self.first(x).relu()
        logits: Tensor = self.last(self.second(torch.cat([hidden, condition], -1)).relu())
        return logits


def codes(condition: int) -> list[str]:
    source = from_callable(
        lambda width: Conditioned(width, condition),
        (torch.randn(2, 20), torch.randn(2, condition)),
        {"width": 64},
        {"width": 256},
    )
    return [d.code for d in mufx.run(mufx.trace(source)).diagnostics]


def test_a_part_of_fixed_size_beside_one_that_grows_is_a_warning() -> None:
    assert codes(condition=16) == ["MUF206"]


def test_what_rounding_adds_is_not() -> None:
    assert codes(condition=1) == []


class Sliced(nn.Module):
    """Three of a layer's outputs are the model's."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(20, width)
        self.second = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(self.first(x).relu())[..., :3]
        return out


def test_a_fixed_slice_of_what_grows_is_a_warning() -> None:
    source = from_callable(Sliced, (torch.randn(2, 20),), {"width": 64}, {"width": 256})
    (found,) = mufx.run(mufx.trace(source)).diagnostics
    assert (found.code, found.message.partition(",")[0]) == ("MUF206", "3 of 64")
    assert found.place is not None
    assert found.place.file == __file__
