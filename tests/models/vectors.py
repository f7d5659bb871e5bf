"""Small models around one parameter each, as the conformance vectors name them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Chain(nn.Module):
    """Modules one after the other."""

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__()
        self.net = nn.Sequential(*modules)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class Pooled(Chain):
    """Convolutions, then the mean over space and a readout."""

    def __init__(self, channels: int, *modules: nn.Module) -> None:
        super().__init__(*modules)
        self.fc = nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(self.net(x)).mean((2, 3)))


def normal(module: nn.Linear, std: float) -> nn.Linear:
    nn.init.normal_(module.weight, std=std)
    return module


def embedding(d: int) -> nn.Module:
    return Chain(nn.Embedding(32000, d), nn.Linear(d, 8))


def projection(d: int) -> nn.Module:
    return Chain(nn.Linear(20, d), normal(nn.Linear(d, d), 0.02), nn.Linear(d, 8))


def mlp(d: int, ff: int) -> nn.Module:
    return Chain(nn.Linear(20, d), nn.Linear(d, ff), nn.ReLU(), nn.Linear(ff, d), nn.Linear(d, 8))


def head(d: int) -> nn.Module:
    return Chain(nn.Linear(20, d), nn.LayerNorm(d), nn.Linear(d, 32000))


def residual(d: int, ff: int) -> nn.Module:
    out = normal(nn.Linear(ff, d), 0.02 / 24**0.5)
    return Chain(nn.Linear(20, d), nn.Linear(d, ff), out, nn.Linear(d, 8))


def conv(c: int, o: int) -> nn.Module:
    inner = nn.Conv2d(c, o, 3)
    nn.init.kaiming_normal_(inner.weight, nonlinearity="relu")
    return Pooled(o, nn.Conv2d(3, c, 3), inner)


def stem(c: int) -> nn.Module:
    first = nn.Conv2d(3, c, 7)
    nn.init.kaiming_normal_(first.weight, mode="fan_out", nonlinearity="relu")
    return Pooled(c, first)


def grouped(c: int, groups: int) -> nn.Module:
    return Pooled(c, nn.Conv2d(3, c, 3), nn.Conv2d(c, c, 3, groups=groups))


class Grouped(nn.Module):
    """Keys of a few heads, shared by groups of queries."""

    def __init__(self, d: int, kv: int) -> None:
        super().__init__()
        self.first = nn.Linear(20, d)
        self.q = nn.Linear(d, d)
        self.k = normal(nn.Linear(d, kv * 64), 0.02)
        self.out = nn.Linear(d, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        q, k = (p(x).unflatten(-1, (-1, 64)).transpose(1, 2) for p in (self.q, self.k))
        y = F.scaled_dot_product_attention(q, k, k, enable_gqa=True)
        return self.out(y.transpose(1, 2).flatten(2))


class Experts(nn.Module):
    """Every expert sees every token; a router weighs the experts."""

    def __init__(self, d: int, ff: int, experts: int) -> None:
        super().__init__()
        self.first = nn.Linear(20, d)
        self.router = normal(nn.Linear(d, 8), 0.02)
        self.up = nn.Parameter(torch.empty(experts, ff, d).normal_(0, 0.02))
        self.down = nn.Parameter(torch.empty(experts, d, ff).normal_(0, 0.02))
        self.out = nn.Linear(d, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        chosen = self.router(x).softmax(-1).argmax(-1) % self.up.shape[0]
        hidden = torch.einsum("bi,efi->ebf", x, self.up).relu()
        y = torch.einsum("ebf,eif->ebi", hidden, self.down)
        return self.out(y[chosen, torch.arange(x.shape[0])]) + self.router(x).softmax(-1)


class LowRank(nn.Module):
    """A LoRA layer beside a full one."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.first = nn.Linear(20, d)
        self.full = nn.Linear(d, d)
        self.a = nn.Linear(d, 8, bias=False)
        self.b = nn.Linear(8, d, bias=False)
        nn.init.zeros_(self.b.weight)
        self.out = nn.Linear(d, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.out(self.full(x) + self.b(self.a(x)))


class Biased(nn.Module):
    """Attention by hand with a relative bias and a learned temperature."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.first = nn.Linear(20, d)
        self.bias = nn.Parameter(torch.empty(32, 4).normal_(0, 0.02))
        self.temperature = nn.Parameter(torch.tensor(1.0))
        self.out = nn.Linear(d, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        heads = x.unflatten(-1, (4, -1)).transpose(1, 2)
        places = torch.arange(x.shape[1], device=x.device)
        bias = self.bias[(places[:, None] - places).abs()].permute(2, 0, 1)
        weights = (heads @ heads.mT / heads.shape[-1] ** 0.5 + bias).softmax(-1)
        return self.out((weights @ heads).transpose(1, 2).flatten(2)) * self.temperature


class StateInputs(nn.Module):
    """The rows of a Mamba layer's x_proj that give B and C."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.first = nn.Linear(20, d)
        self.x_proj = nn.Linear(d, 32, bias=False)
        self.out = nn.Linear(d, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        b, c = self.x_proj(x).split(16, -1)
        return self.out(x * (b * c).mean(-1, keepdim=True))


def xavier(d: int, ff: int) -> nn.Module:
    up = nn.Linear(d, ff)
    nn.init.xavier_uniform_(up.weight)
    return Chain(nn.Linear(20, d), up, nn.Linear(ff, 8))


class Recurrent(nn.Module):
    """An LSTM and a readout."""

    def __init__(self, h: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(40, h, batch_first=True)
        self.out = nn.Linear(h, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.lstm(x)[0])


class Heads(nn.Module):
    """Attention with heads of any number and size."""

    def __init__(self, heads: int, size: int) -> None:
        super().__init__()
        self.first = nn.Linear(20, heads * size)
        self.qkv = nn.Linear(heads * size, 3 * heads * size)
        self.out = nn.Linear(heads * size, 8)
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(self.first(x)).chunk(3, dim=-1)
        q, k, v = (t.unflatten(-1, (-1, self.size)).transpose(1, 2) for t in qkv)
        y = F.scaled_dot_product_attention(q, k, v)
        return self.out(y.transpose(1, 2).flatten(2))


class Tied(nn.Module):
    """Tokens in and out by one matrix; before it a norm with a gain, or none that has one."""

    def __init__(self, d: int, gain: bool) -> None:
        super().__init__()
        self.embed = normal(nn.Embedding(32, d), 0.02)
        self.mix = nn.Linear(d, d)
        self.norm = nn.LayerNorm(d, elementwise_affine=gain)

    def forward(self, tokens: Tensor) -> Tensor:
        return F.linear(self.norm(self.mix(self.embed(tokens))), self.embed.weight)
