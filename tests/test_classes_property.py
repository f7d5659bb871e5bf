"""Classes of random residual models: only what is done to axes counts, never their sizes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mufx.classes import find_identities
from mufx.classes.growing import growth
from mufx.classes.naming import best, pieces, written


@dataclass(frozen=True)
class Branch:
    """A branch off the stream: two layers, gated or with heads."""

    kind: str
    inner: int
    heads: int


class Model(nn.Module):
    """A stream of some width with branches, between an input and an output."""

    def __init__(self, ins: int, width: int, outs: int, branches: list[Branch]) -> None:
        super().__init__()
        self.branches = branches
        self.first = nn.Linear(ins, width)
        rows = [b.inner * b.heads * (2 if b.kind == "gated" else 1) for b in branches]
        self.up = nn.ModuleList(nn.Linear(width, n) for n in rows)
        self.down = nn.ModuleList(nn.Linear(b.inner * b.heads, width) for b in branches)
        self.last = nn.Linear(width, outs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for branch, up, down in zip(self.branches, self.up, self.down, strict=True):
            x = x + down(self._inside(branch, up(x)))
        out: Tensor = self.last(x)
        return out

    def _inside(self, branch: Branch, y: Tensor) -> Tensor:
        if branch.kind == "gated":
            gate, value = y.chunk(2, dim=-1)
            return F.silu(gate) * value
        if branch.kind == "heads":
            parts = y.view(*y.shape[:-1], branch.heads, branch.inner)
            return F.normalize(parts, dim=-1).flatten(-2)
        return F.relu(y)


SIZES = st.sampled_from([2, 4, 8])  # few, so that they coincide
BRANCHES = st.lists(
    st.builds(Branch, st.sampled_from(["plain", "gated", "heads"]), SIZES, SIZES),
    min_size=1,
    max_size=3,
)


def expected(branches: list[Branch]) -> dict[str, str]:
    """What every axis of every weight is made of, from the code above."""
    made = {"first.weight:0": "first.weight:0", "first.weight:1": "first.weight:1"}
    made |= {"last.weight:0": "last.weight:0", "last.weight:1": "first.weight:0"}
    for i, branch in enumerate(branches):
        up, down = f"up.{i}.weight:0", f"down.{i}.weight:1"
        inner = {"plain": up, "heads": f"({up}.0 * {up}.1)", "gated": up}[branch.kind]
        made |= {up: inner, down: inner, f"up.{i}.weight:1": "first.weight:0"}
        made[f"down.{i}.weight:0"] = "first.weight:0"
    return made


def found(model: Model, ins: int, batch: int) -> dict[str, str]:
    identities = find_identities(model, ((torch.zeros(batch, ins),), {}))
    shown = best(identities.space, pieces(identities))
    names = {atom: piece.name for atom, piece in shown.items()}
    return {
        f"{name}:{axis}": written(identities.space, var, names)
        for name, axes in identities.parameters.items()
        if name.endswith("weight")
        for axis, var in enumerate(axes)
    }


@settings(max_examples=30, deadline=None)
@given(SIZES, SIZES, SIZES, SIZES, BRANCHES)
def test_classes_do_not_depend_on_sizes(
    batch: int, ins: int, width: int, outs: int, branches: list[Branch]
) -> None:
    model = Model(ins, width, outs, branches)
    assert found(model, ins, batch) == expected(branches)


@settings(max_examples=20, deadline=None)
@given(SIZES, SIZES, BRANCHES, st.data())
def test_one_class_grows_alone(
    ins: int, width: int, branches: list[Branch], data: st.DataObject
) -> None:
    model = Model(ins, width, ins, branches)
    identities = find_identities(model, ((torch.zeros(width, ins),), {}))
    shown = best(identities.space, pieces(identities))
    chosen = data.draw(st.sampled_from(sorted(p.name for p in shown.values())))
    grown = growth(identities, {chosen: 2})
    atom = next(a for a, p in shown.items() if p.name == chosen)
    for name, axes in identities.parameters.items():
        for axis, var in zip(grown.row(axes), axes, strict=True):
            whole = model.get_parameter(name).shape
            assert axis.target in whole
            assert axis.grows == (atom in set(identities.space.atoms(var)))
            assert axis.base == axis.target // (2 if axis.grows else 1)
