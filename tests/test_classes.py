"""Axis classes of one instance: which axes are one, by what is done to them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mufx.classes import ClassTable, Identities, find_identities, table
from mufx.classes.axes import AxisSpace, Kind
from mufx.classes.naming import best, pieces, written


def classes(model: nn.Module, *inputs: Tensor) -> dict[str, str]:
    """Every axis of every parameter, written in names of classes."""
    identities = find_identities(model, (inputs, {}))
    names = _names(identities)
    return {
        f"{name}:{axis}": written(identities.space, var, names)
        for name, axes in identities.parameters.items()
        for axis, var in enumerate(axes)
    }


def _names(identities: Identities) -> dict[int, str]:
    found = best(identities.space, pieces(identities))
    return {atom: piece.name for atom, piece in found.items()}


def tokens(batch: int = 2, time: int = 8) -> Tensor:
    return torch.zeros(batch, time, dtype=torch.long)


# -- the space ----------------------------------------------------------------------------------


def test_products_align_where_the_factors_end() -> None:
    space = AxisSpace()
    whole = space.new(24)
    a = space.split(Kind.PRODUCT, whole, (2, 12))
    b = space.split(Kind.PRODUCT, whole, (6, 4))
    assert [space.size(v) for v in space.flat(Kind.PRODUCT, whole)] == [2, 3, 4]
    assert list(space.atoms(a[1])) == [*[*space.atoms(b[0])][1:], *space.atoms(b[1])]


def test_sums_align_where_the_segments_end() -> None:
    space = AxisSpace()
    whole = space.new(10)
    space.split(Kind.SUM, whole, (4, 6))
    space.split(Kind.SUM, whole, (7, 3))
    assert [space.size(v) for v in space.flat(Kind.SUM, whole)] == [4, 3, 3]


def test_a_sum_of_heads_is_heads_of_sums() -> None:
    space = AxisSpace()
    rows = space.new(96)
    heads, dim = space.split(Kind.PRODUCT, rows, (12, 8))
    query, key, value = space.split(Kind.SUM, rows, (64, 16, 16))
    assert [space.size(v) for v in space.flat(Kind.PRODUCT, rows)] == [12, 8]
    assert [space.size(v) for v in space.flat(Kind.SUM, heads)] == [8, 2, 2]
    assert [space.size(v) for v in space.flat(Kind.PRODUCT, query)] == [8, 8]
    inner = {space.root(space.flat(Kind.PRODUCT, v)[1]) for v in (query, key, value)}
    assert inner == {space.root(dim)}


def test_what_does_not_fit_is_kept_as_unsolved() -> None:
    space = AxisSpace()
    whole = space.new(24)
    space.split(Kind.PRODUCT, whole, (4, 6))
    space.split(Kind.PRODUCT, whole, (3, 8))
    assert len(space.unsolved) == 1


def test_axes_of_size_one_are_equal_to_nothing() -> None:
    space = AxisSpace()
    one, other = space.new(1), space.new(1)
    space.unify(one, other)
    assert space.root(one) != space.root(other)


# -- coincidences of size -----------------------------------------------------------------------


class Mlp(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.a = nn.Linear(size, size)
        self.b = nn.Linear(size, size)
        self.c = nn.Linear(size, size)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.a(x))
        out: Tensor = self.c(x + self.b(x))
        return out


def test_equal_sizes_are_not_equal_axes() -> None:
    found = classes(Mlp(4), torch.zeros(4, 4))
    assert found == {
        "a.weight:0": "a.weight:0",
        "a.weight:1": "a.weight:1",
        "a.bias:0": "a.weight:0",
        "b.weight:0": "a.weight:0",  # added to x
        "b.weight:1": "a.weight:0",
        "b.bias:0": "a.weight:0",
        "c.weight:0": "c.weight:0",
        "c.weight:1": "a.weight:0",
        "c.bias:0": "c.weight:0",
    }


class Attention(nn.Module):
    """Fused projection, grouped keys and values, repeated here or by the kernel."""

    def __init__(self, width: int, heads: int, groups: int, dim: int, kernel: bool) -> None:
        super().__init__()
        self.kernel = kernel
        self.sizes = [heads * dim, groups * dim, groups * dim]
        self.heads, self.groups, self.dim = heads, groups, dim
        self.qkv = nn.Linear(width, sum(self.sizes), bias=False)
        self.out = nn.Linear(heads * dim, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        q, k, v = self.qkv(x).split(self.sizes, dim=-1)
        q = q.view(b, t, self.heads, self.dim).transpose(1, 2)
        k, v = (y.view(b, t, self.groups, self.dim).transpose(1, 2) for y in (k, v))
        if not self.kernel:
            k, v = (y.repeat_interleave(self.heads // self.groups, dim=1) for y in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, enable_gqa=self.kernel)
        out: Tensor = self.out(y.transpose(1, 2).reshape(b, t, self.heads * self.dim))
        return out


@pytest.mark.parametrize("kernel", [False, True])
@pytest.mark.parametrize("sizes", [(32, 8, 2, 4), (8, 8, 2, 8), (16, 4, 2, 4)])
def test_fused_rows_have_segments_of_heads(sizes: tuple[int, int, int, int], kernel: bool) -> None:
    width, heads, _, dim = sizes
    found = classes(Attention(*sizes, kernel), torch.zeros(dim, heads, width))
    kv, repeats, value = (f"out.weight:1.{i}" for i in range(3))
    query = "qkv.weight:0.0.2"
    assert found == {
        "qkv.weight:0": f"(({kv} * {repeats} * {query}) + ({kv} * {query}) + ({kv} * {value}))",
        "qkv.weight:1": "qkv.weight:1",
        "out.weight:0": "out.weight:0",
        "out.weight:1": f"({kv} * {repeats} * {value})",
    }


class Tied(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(size, size)
        self.up = nn.Linear(size, size)
        self.down = nn.Linear(size, size)
        self.head = nn.Linear(size, size, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, idx: Tensor) -> Tensor:
        x = self.embed(idx)
        x = x + self.down(F.gelu(self.up(x)))
        out: Tensor = self.head(x)
        return out


def test_tied_weights_are_one_parameter() -> None:
    found = classes(Tied(8), tokens(8, 8))
    assert found["embed.weight:0"] == "embed.weight:0"
    assert found["up.weight:1"] == found["down.weight:0"] == "embed.weight:1"
    assert found["up.weight:0"] == found["down.weight:1"] == "up.weight:0"


class Conv(nn.Module):
    """A depthwise and a grouped convolution between two plain ones."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, channels, 3)
        self.depth = nn.Conv2d(channels, channels, 3, groups=channels)
        self.norm = nn.BatchNorm2d(channels)
        self.grouped = nn.Conv2d(channels, channels, 3, groups=2)
        self.head = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.grouped(self.norm(self.depth(self.stem(x))))
        out: Tensor = self.head(x.mean((2, 3)))
        return out


