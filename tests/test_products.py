"""Parameters multiplied with each other before an activation meets them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mufx
from mufx.program import Program
from mufx.source import from_callable


class LowRank(nn.Module):
    """A hidden layer whose weight is `up @ down`, formed before it is used, maybe twice."""

    def __init__(self, width: int, rank: int, residual: bool, then: str) -> None:
        super().__init__()
        self.first = nn.Linear(20, width)
        self.down = nn.Parameter(torch.randn(rank, width) * width**-0.5)
        self.up = nn.Parameter(torch.randn(width, rank) * rank**-0.5)
        self.full = nn.Parameter(torch.randn(width, width) * width**-0.5)
        self.residual, self.then = residual, then

    def forward(self, x: Tensor) -> Tensor:
        weight = self.up @ self.down
        if self.residual:
            weight = weight + self.full
        x = F.linear(self.first(x).relu(), weight)
        if self.then == "again":
            return F.linear(x.relu(), weight)
        return F.linear(x.relu(), weight.T) if self.then == "back" else x


def converted(rank: tuple[int, int], residual: bool = False, then: str = "") -> Program:
    source = from_callable(
        lambda width, rank: LowRank(width, rank, residual, then),
        (torch.randn(2, 20),),
        {"width": 64, "rank": rank[0]},
        {"width": 256, "rank": rank[1]},
    )
    return mufx.run(mufx.trace(source))


def roles(program: Program) -> dict[str, tuple[str, float, float]]:
    return {n: (str(la.role), la.m_in, la.m_out) for n, la in program.labels.items()}


@pytest.mark.parametrize("then", ["", "again"])
def test_a_fixed_rank_makes_a_readout_and_an_input(then: str) -> None:
    found = roles(converted((8, 8), then=then))
    assert found["down"] == ("output", 4.0, 1.0)
    assert found["up"] == ("input", 1.0, 4.0)


@pytest.mark.parametrize("then", ["", "again"])
def test_a_growing_rank_makes_two_hidden_weights(then: str) -> None:
    found = roles(converted((8, 16), then=then))
    assert found["down"] == ("hidden", 4.0, 2.0)
    assert found["up"] == ("hidden", 2.0, 4.0)


@pytest.mark.parametrize(("residual", "then"), [(True, ""), (False, "back")])
def test_a_product_added_to_a_weight_or_turned_is_refused_where_it_is_used(
    residual: bool, then: str
) -> None:
    with pytest.raises(mufx.MufxError) as caught:
        converted((8, 8), residual, then)

    (problem,) = caught.value.diagnostics
    assert problem.code == "MUF202"
    assert problem.hint == "contract the parameters themselves, one after the other"
    assert problem.place is not None
    line = Path(problem.place.file).read_text(encoding="utf-8").splitlines()[problem.place.line - 1]
    assert "F.linear(x.relu(), weight.T)" in line if then else "F.linear(self.first(x)" in line
