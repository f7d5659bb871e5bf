"""Small models, each with one thing that an emitted file must say right."""

from __future__ import annotations

import math
import operator
from collections import OrderedDict
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Gain(nn.Module):
    def __init__(self, width: int, p: float) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.drop = nn.Dropout(p)
        self.gain = nn.Parameter(torch.full((width,), 0.3))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return x + self.drop(F.gelu(self.linear(x))) * self.gain + skip


class Rates(nn.Module):
    """Blocks that differ in a number, and a value that every round of the loop reads."""

    def __init__(self, width: int = 32, depth: int = 4) -> None:
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.blocks = nn.ModuleList(Gain(width, 0.1 * i) for i in range(depth))
        self.out = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        first = x
        for block in self.blocks:
            x = block(x, first)
        return self.out(x)


class Skips(nn.Module):
    """Results of the first half that the second half takes in the opposite order."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.down = nn.ModuleList(nn.Linear(width, width) for _ in range(3))
        self.up = nn.ModuleList(nn.Linear(2 * width, width) for _ in range(3))
        self.out = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        seen: list[Tensor] = []
        for down in self.down:
            x = torch.relu(down(x))
            seen.append(x)
        for up in self.up:
            x = torch.relu(up(torch.cat([x, seen.pop()], -1)))
        return self.out(x)


class DropPath(nn.Module):
    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0.0:
            return x
        return x * x.new_empty((x.shape[0], 1)).bernoulli_(1 - self.p) / (1 - self.p)


class StochasticDepth(nn.Module):
    """The first of a list does nothing, in evaluation all of them: the others keep their places."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(3))
        self.drop = nn.ModuleList(DropPath(p) for p in (0.0, 0.1, 0.2))
        self.out = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for hidden, drop in zip(self.hidden, self.drop, strict=True):
            x = x + drop(torch.tanh(hidden(x)))
        return self.out(x)


class Places(nn.Module):
    """Modules that do nothing between modules that do."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(8, width), nn.Identity(), nn.ReLU(), DropPath(0.0), nn.Linear(width, 4)
        )
        self.more = nn.ModuleList([nn.Identity(), nn.Linear(8, 4), DropPath(0.2), nn.Linear(8, 4)])

    def forward(self, x: Tensor) -> Tensor:
        left = self.more[1](self.more[0](x))
        return self.net(x) + left + self.more[3](self.more[2](x))


class Containers(nn.Module):
    """Named steps, alike and not, own lists of modules, dicts, lists of parameters."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        steps = OrderedDict(up=nn.Linear(8, width), act=nn.ReLU(), mix=nn.Linear(width, width))
        self.stem = nn.Sequential(steps)
        alike = OrderedDict((f"layer_{i}", nn.Linear(width, width)) for i in range(2))
        self.alike = nn.Sequential(alike)
        self.residual = Residual(nn.Linear(width, width), nn.Linear(width, width))
        self.gains = nn.ParameterList(nn.Parameter(torch.randn(width)) for _ in range(2))
        self.heads = nn.ModuleDict({"a": nn.Linear(width, 4), "b-c": nn.Linear(width, 4)})

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.residual(self.alike(self.stem(x)))
        for gain in self.gains:
            x = x * gain
        return {name: head(x) for name, head in self.heads.items()}