def test_channels_of_convolutions() -> None:
    found = classes(Conv(8), torch.zeros(8, 8, 8, 8))
    stem = "(stem.weight:0.0 * grouped.weight:1)"
    assert found["stem.weight:0"] == found["depth.weight:0"] == found["norm.weight:0"] == stem
    assert found["stem.weight:1"] == "stem.weight:1"
    assert found["grouped.weight:0"] == found["head.weight:1"]
    assert found["head.weight:0"] == "head.weight:0"


# -- the table ----------------------------------------------------------------------------------


class Stack(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, width)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(width, inner), nn.ReLU(), nn.Linear(inner, width))
            for _ in range(2)
        )
        self.head = nn.Linear(width, 11)

    def forward(self, idx: Tensor) -> Tensor:
        x = self.embed(idx)
        for layer in self.layers:
            x = x + layer(x)
        out: Tensor = self.head(x)
        return out


def test_the_table_names_classes_of_equal_layers_together() -> None:
    found = table(Stack(8, 32), (tokens(),))
    assert [(r.name, r.alias, r.sizes, r.classes, r.tensors, r.end) for r in found.rows] == [
        ("embed.weight:1", "residual", (8,), 1, 8, ""),
        ("layers.*.*.weight:0", "", (32,), 2, 6, ""),
        ("head.weight:0", "", (11,), 1, 2, "output"),
        ("embed.weight:0", "", (11,), 1, 1, "table"),
    ]


def test_a_model_without_residual_stream_has_no_alias() -> None:
    found = table(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), torch.zeros(2, 4))
    assert _aliases(found) == {""}


def _aliases(found: ClassTable) -> set[str]:
    return {row.alias for row in found.rows}


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_the_instance_stays_as_it_is(device: str) -> None:
    model = Stack(8, 32).to(device).eval()
    before = {name: id(p) for name, p in model.named_parameters()}
    table(model, (tokens(),))
    assert {name: id(p) for name, p in model.named_parameters()} == before
    assert not model.training


