"""A stand-in's result looks like that of the function it stands for, computed for real."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mufx.forward import record_forward
from mufx.stand_ins import grouped_mm

OFFS = torch.tensor([4, 16, 32], dtype=torch.int32)  # three groups of rows, columns or products
ROWS, WIDE = (32, 16), (16, 32)


@pytest.mark.parametrize(
    ("a", "b"),
    [(ROWS, (3, 16, 8)), ((3, 8, 16), WIDE), ((3, 8, 16), (3, 16, 8)), (WIDE, ROWS)],
    ids=str,
)
def test_grouped_mm(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    offs = None if len(a) == len(b) == 3 else OFFS
    operands = torch.randn(a, requires_grad=True), torch.randn(b)
    real = F.grouped_mm(*operands, offs=offs)
    ours = grouped_mm(*operands, offs=offs)
    assert (ours.shape, ours.dtype, ours.requires_grad) == (
        real.shape,
        real.dtype,
        real.requires_grad,
    )


class Experts(nn.Module):
    """Tokens, sorted by expert, each times its expert's matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 16, 8))
        self.register_buffer("offs", OFFS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.grouped_mm(x, self.weight, offs=self.get_buffer("offs"))


def test_a_float32_product_is_recorded_as_the_call_it_is() -> None:
    recording = record_forward(Experts(), ((torch.randn(32, 16),), {}), training=True)
    (call,) = [n for n in recording.graph.nodes if n.op == "call_function"]
    assert call.target is torch._VF._grouped_mm
    value = recording.values[call.name]
    assert value is not None
    assert value.shape == (32, 8)