class Residual(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        for module in self:
            x = x + module(x)
        return x


class Chains(nn.Module):
    """Parts of equal names in a chain and in a class, which reach them in another way."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.first = nn.Linear(8, width)
        self.steps = nn.ModuleList([nn.Sequential(nn.Linear(width, width)) for _ in range(2)])
        self.steps += [Residual(nn.Linear(width, width)) for _ in range(2)]

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return torch.stack([step(x) for step in self.steps]).sum(0)


class Cell(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, width)
        self.outer = nn.Linear(width, width)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        state = torch.tanh(self.inner(x) + state)
        return x + self.outer(state), state


class Carried(nn.Module):
    """Two values from block to block; one block twice, under two names."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, width)
        self.cells = nn.ModuleList(Cell(width) for _ in range(3))
        self.last = self.cells[0]
        self.out = nn.Linear(width, 50, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        state = torch.zeros_like(x)
        for cell in self.cells:
            x, state = cell(x, state)
        x, state = self.last(x, state)
        return self.out(x + state)


class Halves(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, 2 * width)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        y, state = torch.tanh(self.inner(x + state)).chunk(2, -1)
        return x + y, state


class Drops(nn.Module):
    """What every call passes on, and the last one drops: of a list, and of one module."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.cells = nn.ModuleList(Cell(width) for _ in range(3))
        self.halves = Halves(width)
        self.out = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        state = torch.zeros_like(x)
        for cell in self.cells:
            x, state = cell(x, state)
        state = torch.ones_like(x)
        for _ in range(3):
            x, state = self.halves(x, state)
        return self.out(x)


class Tables(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("near", torch.arange(width) / width, persistent=False)
        self.register_buffer("far", torch.arange(width) / 100)
        self.mix = nn.Linear(width, width)
        self.gain = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor, which: str) -> tuple[Tensor, Tensor]:
        table = self.near if which == "near" else self.mix(self.far)
        return torch.cos(table) * x.mean(), torch.sin(table) * self.gain


class Apply(nn.Module):
    def forward(self, x: Tensor, module: nn.Module, scale: Tensor | None = None) -> Tensor:
        y = torch.tanh(module(x))
        return y if scale is None else y * scale


class Ways(nn.Module):
    """One module called in two ways, one that is lent others, one with more in evaluation."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.tables = Tables(width)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.apply_to = Apply()
        self.out = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        tables = {which: self.tables(x, which) for which in ("near", "far")}
        for layer, which in zip(self.layers, tables, strict=True):
            cos, sin = tables[which]
            x = x + self.apply_to(x * cos, layer) * sin
        return self.out(x if self.training else self.apply_to(x, self.layers[0], x.mean()))


class Images(nn.Module):
    """Batch statistics, and stages of different widths."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        widths = [3, width, 2 * width, 4 * width]
        pairs = list(pairwise(widths))
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1, bias=False) for a, b in pairs)
        self.norms = nn.ModuleList(nn.BatchNorm2d(b) for _, b in pairs)
        self.out = nn.Linear(4 * width, 4)

    def forward(self, x: Tensor) -> Tensor:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.relu(norm(conv(x)))
        return self.out(x.flatten(2).mean(-1))


class State(nn.Module):
    """Buffers of both kinds, an unused parameter, a frozen one, writes in place."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, width)
        self.places = nn.Embedding(64, width)
        self.register_buffer("mask", torch.tril(torch.ones(64, 64, dtype=torch.bool)))
        self.register_buffer("steps", torch.arange(64), persistent=False)
        self.register_buffer("count", torch.zeros((), dtype=torch.long))
        self.unused = nn.Parameter(torch.randn(3))
        self.mix = nn.Linear(width, width)
        self.mix.bias.requires_grad_(False)
        self.out = nn.Linear(width, 50)
        with torch.no_grad():
            self.out.bias[1:] = 3.0

    def forward(self, ids: Tensor) -> Tensor:
        length = ids.size(1)
        x = self.embed(ids) + self.places(self.steps[:length])
        scores = self.mix(x) @ x.transpose(1, 2)
        scores = scores.masked_fill(~self.mask[:length, :length], float("-inf"))
        x = scores.softmax(-1) @ x
        x[:, 0] = 0
        x *= 2
        return self.out(x)


class Rows(nn.Module):
    """Mixes pixels, and asks its own input for its sizes."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        return self.mix(x.flatten(2).transpose(1, 2)).reshape(b, h, w, c).permute(0, 3, 1, 2)


class Halved(nn.Module):
    """A chain that makes images smaller before one of it asks for their sizes."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, stride=2, padding=1)
        quarter = nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.blocks = nn.Sequential(quarter, Rows(width))
        self.out = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.blocks(self.stem(x)).mean((2, 3)))


class ViewsInPlace(nn.Module):
    """`*=` on views that have no name of their own."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.first = nn.Linear(8, width)
        self.second = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        operator.imul(h.view(-1), 2)
        operator.iadd(h[1:], 1)
        return self.second(h)


class MadeInPlace(nn.Module):
    """`mul_` and its kin on what has no name of its own: results of calls, copies of entries."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.first = nn.Linear(8, width)
        self.gain = nn.Parameter(torch.randn(width))
        self.second = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.first(x).add_(0.5)).mul_(2.0)
        h = h - self.gain.clone().mul_(0.5)
        picked = h[[1, 0]].mul_(3.0)
        h[:, [0, 2]] *= 0.5
        highest = h.max(-1)
        picked = picked + highest[0].mul_(2.0)[:2, None]
        return self.second(h).sub_(1.0) + picked.sum()