# -- fused operations ---------------------------------------------------------------------------


class Recurrent(nn.Module):
    def __init__(self, cls: type[nn.LSTM] | type[nn.GRU]) -> None:
        super().__init__()
        self.embed = nn.Embedding(8, 8)
        self.layers = cls(8, 8, num_layers=2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(16, 8)

    def forward(self, idx: Tensor) -> Tensor:
        out: Tensor = self.head(self.layers(self.embed(idx))[0])
        return out


class Begun(nn.Module):
    """An LSTM whose first states are parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 5)
        self.h, self.c = (nn.Parameter(torch.zeros(1, 2, 5)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.lstm(x, (self.h, self.c))[0]
        return out


def test_both_states_of_an_lstm_are_its_state() -> None:
    found = classes(Begun(), torch.zeros(7, 2, 3))
    assert found["c:2"] == found["h:2"] == found["lstm.weight_hh_l0:1"]


class Pooled(nn.Module):
    """torch sets other strides of the result in place, where the channels come last."""

    def __init__(self) -> None:
        super().__init__()
        self.channels = nn.Linear(3, 5)
        self.head = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.adaptive_avg_pool1d(self.channels(x).transpose(1, 2), 1)
        out: Tensor = self.head(pooled.flatten(1))
        return out


def test_pooled_channels_are_the_channels() -> None:
    found = find_identities(Pooled(), ((torch.zeros(2, 7, 3),), {}))
    assert found.train.gaps == ()
    assert classes(Pooled(), torch.zeros(2, 7, 3))["head.weight:1"] == "channels.weight:0"


@pytest.mark.parametrize(("cls", "gates"), [(nn.LSTM, 4), (nn.GRU, 3)])
def test_rows_of_recurrent_layers_are_states(cls: type[nn.LSTM] | type[nn.GRU], gates: int) -> None:
    identities = find_identities(Recurrent(cls), ((tokens(),), {}))
    space, axes = identities.space, identities.parameters
    state = space.root(axes["layers.weight_hh_l0"][1])
    for name in ("weight_ih_l0", "weight_hh_l1", "bias_hh_l0", "weight_ih_l1_reverse"):
        assert list(space.atoms(axes[f"layers.{name}"][0])) == [state] * gates
    for both in ("layers.weight_ih_l1", "head.weight"):  # the state of either direction
        assert list(space.atoms(axes[both][1])) == [state] * 2
    embedding = space.root(axes["embed.weight"][1])
    assert space.root(axes["layers.weight_ih_l0"][1]) == embedding != state


class Fused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))
        self.pair = nn.Bilinear(8, 8, 8)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.pair(self.normed(x), x)
        return out


def test_weight_norm_and_bilinear() -> None:
    found = classes(Fused(), torch.zeros(8, 8))
    length, direction = (f"normed.parametrizations.weight.original{i}" for i in (0, 1))
    assert found[f"{length}:0"] == found[f"{direction}:0"] == found["pair.weight:1"]
    assert found[f"{direction}:1"] == found["pair.weight:2"]
    assert found["pair.bias:0"] == found["pair.weight:0"] == "pair.weight:0"


def test_pixels_are_shuffled_out_of_channels_and_back() -> None:
    model = nn.Sequential(
        nn.Conv2d(8, 8, 1), nn.PixelShuffle(2), nn.Conv2d(2, 4, 1), nn.PixelUnshuffle(2),
        nn.Conv2d(16, 8, 1),
    )  # fmt: skip
    found = classes(model, torch.zeros(8, 8, 8, 8))
    assert found["0.weight:0"].startswith("(2.weight:1 * ")
    assert found["4.weight:1"].startswith("(2.weight:0 * ")


class Gated(nn.Module):
    """One sum of branches, in a part of the model."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(8, n) for n in (8, 8, 16))
        self.head = nn.Sequential(nn.GLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))

    def forward(self, x: Tensor) -> Tensor:
        first, second, third = self.layers
        x = first(x)
        out: Tensor = self.head(third(torch.relu(second(torch.relu(x + x.sin())))))
        return out


def test_halves_of_a_gate_are_one_class_and_a_lone_sum_is_no_stream() -> None:
    found = classes(Gated(), torch.zeros(8, 8))
    assert found["layers.2.weight:0"] == found["head.1.weight:1"] == "layers.2.weight:0"
    assert _aliases(table(Gated(), torch.zeros(8, 8))) == {""}
