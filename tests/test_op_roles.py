"""The roles that operations give to their weights, at widths whose factors are all unequal."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mufx
from mufx.diagnostics import MufxError
from mufx.program import Program
from mufx.source import from_callable

# What comes in has d features and what goes out e; f is another width, and all grow unalike.
BASE, TARGET = {"d": 16, "e": 32, "f": 8}, {"d": 64, "e": 64, "f": 48}
D, E, G = 4.0, 2.0, 6.0
HIDDEN = {"w": ("hidden", D, E)}

Parts = Callable[[int, int, int], Mapping[str, nn.Module | nn.Parameter]]


@dataclass(frozen=True, eq=False)
class Case:
    """An operation between a layer that makes d features and one that takes e.

    Attributes:
        parts: From d, e and f the modules and parameters of the operation.
        body: From the model and (batch, 5, d) features what a Linear(e, 3) takes.
        expected: By parameter: role, m_in, m_out.
    """

    name: str
    parts: Parts
    body: Callable[[Any, Tensor], Tensor]
    expected: Mapping[str, tuple[str, float, float]] = field(default_factory=dict)


class Model(nn.Module):
    """The case's operation between an embedding and a readout."""

    def __init__(self, case: Case, d: int, e: int, f: int) -> None:
        super().__init__()
        self.d, self.e, self.f = d, e, f
        self.tokens = nn.Embedding(11, d)
        self.other = nn.Embedding(11, f)
        self.register_buffer("ends", torch.tensor([2, 5, 10], dtype=torch.int32))
        for name, part in case.parts(d, e, f).items():
            setattr(self, name, part)
        self.head = nn.Linear(e, 3)
        self.body = case.body

    def forward(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(self, self.tokens(tokens)))
        return out


def parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape) * 0.02)


def weight(**shapes: Callable[[int, int, int], tuple[int, ...]]) -> Parts:
    """Parameters of the shapes that d, e and f give."""

    def parts(d: int, e: int, f: int) -> Mapping[str, nn.Parameter]:
        return {name: parameter(*shape(d, e, f)) for name, shape in shapes.items()}

    return parts


def taps(x: Tensor, axes: int) -> Tensor:
    """(batch, 5, d) as the channels-first input of a convolution over `axes` axes."""
    return x.mT[(...,) + (None,) * (axes - 1)]


def flat(x: Tensor) -> Tensor:
    """(batch, channels, *axes) as (batch, positions, channels)."""
    return x.flatten(2).mT


def cell(m: Any, x: Tensor) -> Tensor:
    """A recurrent cell over two steps."""
    state = m.cell(x[:, 0])
    state = m.cell(x[:, 1], state)
    out: Tensor = state[0] if isinstance(state, tuple) else state
    return out


def gates(name: str) -> dict[str, tuple[str, float, float]]:
    return {
        f"{name}.weight_ih": ("hidden", D, E),
        f"{name}.weight_hh": ("hidden", E, E),
        f"{name}.bias_ih": ("input", 1, E),
        f"{name}.bias_hh": ("input", 1, E),
    }


def overwritten(parameter: Tensor, index: Any, content: Any = 0) -> Tensor:
    """A copy with other entries."""
    copy = parameter.clone()
    copy[index] = content
    return copy


def two_layers(nonlinearity: str) -> Case:
    lower = {f"{name}_l0": kind for name, kind in gates("rnn").items()}
    upper = {f"{name}_l1": kind for name, kind in gates("rnn").items()}
    return Case(
        f"RNN with {nonlinearity}, two layers",
        lambda d, e, f: {"rnn": nn.RNN(d, e, 2, nonlinearity, batch_first=True)},
        lambda m, x: m.rnn(x)[0],
        {**lower, **upper, "rnn.weight_ih_l1": ("hidden", E, E)},
    )


def of_cell(cls: Callable[[int, int], nn.Module], name: str) -> Case:
    return Case(name, lambda d, e, f: {"cell": cls(d, e)}, cell, gates("cell"))


def experts(call: Callable[..., Tensor], name: str) -> Case:
    return Case(
        f"{name} of three experts",
        weight(w=lambda d, e, f: (3, d, e)),
        lambda m, x: call(x.flatten(0, 1), m.w, offs=m.ends),
        HIDDEN,
    )


def transposed(call: Callable[..., Tensor], axes: int) -> Case:
    return Case(
        f"conv_transpose{axes}d",
        weight(w=lambda d, e, f: (d, e) + (2,) * axes, b=lambda d, e, f: (e,)),
        lambda m, x: flat(call(taps(x, axes), m.w, m.b)),
        {**HIDDEN, "b": ("input", 1, E)},
    )