class Operators(nn.Module):
    """Python's operators, and names of our own that are torch's."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.F = nn.Linear(8, width)
        self.torch = nn.Linear(width, 4)
        self.temperature = nn.Parameter(torch.tensor(2.5))

    def forward(self, x: Tensor) -> Tensor:
        h = self.F(x)
        a = 1 - (2 - h) * -h
        b = (-h) ** 2
        c = -(h**2)
        d = (a - b) - (c - a)
        e = d / (1 + b.abs())
        mask = (h > 0) & (h < 1) | (h > 2)
        y = self.torch(torch.where(mask, e, h) * self.temperature.exp())
        return y + x[..., None, :4][:, 0] - x[:, :4].flip(-1)[:, [0, 2, 1, 3]]


@dataclass
class Output:
    logits: Tensor
    loss: Tensor
    hidden: tuple[Tensor, ...]


class Record(nn.Module):
    """A record with a tuple in it."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.inner = nn.Linear(8, width)
        self.out = nn.Linear(width, 4)

    def forward(self, x: Tensor, labels: Tensor) -> Output:
        hidden = torch.relu(self.inner(x))
        logits = self.out(hidden)
        return Output(logits, F.cross_entropy(logits, labels), (hidden, logits))


class Squash(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return F.dropout(torch.tanh(x), 0.1, self.training), x * 2


class Modes(nn.Module):
    """Another computation in training."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.inner = nn.Linear(8, width)
        self.squash = Squash()
        self.auxiliary = nn.Linear(width, 4)
        self.out = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        both = self.squash(self.inner(x))
        h = both[0] * both[1]
        if self.training:
            h = h + torch.randn_like(h) * 0.1
            return self.out(h) + self.auxiliary(h)
        return self.out(h)


class Sizes(nn.Module):
    """Numbers computed from the sizes of the input."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.inner = nn.Linear(8, width)
        self.out = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        batch, time, width = x.shape
        h = self.inner(x.reshape(batch * time, width)).view(batch, time, -1)
        half = time // 2
        h = h / time**0.5 + (torch.arange(time, device=x.device) / time)[None, :, None]
        h = h * (time - 1) / (batch * time) - (time - batch) * math.ceil(time / 4)
        return self.out(h[:, :half]).sum(1) / half, self.out(h[:, -1])


class Stock(nn.Module):
    """Modules of torch with parts of their own, and a parametrized weight."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.utils.parametrizations.weight_norm(nn.Linear(8, width))
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True, dropout=0.1)
        self.out = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.encoder(self.embed(x))
        y, _ = self.attention(x, x, x, need_weights=False)
        return self.out(x + y)


class Counted(nn.Module):
    """Positions, made without an input and without a tensor."""

    def forward(self, count: int, device: torch.device) -> Tensor:
        return torch.arange(count, device=device)

    def __repr__(self) -> str:
        raise NotImplementedError


class Lengths(nn.Module):
    """A bias for every position, made without an input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(1, width), nn.Tanh())

    def forward(self, count: int, device: torch.device) -> Tensor:
        return self.inner(torch.arange(count, device=device).float()[:, None])


class Rectified(nn.Sequential):
    """A chain of its own class."""

    def __init__(self, width: int) -> None:
        super().__init__(nn.Linear(width, width), nn.ReLU())


class Made(nn.Module):
    """Calls that take no tensor and make some, and gains beside a list with an empty place."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.inner = nn.Linear(8, width)
        self.counted = Counted()
        self.lengths = Lengths(width)
        self.table = nn.Embedding(6, width)
        self.blocks = nn.ModuleList([None, *(nn.Linear(width, width) for _ in range(3))])
        self.gains = nn.ParameterList([nn.Parameter(torch.randn(width)) for _ in range(3)])
        plain = nn.Sequential(nn.Linear(width, width), nn.ReLU())
        self.ways = nn.ModuleList([plain, Rectified(width), Rectified(width)])
        self.out = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner(x) + self.table(self.counted(6, x.device)) + self.lengths(6, x.device)
        for block, gain in zip(self.blocks[1:], self.gains, strict=True):
            x = x + block(torch.relu(x)) * gain
        return self.out(sum(way(x) for way in self.ways))
