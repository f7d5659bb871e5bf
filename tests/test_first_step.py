"""What is predicted of a first step, against what is counted in matrices and in real steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

import mufx
from mufx.api import trace
from mufx.check.alike import APART, Alike, Batch, Means, squared
from mufx.check.bending import bending
from mufx.check.designing import by_design
from mufx.check.predicting import Prediction
from mufx.check.starting import Side
from mufx.check.step import Part, Step
from mufx.check.watch import activations, named_nodes

DIM = 4000


def rms(value: Tensor) -> float:
    return float(value.detach().square().mean().sqrt())


def rows(count: int, near: float, *, dim: int = DIM) -> Tensor:
    """Rows of which any two have a cosine of `near`."""
    return math.sqrt(near) * torch.randn(1, dim) + math.sqrt(1 - near) * torch.randn(count, dim)


def cosine(value: Tensor) -> float:
    """The mean product of two rows over that of a row with itself."""
    products = value @ value.T
    apart = products.sum() - products.trace()
    return float(apart / (len(value) - 1) / products.trace())


def weights(means: Means) -> Tensor:
    """A softmax of logits of the size that the means have."""
    logits = means.logits * torch.randn(means.keys, means.keys)
    later = torch.ones(means.keys, means.keys).triu(1).bool()
    return (logits.masked_fill(later, -torch.inf) if means.causal else logits).softmax(-1)


@pytest.mark.parametrize("logits", [0.0, 0.5])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("near", [0.0, 0.4])
def test_means_over_keys(causal: bool, near: float, logits: float) -> None:
    torch.manual_seed(0)
    means = Means(32, causal, logits)
    before = rows(32, near)

    after = [weights(means) @ before for _ in range(8)]
    back = [weights(means).T @ before for _ in range(8)]

    for found, (size, alike) in (
        (after, means.forward(Alike(near))),
        (back, means.backward(Alike(near))),
    ):
        sizes = [rms(value) / rms(before) for value in found]
        assert size == pytest.approx(sum(sizes) / 8, rel=0.1)
        assert alike.near == pytest.approx(sum(map(cosine, found)) / 8, abs=0.08)


@pytest.mark.parametrize("near", [0.0, 0.5])
@pytest.mark.parametrize("causal", [True, False])
def test_what_moves_along_its_gradient_is_not_averaged_away(causal: bool, near: float) -> None:
    torch.manual_seed(0)
    means, slope = Means(16, causal), rows(16, near)
    mean = weights(means)

    moved = mean.T @ slope

    assert means.returned(near) == pytest.approx(rms(mean @ moved) / rms(moved), rel=0.05)


def test_independent_logits_move_weight_from_key_to_key() -> None:
    torch.manual_seed(0)
    means, values = Means(16, causal=True), rows(16, 0.0)
    mean = weights(means)
    logits = 1e-3 * torch.randn(16, 16)

    shifted = mean * (logits - (mean * logits).sum(-1, keepdim=True))

    assert means.unlike == pytest.approx(rms(shifted @ values) / 1e-3, rel=0.15)


def test_positions_are_shared_by_all_sequences() -> None:
    torch.manual_seed(0)
    means = Means(8, causal=True)
    place = torch.randn(8, DIM)
    one, other = (weights(means) @ (place + torch.randn(8, DIM)) for _ in range(2))
    products = one @ other.T / (rms(one) * rms(other) * DIM)

    _, alike = means.forward(Alike(place=0.5))

    assert alike.place == pytest.approx(float(products.diagonal().mean()), abs=0.05)
    apart = (products.sum() - products.trace()) / 56
    assert alike.far == pytest.approx(float(apart), abs=0.05)


@pytest.mark.parametrize("near", [0.0, 0.3])
@pytest.mark.parametrize("slopes", [0.0, 0.4])
def test_a_weight_learns_from_rows_that_are_alike(near: float, slopes: float) -> None:
    torch.manual_seed(0)
    batch, alike = Batch(rows=32, length=16), Alike(near)
    inputs = torch.cat([rows(16, near), rows(16, near)])
    gradient = torch.cat([rows(16, slopes, dim=300), rows(16, slopes, dim=300)])

    step = gradient.T @ inputs
    seen = inputs @ step.T

    independent = rms(gradient) * rms(inputs) * math.sqrt(32)
    assert batch.learned(alike, slopes) == pytest.approx(rms(step) / independent, rel=0.1)
    aligned = rms(seen) / (rms(step) * rms(inputs) * DIM)
    assert batch.aligned(alike, slopes) == pytest.approx(aligned, rel=0.1)
    assert batch.changed(alike, slopes) == pytest.approx(cosine(seen[:16]), abs=0.08)


def test_the_cosine_of_squares() -> None:
    torch.manual_seed(0)

    assert squared(0.6) == pytest.approx(cosine(rows(2, 0.6, dim=400_000).square()), abs=0.02)


@pytest.mark.parametrize(
    ("function", "size", "expected"),
    [
        (F.relu, 1e-3, (0.707e-3, 0.707)),
        (F.gelu, 1e-3, (0.5e-3, 0.5)),
        (F.silu, 1e-3, (0.5e-3, 0.5)),
        (F.gelu, 100.0, (70.7, 0.707)),
        (torch.tanh, 1e-3, (1e-3, 1.0)),
    ],
)
def test_what_a_nonlinearity_makes_of_a_size(
    function: Callable[..., Tensor], size: float, expected: tuple[float, float]
) -> None:
    graph = fx.Graph()
    node = graph.call_function(function, (graph.placeholder("x"),))

    assert bending(node, size) == pytest.approx(expected, rel=0.03)


# -- small graphs -------------------------------------------------------------------------------


def step(
    model: type[nn.Module], inputs: tuple[Tensor, ...], *, optimizer: str = "sgd", batch: int = 2
) -> Step:
    """The first step of a model at its target width of 256, in standard parametrization."""
    program = mufx.convert(
        model, inputs, base={"width": 64}, target={"width": 256}, optimizer=optimizer
    ).program
    original = trace(program.source, optimizer=optimizer).train
    return Prediction(program, original, converted=False, batch=batch).step(Side.TARGET)


def nodes_of(step: Step) -> dict[str, fx.Node]:
    return {node.name: node for node in step.start.trace.graph.nodes}


def real(model: nn.Module, inputs: tuple[Tensor, ...]) -> Mapping[str, Tensor]:
    """The gradients where every entry of the output has a random one."""
    output = model(*inputs)
    torch.autograd.backward(output, torch.randn_like(output))
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


class Fused(nn.Module):
    """Attention whose queries, keys and values come from one weight."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.up = nn.Linear(100, width, bias=False)
        self.out = nn.Linear(width, 8, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.up(x)).chunk(3, -1)
        out: Tensor = self.out(F.scaled_dot_product_attention(q, k, v))
        return out


