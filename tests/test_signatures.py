"""Operands by name stand where those by position do."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mufx

by_name: list[Callable[[Tensor, Tensor], Tensor]] = [
    lambda x, w: torch.matmul(input=x, other=w),
    lambda x, w: x.matmul(other=w),
    lambda x, w: torch.mm(input=x, mat2=w),
    lambda x, w: F.linear(input=x, weight=w.T),
    lambda x, w: F.linear(x, bias=None, weight=w.T),
    lambda x, w: torch.zeros(()).addmm(mat1=x, mat2=w),
    lambda x, w: torch.addmm(input=torch.zeros(()), mat1=x, mat2=w),
    lambda x, w: torch.tensordot(dims=1, b=w, a=x),
]


class Net(nn.Module):
    def __init__(self, multiply: Callable[[Tensor, Tensor], Tensor], width: int) -> None:
        super().__init__()
        self.multiply = multiply
        self.up = nn.Linear(4, width)
        self.mid = nn.Parameter(torch.randn(width, width) / width**0.5)
        self.down = nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down(self.multiply(self.up(x).relu(), self.mid).relu())
        return out


@pytest.mark.parametrize("multiply", by_name)
def test_a_weight_given_by_name_is_hidden(multiply: Callable[[Tensor, Tensor], Tensor]) -> None:
    conversion = mufx.convert(
        lambda width: Net(multiply, width),
        (torch.randn(3, 4),),
        base={"width": 16},
        target={"width": 64},
    )

    mid = conversion.manifest.parameters["mid"]
    assert (mid.role, mid.lr_scale) == ("hidden", 0.25)
    assert not conversion.manifest.diagnostics


def test_optional_arguments_keep_their_names() -> None:
    class Kept(Net):
        def forward(self, x: Tensor) -> Tensor:
            x = self.up(x).relu()
            out: Tensor = self.down(x - x.mean(dim=0, keepdim=True))
            return out

    conversion = mufx.convert(
        lambda width: Kept(torch.matmul, width),
        (torch.randn(3, 4),),
        base={"width": 16},
        target={"width": 64},
    )

    assert "mean(dim=0, keepdim=True)" in conversion.text
