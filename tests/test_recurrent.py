"""Recurrent layers of torch: their fake kernels unroll the steps, and would fix their number."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import mufx

SIZES = {"width": 8}


class Read(nn.Module):
    def __init__(self, width: int, make: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.layer = make(width)
        self.norm = nn.LayerNorm(3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        output, state = self.layer(self.norm(x))
        return output, state[0] if isinstance(state, tuple) else state


LAYERS: dict[str, Callable[[int], nn.Module]] = {
    "lstm": lambda width: nn.LSTM(3, width, batch_first=True),
    "lstm, two ways, projected": lambda width: nn.LSTM(
        3, width, 2, batch_first=True, bidirectional=True, proj_size=width // 2
    ),
    "gru, without biases": lambda width: nn.GRU(3, width, bias=False, batch_first=True),
    "gru, two ways": lambda width: nn.GRU(3, width, 2, batch_first=True, bidirectional=True),
    "tanh": lambda width: nn.RNN(3, width, batch_first=True),
    "relu, two ways": lambda width: nn.RNN(
        3, width, nonlinearity="relu", batch_first=True, bidirectional=True
    ),
}


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_the_number_of_steps_stays_free(make: Callable[[int], nn.Module]) -> None:
    def build(width: int) -> nn.Module:
        return Read(width, make)

    conversion = mufx.convert(build, (torch.randn(2, 5, 3),), SIZES, SIZES, vary=SIZES)

    assert conversion.program.diagnostics == ()
    torch.manual_seed(0)
    original, emitted, longer = build(**SIZES), conversion.module(seed=0), torch.randn(4, 9, 3)
    for found, wanted in zip(emitted(longer), original(longer), strict=True):
        assert torch.equal(found, wanted)