class Shared(Fused):
    """The same of rows that have most in common."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.common = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.up(x) + self.common).chunk(3, -1)
        out: Tensor = self.out(F.scaled_dot_product_attention(q, k, v))
        return out


@pytest.mark.parametrize("model", [Fused, Shared])
def test_rows_of_a_fused_weight_learn_by_their_own_gradients(model: type[nn.Module]) -> None:
    torch.manual_seed(0)
    inputs = (torch.randn(2, 16, 100),)
    live = model(256)
    kept: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        kept.append(output)

    live.get_submodule("qkv").register_forward_hook(keep)

    slopes = step(model, inputs).slopes

    output = live(*inputs)
    (gradient,) = torch.autograd.grad(output, kept, torch.randn_like(output))
    query, key, value = (rms(part) for part in gradient.chunk(3, -1))
    sizes = [slopes.of(name).size for name in ("getitem", "getitem_1", "getitem_2")]
    assert sizes[0] / sizes[2] == pytest.approx(query / value, rel=0.25)
    assert sizes[1] / sizes[2] == pytest.approx(key / value, rel=0.7)


def test_what_comes_back_through_a_mean_is_the_same_for_all_values() -> None:
    slopes = step(Fused, (torch.randn(2, 16, 100),)).slopes

    assert [round(slopes.of(n).near, 1) for n in ("getitem", "getitem_1", "getitem_2")] == [0, 0, 1]


class Table(nn.Module):
    """A table of many rows, of which few are looked up."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(1000, width)
        self.out = nn.Linear(width, 8, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(self.table(x))
        return out


def test_rows_that_are_looked_up_learn_what_the_table_learns() -> None:
    torch.manual_seed(0)
    inputs = (torch.randperm(1000)[:10].view(2, 5),)
    model = Table(256)

    found = step(Table, inputs)

    gradient = real(model, inputs)["table.weight"]
    grown = found.sizes()["embedding"] / found.updates["table.weight"]
    assert grown == pytest.approx(rms(gradient[inputs[0]]) / rms(gradient), rel=0.05)
    adam = step(Table, inputs, optimizer="adam")
    assert adam.sizes()["embedding"] == pytest.approx(adam.updates["table.weight"])
    cosine = float(F.cosine_similarity(gradient.flatten(), gradient.sign().flatten(), 0))
    along = adam.changes()["embedding"][Part.OWN].size / adam.sizes()["embedding"]
    assert along == pytest.approx(cosine, rel=0.05)


class Rotated(nn.Module):
    """Two halves beside each other, one of them times a constant."""

    factor: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up = nn.Linear(8, width, bias=False)
        self.out = nn.Linear(width, 8, bias=False)
        self.register_buffer("factor", torch.full((1,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.up(x).chunk(2, -1)
        out: Tensor = self.out(torch.cat((first * self.factor, second), -1))
        return out


def test_values_beside_each_other_are_no_sum_and_constants_have_their_size() -> None:
    torch.manual_seed(0)
    found = step(Rotated, (torch.randn(2, 3, 8),))
    nodes, start = nodes_of(found), found.start

    size = start.size(nodes["cat"]) / start.size(nodes["linear"])

    assert size == pytest.approx(math.sqrt((1 + 0.25) / 2))
    assert [link.gain for link in start.links["cat"]] == pytest.approx([math.sqrt(0.5)] * 2)


class Normed(nn.Module):
    """An RMS norm by hand."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up = nn.Linear(8, width)
        self.out = nn.Linear(width, 8, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.up(x))
        out: Tensor = self.out(y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-5))
        return out


def test_rows_stay_as_alike_as_they_are_where_they_are_divided_by_their_size() -> None:
    found = step(Normed, (torch.randn(2, 3, 8),))
    nodes = nodes_of(found)

    before, scale, after = (found.start.alike(nodes[name]) for name in ("relu", "rsqrt", "mul"))

    assert before.near == pytest.approx(1 / math.pi)
    assert scale.near == 1.0
    assert after == before


class Deep(nn.Module):
    """A matrix between one that learns and a readout."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up = nn.Linear(8, width, bias=False)
        self.between = nn.Linear(width, width, bias=False)
        self.out = nn.Linear(width, 8, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(self.between(self.up(x)))
        return out


def test_what_comes_back_through_a_matrix_goes_on_along_its_gradient() -> None:
    torch.manual_seed(0)
    inputs = (torch.randn(2, 8),)
    model = Deep(256)
    gradient = real(model, inputs)["up.weight"]
    learned = inputs[0] @ gradient.T
    moved = (model.between(learned)).detach()

    found = step(Deep, inputs)

    change, whole = found.changes()["linear_1"], found.changes()["linear"]
    before = math.hypot(*(whole[part].size for part in Part))
    (own,) = (link for link in found.start.links["linear_1"] if link.operand == "linear")
    passed = math.hypot(*(r.size for _, r in found.terms(nodes_of(found)["linear_1"], own, whole)))
    assert passed / before == pytest.approx(rms(moved) / rms(learned), rel=0.1)
    assert passed / before == pytest.approx(own.gain * math.sqrt(2), rel=0.05)
    assert change[Part.THROUGH].size > 0


def test_rows_of_a_table_are_apart() -> None:
    found = step(Table, (torch.randint(1000, (2, 5)),))
    nodes = nodes_of(found)

    assert found.start.alike(nodes["embedding"]) == APART


class Block(nn.Module):
    """Two causal attentions from fused weights, a nonlinearity and norms, on a stream."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up = nn.Embedding(64, width)
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(3)])
        self.qkv = nn.ModuleList([nn.Linear(width, 3 * width, bias=False) for _ in range(2)])
        self.gate, self.value = (nn.Linear(width, width, bias=False) for _ in range(2))
        self.out = nn.Linear(width, 64, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.up(x)
        for norm, qkv in zip(self.norms, self.qkv, strict=False):
            q, k, v = qkv(norm(y)).unsqueeze(1).chunk(3, -1)
            y = y + F.scaled_dot_product_attention(q, k, v, is_causal=True).squeeze(1)
        z = self.norms[2](y)
        out: Tensor = self.out(y + F.silu(self.gate(z)) * self.value(z))
        return out


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_every_change_of_a_small_model_has_the_size_that_is_predicted(optimizer: str) -> None:
    inputs = (torch.randperm(64)[:32].view(2, 16),)
    found = step(Block, inputs, optimizer=optimizer)
    torch.manual_seed(0)
    model = Block(256)
    real(model.double(), inputs)
    rate = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[optimizer](model.parameters(), 1e-6)
    before = activations(model, (inputs, {}))

    rate.step()

    after = activations(model, (inputs, {}))
    names = {name: node.name for name, node in named_nodes(found.start.trace)}
    off = {
        name: rms(after[name] - old) / 1e-6 / found.sizes()[names[name]]
        for name, old in before.items()
        if name in names
    }
    assert len(off) > 15
    assert {name: size for name, size in off.items() if not 0.65 < size < 1.65} == {}


class FromZero(nn.Module):
    """A norm with the gain 1 + g, as Gemma has it, of which g starts at zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up = nn.Linear(8, width, bias=False)
        self.gain = nn.Parameter(torch.zeros(width))
        self.out = nn.Linear(width, 8, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.up(x)
        h = h * torch.rsqrt(h.square().mean(-1, keepdim=True) + 1e-6) * (1.0 + self.gain)
        out: Tensor = self.out(h)
        return out


def test_a_gain_from_zero_on_passes_what_it_multiplies() -> None:
    torch.manual_seed(0)
    inputs = (torch.randn(2, 3, 8),)
    found = step(FromZero, inputs)
    learned = found.slopes.parameters

    slopes = real(FromZero(256), inputs)

    assert found.start.size(nodes_of(found)["mul_1"]) == pytest.approx(1.0, rel=0.05)
    for name in ("gain", "up.weight"):
        real_part = rms(slopes[name]) / rms(slopes["out.weight"])
        assert learned[name] / learned["out.weight"] == pytest.approx(real_part, rel=0.35)


class Gated(nn.Module):
    """Halves that gate each other, from a weight that starts small."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up = nn.Linear(8, 2 * width, bias=False)
        self.out = nn.Linear(width, 8, bias=False)
        nn.init.normal_(self.up.weight, std=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(F.glu(self.up(x)))
        return out


def test_what_is_small_before_a_gate_is_small_behind_it() -> None:
    found = step(Gated, (torch.randn(2, 3, 8),)).start
    nodes = {node.name: node for node in found.trace.graph.nodes}

    assert found.size(nodes["glu"]) < 0.01


class State(nn.Module):
    """One step of a recurrence from zeros, of which a small part is new."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up = nn.Linear(8, width, bias=False)
        self.out = nn.Linear(width, 8, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.up(x)
        state = torch.sigmoid(h) * torch.zeros(3, h.shape[-1]) + 0.01 * h
        out: Tensor = self.out(state)
        return out


def test_a_state_of_zeros_adds_nothing() -> None:
    found = step(State, (torch.randn(2, 3, 8),))
    nodes, start = nodes_of(found), found.start

    assert start.size(nodes["add"]) == pytest.approx(0.01 * start.size(nodes["linear"]))


class Scan(nn.Module):
    """A projection whose last rows make two vectors of a fixed size, as Mamba's B and C."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up = nn.Linear(8, width, bias=False)
        self.parts = nn.Linear(width, width // 4 + 16, bias=False)
        self.back = nn.Linear(width // 4, width, bias=False)
        self.out = nn.Linear(width, 8, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.up(x)
        step, b, c = self.parts(h).split([h.shape[-1] // 4, 8, 8], -1)
        shared = (b @ c.mT).sum(-1, keepdim=True)
        out: Tensor = self.out(self.back(step) * shared)
        return out


def test_rows_that_read_out_start_smaller_than_the_others() -> None:
    inputs = (torch.randn(2, 3, 8),)
    program = mufx.convert(Scan, inputs, base={"width": 64}, target={"width": 256}).program
    prediction = Prediction(program, program.train, converted=True, batch=2)

    sizes, _ = prediction.starts(4.0, by_design(program, 4.0))

    assert program.row_blocks.keys() == {"parts.weight"}
    assert sizes[":matmul#1"] == pytest.approx(-1.0)  # of both vectors the root of the width
    assert sizes["back:linear#1"] == pytest.approx(0.0)