def bag(mode: str) -> Case:
    return Case(
        f"embedding_bag, {mode}",
        weight(table=lambda d, e, f: (11, e)),
        lambda m, x: F.embedding_bag(torch.zeros(2, 5, dtype=torch.long), m.table, mode=mode),
        {"table": ("input", 1, E)},
    )


RECURRENT = (
    two_layers("tanh"),
    two_layers("relu"),
    Case(
        "RNN in both directions",
        lambda d, e, f: {"rnn": nn.RNN(d, e // 2, bidirectional=True, batch_first=True)},
        lambda m, x: m.rnn(x)[0],
        {
            "rnn.weight_ih_l0": ("hidden", D, E),
            "rnn.weight_ih_l0_reverse": ("hidden", D, E),
            "rnn.weight_hh_l0_reverse": ("hidden", E, E),
        },
    ),
    Case(
        "LSTM with a projection",
        lambda d, e, f: {"rnn": nn.LSTM(d, 8 * f, proj_size=e, batch_first=True)},
        lambda m, x: m.rnn(x)[0],
        {
            "rnn.weight_ih_l0": ("hidden", D, G),
            "rnn.weight_hh_l0": ("hidden", E, G),
            "rnn.weight_hr_l0": ("hidden", G, E),
        },
    ),
    of_cell(nn.RNNCell, "RNNCell"),
    of_cell(partial(nn.RNNCell, nonlinearity="relu"), "RNNCell with relu"),
    of_cell(nn.GRUCell, "GRUCell"),
    of_cell(nn.LSTMCell, "LSTMCell"),
    Case(
        "GRUCell from states that are learned",
        lambda d, e, f: {"cell": nn.GRUCell(d, e), "start": parameter(2, e)},
        lambda m, x: m.cell(x[:, 0], m.start),
        {**gates("cell"), "start": ("input", 1, E)},
    ),
    Case(
        "LSTMCell from states that are learned",
        lambda d, e, f: {"cell": nn.LSTMCell(d, e), "h": parameter(2, e), "c": parameter(2, e)},
        lambda m, x: m.cell(x[:, 0], (m.h, m.c))[0],
        {**gates("cell"), "h": ("input", 1, E), "c": ("input", 1, E)},
    ),
    Case(
        "GRU from states that are learned",
        lambda d, e, f: {"rnn": nn.GRU(d, e, batch_first=True), "start": parameter(1, 2, e)},
        lambda m, x: m.rnn(x, m.start)[0],
        {"rnn.weight_hh_l0": ("hidden", E, E), "start": ("input", 1, E)},
    ),
)

PRODUCTS = (
    Case(
        "addmm",
        weight(w=lambda d, e, f: (d, e), b=lambda d, e, f: (e,)),
        lambda m, x: torch.addmm(m.b, x.flatten(0, 1), m.w),
        {**HIDDEN, "b": ("input", 1, E)},
    ),
    Case(
        "baddbmm",
        weight(w=lambda d, e, f: (3, d, e), b=lambda d, e, f: (3, 1, e)),
        lambda m, x: torch.baddbmm(m.b, x[:1].expand(3, -1, -1), m.w),
        {**HIDDEN, "b": ("input", 1, E)},
    ),
    Case(
        "addmv",
        weight(w=lambda d, e, f: (e, d), b=lambda d, e, f: (e,)),
        lambda m, x: torch.addmv(m.b, m.w, x[0, 0]),
        {**HIDDEN, "b": ("input", 1, E)},
    ),
    experts(F.grouped_mm, "grouped_mm"),
    experts(torch._VF._grouped_mm, "_grouped_mm"),
    Case(
        "bilinear with one input that is fixed",
        weight(w=lambda d, e, f: (e, d, 3), b=lambda d, e, f: (e,)),
        lambda m, x: F.bilinear(x, torch.ones(*x.shape[:-1], 3), m.w, m.b),
        {**HIDDEN, "b": ("input", 1, E)},
    ),
    Case(
        "bilinear with the other input fixed",
        weight(w=lambda d, e, f: (e, 3, d)),
        lambda m, x: F.bilinear(torch.ones(*x.shape[:-1], 3), x, m.w),
        HIDDEN,
    ),
)

CONVOLUTIONS = (
    transposed(F.conv_transpose1d, 1),
    transposed(F.conv_transpose2d, 2),
    transposed(F.conv_transpose3d, 3),
    Case(
        "conv_transpose of a fixed number of groups",
        weight(w=lambda d, e, f: (d, e // 2, 2)),
        lambda m, x: flat(F.conv_transpose1d(taps(x, 1), m.w, groups=2)),
        HIDDEN,
    ),
    Case(
        "conv_transpose of more groups of a fixed size",
        # 8 and 32 groups of 2 channels in, 1 channel out.
        weight(w=lambda d, e, f: (d, 1, 2), mix=lambda d, e, f: (e, d // 2)),
        lambda m, x: F.linear(flat(F.conv_transpose1d(taps(x, 1), m.w, groups=m.d // 2)), m.mix),
        {"w": ("input", 1, D), "mix": ("hidden", D, E)},
    ),
)

LOOKUPS = (bag("sum"), bag("mean"), bag("max"))

ATTENTION = (
    Case(
        "MultiheadAttention with keys and values of other widths",
        # Heads of 8 features, of which there are more.
        lambda d, e, f: {
            "mha": nn.MultiheadAttention(d, d // 8, kdim=e, vdim=f, batch_first=True),
            "key": nn.Linear(d, e),
            "out": nn.Linear(d, e),
        },
        lambda m, x: m.out(
            m.mha(x, m.key(x), m.other(torch.zeros(2, 5, dtype=torch.long)), need_weights=False)[0]
        ),
        {
            "mha.q_proj_weight": ("hidden", D, D),
            "mha.k_proj_weight": ("hidden", E, D),
            "mha.v_proj_weight": ("hidden", G, D),
            "mha.in_proj_bias": ("input", 1, D),
            "mha.out_proj.weight": ("hidden", D, D),
            "mha.out_proj.bias": ("input", 1, D),
        },
    ),
)


def without_keys(bias: Tensor) -> Tensor:
    """A copy without its middle third, as in the attention of Swin V2."""
    copy, third = bias.clone(), bias.numel() // 3
    copy[third : 2 * third].zero_()
    return copy


def delta_rule(m: Any, x: Tensor) -> Tensor:
    """What each token changes of what the ones before it have written, as in DeltaNet."""
    keys = F.normalize(x, dim=-1)
    changed: Tensor = torch.linalg.solve_triangular(
        keys @ keys.mT, F.linear(x, m.w, m.b), upper=False, unitriangular=True
    )
    return changed


MADE = (
    Case(
        "as many equations as there are tokens, solved for features",
        weight(w=lambda d, e, f: (e, d), b=lambda d, e, f: (e,)),
        delta_rule,
        {**HIDDEN, "b": ("input", 1, E)},
    ),
    Case(
        "patches that are folded back, two over each place",
        weight(w=lambda d, e, f: (e, d // 2)),
        lambda m, x: F.linear(flat(F.fold(x.mT, (1, 6), (1, 2))), m.w),
        HIDDEN,
    ),
    Case(
        "a bias of which a copy has a part set to zero",
        weight(w=lambda d, e, f: (e, d), b=lambda d, e, f: (e,)),
        lambda m, x: F.linear(x, m.w, without_keys(m.b)),
        {**HIDDEN, "b": ("input", 1, E)},
    ),
    Case(
        "a weight without its first row and its last input, and a bias without four entries",
        weight(w=lambda d, e, f: (e, d), b=lambda d, e, f: (e,)),
        lambda m, x: F.linear(
            x,
            overwritten(overwritten(m.w, 0), (..., -1), torch.zeros(m.e)),
            overwritten(m.b, slice(4, 8)),
        ),
        {**HIDDEN, "b": ("input", 1, E)},
    ),
    Case(
        "a weight without a quarter of its inputs",
        weight(w=lambda d, e, f: (e, d)),
        lambda m, x: F.linear(x, overwritten(m.w, (slice(None), slice(m.d // 4)))),
        HIDDEN,
    ),
    Case(
        "two weights of a state space, summed over a state of fixed size",
        weight(a=lambda d, e, f: (d, 3), c=lambda d, e, f: (d, 3), mix=lambda d, e, f: (e, d)),
        lambda m, x: F.linear(
            x * torch.einsum("dn,dnt->td", m.c, torch.exp(m.a[..., None] * torch.arange(5))), m.mix
        ),
        {"a": ("input", 1, D), "c": ("input", 1, D), "mix": ("hidden", D, E)},
    ),
    Case(
        "complex numbers of two vectors",
        weight(re=lambda d, e, f: (d,), im=lambda d, e, f: (d,), mix=lambda d, e, f: (e, d)),
        lambda m, x: F.linear((x * torch.complex(m.re, m.im)).abs(), m.mix),
        {"re": ("input", 1, D), "im": ("input", 1, D), "mix": ("hidden", D, E)},
    ),
    Case(
        "complex numbers of a layer and a vector",
        weight(im=lambda d, e, f: (d,), mix=lambda d, e, f: (e, d)),
        lambda m, x: F.linear(torch.complex(x, m.im.expand_as(x)).abs(), m.mix),
        {"im": ("input", 1, D), "mix": ("hidden", D, E)},
    ),
    Case(
        "vectors that are spread along each other",
        weight(u=lambda d, e, f: (d, 1), v=lambda d, e, f: (1, e)),
        lambda m, x: (x[..., None] + (m.u + m.v)).mean(-2),
        {"u": ("input", 1, D), "v": ("input", 1, E)},
    ),
    Case(
        "a vector repeated as often as there are features",
        weight(v=lambda d, e, f: (e,)),
        lambda m, x: (x[..., None] + m.v.expand(m.d, -1)).mean(-2),
        {"v": ("input", 1, E)},
    ),
    Case(
        "angles",
        weight(angle=lambda d, e, f: (d,), mix=lambda d, e, f: (e, d)),
        lambda m, x: F.linear(torch.polar(x, m.angle.expand_as(x)).real, m.mix),
        {"angle": ("input", 1, D), "mix": ("hidden", D, E)},
    ),
)

CASES = (*RECURRENT, *PRODUCTS, *CONVOLUTIONS, *LOOKUPS, *ATTENTION, *MADE)


def converted(case: Case) -> Program:
    tokens = torch.zeros(2, 5, dtype=torch.long)
    source = from_callable(partial(Model, case), (tokens,), BASE, TARGET)
    return mufx.run(mufx.trace(source))


@pytest.mark.parametrize("case", [pytest.param(c, id=c.name) for c in CASES])
def test_an_operation_gives_its_weights_their_roles(case: Case) -> None:
    program = converted(case)

    found = {name: program.labels[name] for name in case.expected}
    assert {n: (str(x.role), x.m_in, x.m_out) for n, x in found.items()} == case.expected
    assert program.changes == ()


REFUSED = (
    Case(
        "a bilinear weight with two contracted axes that grow",
        weight(w=lambda d, e, f: (e, d, d)),
        lambda m, x: F.bilinear(x, x, m.w),
    ),
    Case(
        "a transposed convolution whose groups and whose channels per group both grow",
        weight(w=lambda d, e, f: (d, 2, 2), mix=lambda d, e, f: (e, e // 8)),
        lambda m, x: F.linear(flat(F.conv_transpose1d(taps(x, 1), m.w, groups=m.e // 16)), m.mix),
    ),
    Case(
        "a system of equations is solved of which there are more at target",
        weight(w=lambda d, e, f: (e, d)),
        lambda m, x: F.linear(torch.linalg.solve(x.mT @ x, x.mT).mT, m.w),
    ),
)


@pytest.mark.parametrize("case", [pytest.param(c, id=c.name) for c in REFUSED])
def test_two_axes_that_grow_at_once_are_refused_where_they_meet(case: Case) -> None:
    with pytest.raises(MufxError) as caught:
        converted(case)

    first = caught.value.diagnostics[0]
    assert case.name in first.message
    assert first.hint
    assert first.place is not None
    assert (first.place.file, first.place.line) == (
        __file__,
        inspect.getsourcelines(case.body)[1],
    )


WRITTEN = (
    Case(
        "numbers are written over entries of a parameter",
        weight(w=lambda d, e, f: (e, d)),
        lambda m, x: F.linear(x, overwritten(m.w, 0, 1.0)),
    ),
    Case(
        "what they leave of an axis that grows may not grow",
        weight(w=lambda d, e, f: (e, d)),
        lambda m, x: F.linear(x, overwritten(m.w, (slice(None), slice(4, None)))),
    ),
    Case(
        "what they leave of an axis that grows may not grow",
        weight(w=lambda d, e, f: (e, d)),
        lambda m, x: F.linear(x, overwritten(m.w, (..., torch.arange(m.d - 1)))),
    ),
)


@pytest.mark.parametrize("case", WRITTEN)
def test_what_is_written_over_a_weight_is_refused_where_it_may_be_none(case: Case) -> None:
    with pytest.raises(MufxError) as caught:
        converted(case)

    (found,) = caught.value.diagnostics
    assert (found.code, case.name in found.message) == ("MUF202", True)
    assert found.place is not None
    assert found.place.line == inspect.getsourcelines(overwritten)[1] + 3
