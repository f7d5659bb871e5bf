"""Factors that are moved from one parameter into another: every rule is an identity."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mufx.absorption.equations import Absorption, Missing, Scale
from mufx.absorption.operations import PASSED_ON
from mufx.absorption.walk import Scaling
from mufx.align import align
from mufx.forward import record_forward

Body = Callable[..., Any]


def order() -> Tensor:
    return torch.arange(4).flip(0)


def diagonal() -> Tensor:
    return torch.eye(4) > 0


class Model(nn.Module):
    """A function of parameters, times a gain that may undo a factor on them."""

    def __init__(self, body: Body, *shapes: tuple[int, ...]) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.operands = nn.ParameterList(
            torch.rand(shape, generator=generator) + 0.5 for shape in shapes
        )
        self.gain = nn.Parameter(torch.ones(()))
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        del x
        out: Any = self.body(*self.operands)
        return (out if isinstance(out, Tensor) else out[0]) * self.gain


def rescaled(model: Model) -> dict[str, float]:
    """Factors on all parameters that solve the equations; what they leave free gets 4 or 16."""
    names = [name for name, _ in model.named_parameters()]
    recording = record_forward(model, ((torch.zeros(1),), {}), training=True, free_sizes=False)
    system = Absorption({}, names)
    trace = align(recording, recording, recording, training=True)
    Scaling(trace, system, PASSED_ON, frozenset(names), {}, {}).run()
    free = {name: 4.0 ** (1 + i % 2) for i, name in enumerate(names)}
    found: dict[str, float] = {}
    for name in names:
        found[name] = 1.0
        for term, exponent in system.reduced({name: Fraction(1)}).items():
            assert isinstance(term, str)
            found[name] *= free[term] ** float(exponent)
    return found


FOUR = (4, 4)
ONE: dict[str, Body] = {
    "view": lambda x: x.view(2, 8),
    "reshape": lambda x: x.reshape(2, 8),
    "flatten": lambda x: x.flatten(),
    "unflatten": lambda x: x.unflatten(0, (2, 2)),
    "squeeze": lambda x: x.squeeze(0),
    "unsqueeze": lambda x: x.unsqueeze(0),
    "transpose": lambda x: x.transpose(0, 1),
    "swapaxes": lambda x: x.swapaxes(0, 1),
    "swapdims": lambda x: x.swapdims(0, 1),
    "movedim": lambda x: x.movedim(0, 1),
    "moveaxis": lambda x: x.moveaxis(0, 1),
    "permute": lambda x: x.permute(1, 0),
    "t": lambda x: x.t(),
    "adjoint": lambda x: x.adjoint(),
    "contiguous": lambda x: x.contiguous(),
    "clone": lambda x: x.clone(),
    "detach": lambda x: x.detach(),
    "view_as": lambda x: x.view_as(x),
    "view_as_complex": lambda x: torch.view_as_real(torch.view_as_complex(x.view(4, 2, 2))),
    "view_as_real": lambda x: torch.view_as_real(torch.view_as_complex(x.view(4, 2, 2))),
    "expand": lambda x: x.expand(2, 4, 4),
    "expand_as": lambda x: x.expand_as(torch.zeros(2, 4, 4)),
    "repeat": lambda x: x.repeat(2, 1),
    "repeat_interleave": lambda x: x.repeat_interleave(2, 0),
    "tile": lambda x: x.tile(2),
    "broadcast_to": lambda x: x.broadcast_to((2, 4, 4)),
    "narrow": lambda x: x.narrow(0, 0, 2),
    "select": lambda x: x.select(0, 1),
    "diagonal": lambda x: x.diagonal(),
    "tril": lambda x: x.tril(),
    "triu": lambda x: x.triu(),
    "roll": lambda x: x.roll(1),
    "flip": lambda x: x.flip(0),
    "fliplr": lambda x: x.fliplr(),
    "flipud": lambda x: x.flipud(),
    "rot90": lambda x: x.rot90(),
    "unfold": lambda x: x.unfold(0, 2, 1),
    "to": lambda x: x.to(torch.float64),
    "type": lambda x: x.type(torch.float64),
    "type_as": lambda x: x.type_as(torch.zeros(1)),
    "float": lambda x: x.float(),
    "double": lambda x: x.double(),
    "half": lambda x: x.half(),
    "bfloat16": lambda x: x.bfloat16(),
    "dropout": lambda x: F.dropout(x, 0.0),
    "dropout1d": lambda x: F.dropout1d(x, 0.0),
    "dropout2d": lambda x: F.dropout2d(x.view(1, 1, 4, 4), 0.0),
    "dropout3d": lambda x: F.dropout3d(x.view(1, 1, 1, 4, 4), 0.0),
    "split": lambda x: x.split(2),
    "chunk": lambda x: x.chunk(2),
    "unbind": lambda x: x.unbind(),
    "tensor_split": lambda x: x.tensor_split(2),
    "split_with_sizes": lambda x: x.split_with_sizes([1, 3]),
    "hsplit": lambda x: x.hsplit(2),
    "dsplit": lambda x: x.view(2, 2, 4).dsplit(2),
    "getitem": lambda x: x[1:],
    "index_select": lambda x: x.index_select(0, order()),
    "gather": lambda x: x.gather(0, order().expand(4, 4)),
    "take_along_dim": lambda x: x.take_along_dim(order().expand(4, 4), 0),
    "topk": lambda x: x.topk(2),
    "sort": lambda x: x.sort(),
    "sum": lambda x: x.sum(),
    "mean": lambda x: x.mean(-1),
    "cumsum": lambda x: x.cumsum(0),
    "amax": lambda x: x.amax(0),
    "amin": lambda x: x.amin(0),
    "max": lambda x: x.max(),
    "min": lambda x: x.min(),
    "neg": lambda x: -x,
    "positive": lambda x: torch.positive(x),
    "relu": lambda x: F.relu(x - x.mean()),
    "leaky_relu": lambda x: F.leaky_relu(x - x.mean()),
    "abs": lambda x: (x - x.mean()).abs(),
    "avg_pool1d": lambda x: F.avg_pool1d(x, 2),
    "avg_pool2d": lambda x: F.avg_pool2d(x.view(1, 1, 4, 4), 2),
    "avg_pool3d": lambda x: F.avg_pool3d(x.view(1, 1, 2, 2, 4), 2),
    "adaptive_avg_pool1d": lambda x: F.adaptive_avg_pool1d(x, 2),
    "adaptive_avg_pool2d": lambda x: F.adaptive_avg_pool2d(x.view(1, 1, 4, 4), 2),
    "adaptive_avg_pool3d": lambda x: F.adaptive_avg_pool3d(x.view(1, 1, 2, 2, 4), 1),
    "max_pool1d": lambda x: F.max_pool1d(x, 2),
    "max_pool2d": lambda x: F.max_pool2d(x.view(1, 1, 4, 4), 2),
    "max_pool3d": lambda x: F.max_pool3d(x.view(1, 1, 2, 2, 4), 2),
    "adaptive_max_pool1d": lambda x: F.adaptive_max_pool1d(x, 2),
    "adaptive_max_pool2d": lambda x: F.adaptive_max_pool2d(x.view(1, 1, 4, 4), 2),
    "adaptive_max_pool3d": lambda x: F.adaptive_max_pool3d(x.view(1, 1, 2, 2, 4), 1),
    "pixel_shuffle": lambda x: F.pixel_shuffle(x.view(1, 4, 2, 2), 2),
    "pixel_unshuffle": lambda x: F.pixel_unshuffle(x.view(1, 1, 4, 4), 2),
    "channel_shuffle": lambda x: F.channel_shuffle(x.view(1, 4, 2, 2), 2),
    "masked_fill": lambda x: x.masked_fill(diagonal(), 0.0),
    "index_fill": lambda x: x.index_fill(0, order()[:1], 0.0),
    "where": lambda x: torch.where(diagonal(), x, 0.0),
    "pow": lambda x: x**3,
    "square": lambda x: x.square(),
    "sqrt": lambda x: x.sqrt(),
    "rsqrt": lambda x: x.rsqrt(),
    "reciprocal": lambda x: x.reciprocal(),
    "pad": lambda x: F.pad(x, (1, 1)),
    "embedding": lambda x: F.embedding(order(), x),
    "layer_norm": lambda x: F.layer_norm(torch.eye(4), (4,), x[0], x[1]),
    "group_norm": lambda x: F.group_norm(torch.eye(4), 2, x[0], x[1]),
    "rms_norm": lambda x: F.rms_norm(torch.eye(4), (4,), x[0]),
    "_weight_norm": lambda x: torch._VF._weight_norm(torch.eye(4), x[0, :, None]),
    "batch_norm": lambda x: F.batch_norm(torch.eye(4), None, None, x[0], x[1], training=True),
}
TWO: dict[str, Body] = {
    "mul": lambda x, y: x * y,
    "div": lambda x, y: x / y,
    "matmul": lambda x, y: x @ y,
    "mm": lambda x, y: x.mm(y),
    "mv": lambda x, y: x.mv(y[0]),
    "dot": lambda x, y: x[0].dot(y[0]),
    "outer": lambda x, y: x[0].outer(y[0]),
    "ger": lambda x, y: x[0].ger(y[0]),
    "bmm": lambda x, y: x[None].bmm(y[None]),
    "tensordot": lambda x, y: torch.tensordot(x, y, dims=1),
    "einsum": lambda x, y: torch.einsum("ij,kj,ij->ik", x, y, x),
    "_grouped_mm": lambda x, y: torch._VF._grouped_mm(x[None], y[None]),
    "grouped_mm": lambda x, y: F.grouped_mm(x[None], y[None]),
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "rsub": lambda x, y: torch.rsub(x, y),
    "maximum": lambda x, y: torch.maximum(x, y),
    "minimum": lambda x, y: torch.minimum(x, y),
    "index_copy": lambda x, y: x.index_copy(0, order(), y),
    "index_add": lambda x, y: x.index_add(0, order(), y),
    "copy": lambda x, y: x.clone().copy_(y),
    "cat": lambda x, y: torch.cat([x, y]),
    "concat": lambda x, y: torch.concat([x, y]),
    "concatenate": lambda x, y: torch.concatenate([x, y]),
    "stack": lambda x, y: torch.stack([x, y]),
    "hstack": lambda x, y: torch.hstack([x, y]),
    "vstack": lambda x, y: torch.vstack([x, y]),
    "dstack": lambda x, y: torch.dstack([x, y]),
}
THREE: dict[str, Body] = {
    "linear": lambda x, w, b: F.linear(x, w, b[0]),
    "conv1d": lambda x, w, b: F.conv1d(x, w[..., None], b[0]),
    "conv2d": lambda x, w, b: F.conv2d(x[..., None], w[..., None, None], b[0]),
    "conv3d": lambda x, w, b: F.conv3d(x[..., None, None], w[..., None, None, None], b[0]),
    "conv_transpose1d": lambda x, w, b: F.conv_transpose1d(x, w[..., None], b[0]),
    "conv_transpose2d": lambda x, w, b: F.conv_transpose2d(x[..., None], w[..., None, None], b[0]),
    "conv_transpose3d": lambda x, w, b: F.conv_transpose3d(
        x[..., None, None], w[..., None, None, None], b[0]
    ),
    "addmm": lambda x, w, b: torch.addmm(b, x, w, beta=2, alpha=3),
    "addmv": lambda x, w, b: torch.addmv(b[0], x, w[0]),
    "addbmm": lambda x, w, b: torch.addbmm(b, x[None], w[None]),
    "baddbmm": lambda x, w, b: torch.baddbmm(b[None], x[None], w[None]),
    "scaled_dot_product_attention": lambda q, k, v: F.scaled_dot_product_attention(
        q[None, None], k[None, None], v[None, None]
    ),
}
BODIES = {
    name: (body, count)
    for count, bodies in enumerate((ONE, TWO, THREE), start=1)
    for name, body in bodies.items()
}


def test_every_rule_has_an_example() -> None:
    assert BODIES.keys() == PASSED_ON.keys()


@pytest.mark.parametrize("name", BODIES)
def test_factors_that_solve_the_equations_change_nothing(name: str) -> None:
    body, count = BODIES[name]
    model = Model(body, *[FOUR] * count)
    before = model(torch.zeros(1))
    factors = rescaled(model)
    assert factors["operands.0"] != 1.0
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            parameter.mul_(factors[key])
    torch.testing.assert_close(model(torch.zeros(1)), before)


@pytest.mark.parametrize(
    "body",
    [
        torch.tanh,
        lambda x: x + 1.0,
        lambda x: x.masked_fill(diagonal(), -1e4),
        lambda x: torch.where(diagonal(), x, 1.0),
        lambda x: F.pad(x, (1, 1), value=1.0),
        lambda x: F.layer_norm(x, (4,)),
        lambda x: x // 2.0,
        lambda x: torch.div(x, 2.0, rounding_mode="floor"),
        lambda x: torch.cat([x, torch.ones(4, 4)]),
        lambda x: x ** order(),
    ],
)
def test_what_is_not_homogeneous_gets_no_factor(body: Body) -> None:
    assert rescaled(Model(body, FOUR)) == {"operands.0": 1.0, "gain": 1.0}


def test_a_value_in_shared_memory_keeps_its_factor() -> None:
    def written_over(x: Tensor, y: Tensor) -> Tensor:
        whole = x * 1.0
        whole[:2].mul_(y[:2])
        return whole

    assert rescaled(Model(written_over, FOUR, FOUR))["operands.1"] == 1.0


# -- the equations ------------------------------------------------------------------------------

SCALE = Missing("attention", training=True)


def unit(*names: str) -> Scale:
    return {name: Fraction(1) for name in names}


def test_what_comes_first_takes_the_factor() -> None:
    system = Absorption({SCALE: 0.25}, ["q", "k"])
    system.demand(unit("q", "k"), {SCALE: Fraction(1)}, "attention", True)
    assert system.solution() == {"q": 0.25}


def test_a_later_demand_moves_the_factor_on() -> None:
    system = Absorption({SCALE: 0.25}, ["q", "k"])
    system.demand(unit("q", "k"), {SCALE: Fraction(1)}, "attention", True)
    system.demand(unit("q"), {}, "norm", True)
    assert system.solution() == {"k": 0.25}
    assert not system.conflicts


def test_a_shared_weight_takes_the_root() -> None:
    system = Absorption({SCALE: 0.25}, ["qkv", "out"])
    system.demand({"qkv": Fraction(2)}, {SCALE: Fraction(1)}, "attention", True)
    system.demand(unit("qkv", "out"), {}, "residual", True)
    assert system.solution() == {"qkv": 0.5, "out": 2.0}


def test_a_demand_that_cannot_be_met_is_a_conflict() -> None:
    system = Absorption({SCALE: 0.25}, ["q"])
    system.demand(unit("q"), {}, "norm", True)
    system.demand(unit("q"), {SCALE: Fraction(1)}, "attention", True)
    (conflict,) = system.conflicts
    assert (conflict.node, conflict.missing) == ("attention", (SCALE,))
