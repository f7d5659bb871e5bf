"""Pieces of architectures in standard parametrization, each between a first layer and a readout.

They are written as in public models; `d` is the width of the residual stream.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

FEATURES, CLASSES, TIME = 8, 4, 5


class Between(nn.Module):
    """A residual piece between a first layer and a readout."""

    def __init__(self, d: int, piece: nn.Module) -> None:
        super().__init__()
        self.first = nn.Linear(FEATURES, d)
        self.piece = piece
        self.last = nn.Linear(d, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.last(x + self.piece(x))


# -- experts ------------------------------------------------------------------------------------


class Experts(nn.Module):
    """A router, and experts of which each token has its best ones."""

    def __init__(self, d: int, ff: int, experts: int, chosen: int, normed: bool) -> None:
        super().__init__()
        self.chosen, self.normed = chosen, normed
        self.router = nn.Linear(d, experts, bias=False)
        self.up = nn.Parameter(torch.randn(experts, d, ff) * 0.02)
        self.down = nn.Parameter(torch.randn(experts, ff, d) * 0.02)

    def forward(self, x: Tensor) -> Tensor:
        weights, chosen = self.router(x).softmax(-1).topk(self.chosen, dim=-1)
        if self.normed:
            weights = weights / weights.sum(-1, keepdim=True)
        gates = torch.zeros_like(self.router(x)).scatter(-1, chosen, weights)
        each = torch.einsum("btef,efd->bted", torch.einsum("btd,edf->btef", x, self.up), self.down)
        return torch.einsum("bted,bte->btd", each, gates)


def experts(d: int, ff: int, experts: int = 4, chosen: int = 2, normed: bool = False) -> nn.Module:
    return Between(d, Experts(d, ff, experts, chosen, normed))


class Gated(nn.Module):
    """Two ways up, of which one gates the other, and one down."""

    def __init__(self, d: int, ff: int) -> None:
        super().__init__()
        self.gate, self.up = (nn.Linear(d, ff, bias=False) for _ in range(2))
        self.down = nn.Linear(ff, d, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


def gated(d: int, ff: int) -> nn.Module:
    return Between(d, Gated(d, ff))


# -- attention ----------------------------------------------------------------------------------


class Attention(nn.Module):
    """Queries, keys and values of one fused projection, taken apart as `parted` says.

    "split": side by side. "heads": behind a view of heads, keys and values last. "groups": behind
    a view of groups of queries, each with its own key and value.
    """

    def __init__(self, d: int, heads: int, kv: int, size: int, parted: str, bias: bool) -> None:
        super().__init__()
        self.heads, self.kv, self.size, self.parted = heads, kv, size, parted
        self.qkv = nn.Linear(d, (heads + 2 * kv) * size, bias=bias)
        self.out = nn.Linear(heads * size, d, bias=False)

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        b, t, _ = x.shape
        fused, heads, kv, size = self.qkv(x), self.heads, self.kv, self.size
        if self.parted == "split":
            q, k, v = fused.split((heads * size, kv * size, kv * size), -1)
            return q.view(b, t, heads, size), k.view(b, t, kv, size), v.view(b, t, kv, size)
        if self.parted == "heads":
            fused = fused.view(b, t, heads + 2 * kv, size)
            return fused[..., :heads, :], fused[..., heads : heads + kv, :], fused[..., -kv:, :]
        fused = fused.view(b, t, kv, heads // kv + 2, size)
        return fused[:, :, :, :-2].flatten(2, 3), fused[:, :, :, -2], fused[:, :, :, -1]

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.transpose(1, 2) for part in self.parts(x))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return self.out(y.transpose(1, 2).reshape(x.shape[0], x.shape[1], -1))


def attention(d: int, heads: int, kv: int, size: int, parted: str, bias: bool = False) -> nn.Module:
    return Between(d, Attention(d, heads, kv, size, parted, bias))


class Apart(nn.Module):
    """A projection each, few heads of keys and values, and norms of queries and keys."""

    def __init__(self, d: int, heads: int, kv: int, size: int) -> None:
        super().__init__()
        self.heads, self.kv, self.size = heads, kv, size
        self.q = nn.Linear(d, heads * size, bias=False)
        self.k, self.v = (nn.Linear(d, kv * size, bias=False) for _ in range(2))
        self.q_norm, self.k_norm = nn.RMSNorm(size), nn.RMSNorm(size)
        self.sink = nn.Parameter(torch.zeros(heads))
        self.out = nn.Linear(heads * size, d, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        q = self.q_norm(self.q(x).view(b, t, self.heads, self.size)).transpose(1, 2)
        k = self.k_norm(self.k(x).view(b, t, self.kv, self.size)).transpose(1, 2)
        v = self.v(x).view(b, t, self.kv, self.size).transpose(1, 2)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        y = y * self.sink.sigmoid().view(1, -1, 1, 1)
        return self.out(y.transpose(1, 2).reshape(b, t, -1))


def apart(d: int, heads: int, kv: int, size: int) -> nn.Module:
    return Between(d, Apart(d, heads, kv, size))


class Repeated(nn.Module):
    """Attention by hand; all heads of queries have the same keys and values."""

    def __init__(self, d: int, heads: int, size: int = 4) -> None:
        super().__init__()
        self.heads, self.size = heads, size
        self.q = nn.Linear(d, heads * size, bias=False)
        self.k, self.v = (nn.Linear(d, size, bias=False) for _ in range(2))
        self.out = nn.Linear(heads * size, d, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        q = self.q(x).view(b, t, self.heads, self.size).transpose(1, 2)
        k, v = (made.unsqueeze(1).expand(-1, self.heads, -1, -1) for made in (self.k(x), self.v(x)))
        scores = q @ k.transpose(-2, -1) / self.size**0.5
        y = torch.dropout(scores.softmax(-1), 0.1, self.training) @ v
        return self.out(y.transpose(1, 2).reshape(b, t, -1))


def repeated(d: int, heads: int) -> nn.Module:
    return Between(d, Repeated(d, heads))


class Blocked(nn.Module):
    """Queries, keys and values side by side in each of two blocks; a part of a head is turned."""

    def __init__(self, d: int, heads: int, size: int, turned: int = 2) -> None:
        super().__init__()
        self.heads, self.size, self.turned = heads, size, turned
        self.qkv = nn.Linear(d, 3 * heads * size, bias=False)
        self.out = nn.Linear(heads * size, d, bias=False)

    def turn(self, x: Tensor) -> Tensor:
        return torch.cat([-x[..., : self.turned], x[..., self.turned :]], -1)

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        parts = self.qkv(x).view(b, t, 2, -1).chunk(3, -1)
        q, k, v = (part.reshape(b, t, self.heads, self.size).transpose(1, 2) for part in parts)
        y = F.scaled_dot_product_attention(self.turn(q), self.turn(k), v, is_causal=True)
        return self.out(y.transpose(1, 2).reshape(b, t, -1))


def blocked(d: int, heads: int, size: int) -> nn.Module:
    return Between(d, Blocked(d, heads, size))


class OneKey(nn.Module):
    """Attention in single steps: one head of keys and values for all queries."""

    def __init__(self, d: int, heads: int, size: int) -> None:
        super().__init__()
        self.heads, self.size = heads, size
        self.q = nn.Linear(d, heads * size, bias=False)
        self.k, self.v = (nn.Linear(d, size, bias=False) for _ in range(2))
        self.out = nn.Linear(heads * size, d, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        q = self.q(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        logits = q @ self.k(x)[:, None].mT / math.sqrt(self.size)
        y = logits.softmax(-1) @ self.v(x)[:, None]
        return self.out(y.transpose(1, 2).flatten(2))


def one_key(d: int, heads: int, size: int) -> nn.Module:
    return Between(d, OneKey(d, heads, size))


class RelativeKeys(nn.Module):
    """All heads' queries meet one table of distances; fused attention adds that to its logits."""

    def __init__(self, d: int, heads: int, size: int) -> None:
        super().__init__()
        self.heads, self.size = heads, size
        self.qkv = nn.Linear(d, 3 * heads * size, bias=False)
        self.distances = nn.Embedding(2 * 8, size)
        self.out = nn.Linear(heads * size, d, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.qkv(x).chunk(3, -1)
        )
        places = torch.arange(x.shape[1])
        keys = self.distances(places[:, None] - places + 8)
        bias = torch.einsum("bhld,lrd->bhlr", q, keys) * self.size**-0.5
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.out(y.transpose(1, 2).flatten(2))


def relative_keys(d: int, heads: int, size: int) -> nn.Module:
    return Between(d, RelativeKeys(d, heads, size))


class Cosine(nn.Module):
    """Logits are cosines, times a learned temperature for each head."""

    def __init__(self, d: int, heads: int, size: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(d, 3 * heads * size, bias=False)
        self.temperature = nn.Parameter(torch.full((heads, 1, 1), math.log(10.0)))
        self.out = nn.Linear(heads * size, d, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.qkv(x).chunk(3, -1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        cosines = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT
        y = (cosines * self.temperature.exp()).softmax(-1) @ v
        return self.out(y.transpose(1, 2).flatten(2))


def cosine(d: int, heads: int, size: int) -> nn.Module:
    return Between(d, Cosine(d, heads, size))


class LinearAttention(nn.Module):
    """A state of outer products of keys and values, which queries read."""

    def __init__(self, d: int, heads: int, size: int, normed: bool) -> None:
        super().__init__()
        self.heads, self.normed = heads, normed
        self.qkv = nn.Linear(d, 3 * heads * size, bias=False)
        self.out = nn.Linear(heads * size, d, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.qkv(x).chunk(3, -1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)) for part in parts)
        if self.normed:
            q, k = F.elu(q) + 1, F.elu(k) + 1
        y = torch.einsum("bthk,bhkv->bthv", q, torch.einsum("bthk,bthv->bhkv", k, v))
        if self.normed:
            y = y / torch.einsum("bthk,bhk->bth", q, k.sum(1))[..., None]
        return self.out(y.flatten(2))


def linear_attention(d: int, heads: int, size: int, normed: bool) -> nn.Module:
    return Between(d, LinearAttention(d, heads, size, normed))


class Latent(nn.Module):
    """Queries, keys and values through low ranks; one rotary key, made beside the latent one."""

    def __init__(self, d: int, heads: int, rank: int, size: int = 4, rotary: int = 2) -> None:
        super().__init__()
        self.heads, self.rank, self.size, self.rotary = heads, rank, size, rotary
        self.q_down = nn.Linear(d, rank, bias=False)
        self.q_up = nn.Linear(rank, heads * (size + rotary), bias=False)
        self.kv_down = nn.Linear(d, rank + rotary, bias=False)
        self.kv_up = nn.Linear(rank, heads * 2 * size, bias=False)
        self.out = nn.Linear(heads * size, d, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        q = self.q_up(self.q_down(x)).view(b, t, self.heads, -1).transpose(1, 2)
        latent, turned = self.kv_down(x).split((self.rank, self.rotary), -1)
        kv = self.kv_up(latent).view(b, t, self.heads, -1).transpose(1, 2)
        k, v = kv.split((self.size, self.size), -1)
        shared = turned.view(b, 1, t, self.rotary).expand(b, self.heads, t, self.rotary)
        y = F.scaled_dot_product_attention(q, torch.cat([k, shared], -1), v, is_causal=True)
        return self.out(y.transpose(1, 2).reshape(b, t, -1))


def latent(d: int, heads: int, rank: int) -> nn.Module:
    return Between(d, Latent(d, heads, rank))


# -- state spaces -------------------------------------------------------------------------------


def scan(x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """h_t = exp(dt a) h_{t-1} + dt b x, y = c h, for x and dt (.., time, n) and a (n, state)."""
    decay = (dt.unsqueeze(-1) * a).cumsum(1)
    driven = (dt * x).unsqueeze(-1) * b.unsqueeze(-2)
    state = decay.exp() * ((-decay).exp() * driven).cumsum(1)
    return (state * c.unsqueeze(-2)).sum(-1)


class Mamba(nn.Module):
    """A selective state space: the step through a low rank, B and C of the state's own size."""

    def __init__(self, d: int, inner: int, rank: int, state: int = 3) -> None:
        super().__init__()
        self.rank, self.state = rank, state
        self.in_proj = nn.Linear(d, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, 3, groups=inner, padding=2)
        self.x_proj = nn.Linear(inner, rank + 2 * state, bias=False)
        self.dt_proj = nn.Linear(rank, inner)
        self.A_log = nn.Parameter(torch.arange(1.0, state + 1).log().repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, d, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x, z = self.in_proj(x).chunk(2, -1)
        x = F.silu(self.conv1d(x.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2))
        dt, b, c = self.x_proj(x).split((self.rank, self.state, self.state), -1)
        y = scan(x, F.softplus(self.dt_proj(dt)), -self.A_log.exp(), b, c)
        return self.out_proj((y + self.D * x) * F.silu(z))


def mamba(d: int, inner: int, rank: int, state: int = 3) -> nn.Module:
    return Between(d, Mamba(d, inner, rank, state))


class Mamba2(nn.Module):
    """Everything from one projection: gate, x, B and C through one convolution, a step a head."""

    def __init__(self, d: int, heads: int, size: int = 4, state: int = 3) -> None:
        super().__init__()
        self.heads, self.size, self.state = heads, size, state
        self.inner = heads * size
        mixed = self.inner + 2 * state
        self.in_proj = nn.Linear(d, self.inner + mixed + heads, bias=False)
        self.conv1d = nn.Conv1d(mixed, mixed, 3, groups=mixed, padding=2)
        self.dt_bias = nn.Parameter(torch.ones(heads))
        self.out_proj = nn.Linear(self.inner, d, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        inner, state, t = self.inner, self.state, x.shape[1]
        z, mixed, dt = self.in_proj(x).split((inner, inner + 2 * state, self.heads), -1)
        mixed = F.silu(self.conv1d(mixed.transpose(1, 2))[..., :t].transpose(1, 2))
        x, b, c = mixed.split((inner, state, state), -1)
        step = F.softplus(dt + self.dt_bias).repeat_interleave(self.size, -1)
        return self.out_proj(scan(x, step, -torch.ones(1), b, c) * F.silu(z))


def mamba2(d: int, heads: int, state: int = 3) -> nn.Module:
    return Between(d, Mamba2(d, heads, state=state))


# -- conditioning and low rank ------------------------------------------------------------------


class AdaptiveNorm(nn.Module):
    """A norm whose shift, scale and gate a condition says; they start at zero."""

    def __init__(self, d: int, condition: int) -> None:
        super().__init__()
        self.condition = nn.Linear(FEATURES, condition)
        self.first = nn.Linear(FEATURES, d)
        self.modulation = nn.Linear(condition, 3 * d)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        self.inner = nn.Linear(d, d)
        self.last = nn.Linear(d, CLASSES)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        x = self.first(x)
        shift, scale, gate = self.modulation(F.silu(self.condition(condition))).chunk(3, -1)
        y = F.layer_norm(x, x.shape[-1:]) * (1 + scale) + shift
        return self.last(x + gate * self.inner(y))


class LowRank(nn.Module):
    """A linear layer beside its low-rank update."""

    def __init__(self, d: int, rank: int, alpha: float = 16.0) -> None:
        super().__init__()
        self.linear = nn.Linear(d, d, bias=False)
        self.A = nn.Parameter(torch.empty(rank, d))
        self.B = nn.Parameter(torch.zeros(d, rank))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))
        self.scale = alpha / rank

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + F.linear(F.linear(x, self.A), self.B) * self.scale


def low_rank(d: int, rank: int) -> nn.Module:
    return Between(d, LowRank(d, rank))


# -- attention to others -------------------------------------------------------------------------


class Cross(nn.Module):
    """Attention to a context of a width of its own."""

    def __init__(self, d: int, context: int, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.read = nn.Linear(FEATURES, d), nn.Linear(FEATURES, context)
        self.q = nn.Linear(d, d, bias=False)
        self.k, self.v = (nn.Linear(context, d, bias=False) for _ in range(2))
        self.last = nn.Linear(d, CLASSES)

    def parted(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        x, context = self.first(x), self.read(context)
        q, k, v = (self.parted(y) for y in (self.q(x), self.k(context), self.v(context)))
        y = F.scaled_dot_product_attention(q, k, v)
        return self.last(x + y.transpose(1, 2).flatten(2))


class GraphAttention(nn.Module):
    """Scores of pairs of nodes, by two vectors for each head."""

    def __init__(self, d: int, heads: int, size: int) -> None:
        super().__init__()
        self.heads = heads
        self.values = nn.Linear(d, heads * size, bias=False)
        self.mine, self.its = (nn.Parameter(torch.randn(heads, size) * 0.02) for _ in range(2))
        self.out = nn.Linear(heads * size, d, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.values(x).unflatten(-1, (self.heads, -1))
        mine, its = (torch.einsum("bthd,hd->bht", h, a) for a in (self.mine, self.its))
        scores = F.leaky_relu(mine[..., None] + its[..., None, :]).softmax(-1)
        return self.out(torch.einsum("bhts,bshd->bthd", scores, h).flatten(2))


def graph_attention(d: int, heads: int, size: int) -> nn.Module:
    return Between(d, GraphAttention(d, heads, size))


# -- weights that are computed ------------------------------------------------------------------


class Hypernetwork(nn.Module):
    """A weight that a layer makes of what it reads, and what is done to it `then`."""

    def __init__(self, d: int, then: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.make, self.then = nn.Linear(d, d * d, bias=False), then

    def forward(self, x: Tensor) -> Tensor:
        weight = self.then(self.make(x.mean(1)).view(-1, x.shape[-1], x.shape[-1]))
        return torch.einsum("btj,bij->bti", x, weight).tanh()


def hypernetwork(d: int, then: Callable[[Tensor], Tensor]) -> nn.Module:
    return Between(d, Hypernetwork(d, then))


class Mixed(nn.Module):
    """A weight that is mixed from a fixed number of them, as in a dynamic convolution."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.choose = nn.Linear(d, 3)
        self.weight = nn.Parameter(torch.randn(3, d, d) * 0.02)

    def forward(self, x: Tensor) -> Tensor:
        share = self.choose(x.mean(1)).softmax(-1)
        weight = (share[:, :, None, None] * self.weight).sum(1)
        return x @ weight


class Triangular(nn.Module):
    """A weight that is filled with parameters, entry by entry."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(d * (d + 1) // 2) * 0.02)

    def forward(self, x: Tensor) -> Tensor:
        d = x.shape[-1]
        row, column = torch.tril_indices(d, d)
        whole = torch.zeros(d, d)
        whole[row, column] = self.weight
        return x @ whole


def triangular(d: int) -> nn.Module:
    return Between(d, Triangular(d))


class Blocks(nn.Module):
    """A weight that is filled by a copy into a part of it."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(d // 2, d // 2) * 0.02)

    def forward(self, x: Tensor) -> Tensor:
        d = x.shape[-1]
        whole = torch.zeros(d, d)
        whole[: d // 2, : d // 2].copy_(self.weight)
        return x @ whole


def blocks(d: int) -> nn.Module:
    return Between(d, Blocks(d))


def mixed(d: int) -> nn.Module:
    return Between(d, Mixed(d))


class Modulated(nn.Module):
    """A convolution whose weight a style multiplies, one for each item of the batch."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.style = nn.Linear(d, d)
        self.weight = nn.Parameter(torch.randn(d, d, 3) * 0.02)

    def forward(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        weight = self.weight * self.style(x.mean(1))[:, None, :, None]
        features = x.transpose(1, 2).reshape(1, b * d, t)
        y = F.conv1d(features, weight.reshape(b * d, d, 3), padding=1, groups=b)
        return y.view(b, d, t).transpose(1, 2)


def modulated(d: int) -> nn.Module:
    return Between(d, Modulated(d))


class Relations(nn.Module):
    """A matrix for each kind of token."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, d, d) * 0.02)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight[torch.arange(x.shape[1]) % 3]
        return torch.einsum("btj,tij->bti", x, weight).tanh()


def relations(d: int) -> nn.Module:
    return Between(d, Relations(d))


class SpelledOut(nn.Module):
    """A linear layer as products and their sum."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(d, d) * 0.02)

    def forward(self, x: Tensor) -> Tensor:
        return (x.unsqueeze(-2) * self.weight).sum(-1)


def spelled_out(d: int) -> nn.Module:
    return Between(d, SpelledOut(d))


class Positive(nn.Linear):
    """A linear layer without negative weights."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.abs())


def positive(d: int) -> nn.Module:
    return Between(d, Positive(d, d, bias=False))


class Spectral(nn.Module):
    """A linear layer for each frequency of the positions, as in a neural operator."""

    def __init__(self, d: int, centred: bool) -> None:
        super().__init__()
        drawn = torch.rand(d, d, TIME // 2 + 1, dtype=torch.cfloat)
        self.weight = nn.Parameter((drawn - (0.5 + 0.5j) if centred else drawn) / d)

    def forward(self, x: Tensor) -> Tensor:
        modes = torch.einsum("bkc,cok->bko", torch.fft.rfft(x, dim=1), self.weight)
        return torch.fft.irfft(modes, n=x.shape[1], dim=1)


def spectral(d: int, centred: bool) -> nn.Module:
    return Between(d, Spectral(d, centred))


# -- norms of weights ---------------------------------------------------------------------------


class Normed(nn.Module):
    """Weight norm on a first layer, a hidden one and a readout."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.first = weight_norm(nn.Linear(FEATURES, d))
        self.hidden = weight_norm(nn.Linear(d, d))
        self.last = weight_norm(nn.Linear(d, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.hidden(self.first(x).tanh()).tanh())


def _centred_by_var_mean(w: Tensor) -> Tensor:
    var, mean = torch.var_mean(w, 1, unbiased=False, keepdim=True)
    return (w - mean) / torch.sqrt(var + 1e-5)


def _of_length(w: Tensor) -> Tensor:
    """Rows whose root mean square is 1, as EDM 2 has them."""
    length = torch.linalg.vector_norm(w, dim=1, keepdim=True)
    return w / torch.add(1e-4, length, alpha=math.sqrt(length.numel() / w.numel()))


def _by_batch_norm(w: Tensor, gain: Tensor | None = None) -> Tensor:
    rows = w.view(1, len(w), -1)
    return F.batch_norm(rows, None, None, gain, training=True, eps=1e-8).view_as(w)


ROWS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "a batch norm": lambda w, gain: _by_batch_norm(w),
    "a batch norm with a gain": lambda w, gain: _by_batch_norm(w, gain * w.shape[1] ** -0.5),
    "a layer norm": lambda w, gain: F.layer_norm(w, w.shape[1:]),
    "var_mean": lambda w, gain: _centred_by_var_mean(w),
    "mean and var": lambda w, gain: (
        (w - w.mean(1, keepdim=True)) * (w.var(1, keepdim=True) + 1e-5).rsqrt()
    ),
    "std": lambda w, gain: (w - w.mean(1, keepdim=True)) / (w.std(1, keepdim=True) + 1e-5),
    "squares": lambda w, gain: w * (w.pow(2).mean(1, keepdim=True) + 1e-6).rsqrt(),
    "their sum": lambda w, gain: w * w.square().sum(1, keepdim=True).rsqrt(),
    "a vector norm": lambda w, gain: _of_length(w),
    "normalize": lambda w, gain: F.normalize(w, dim=1),
    "a norm": lambda w, gain: gain[:, None] * w / w.norm(dim=1, keepdim=True).clamp_min(1e-6),
    "a variance it is multiplied with": lambda w, gain: w * w.var(1, keepdim=True),
    "a norm and one": lambda w, gain: w / (1 + w.norm(dim=1, keepdim=True)),
    "a norm of 1 at most": lambda w, gain: w / w.norm(dim=1, keepdim=True).clamp(1e-6, 1.0),
    "logaddexp of its mean": lambda w, gain: torch.logaddexp(w, w.mean(1, keepdim=True)),
    "another's norm": lambda w, gain: w / (gain.norm() * w.norm(dim=1, keepdim=True)),
}
"""Ways to write a weight over its size, and some that are none."""


class Directed(nn.Linear):
    """A linear layer whose rows are brought to one size before each use."""

    def __init__(self, d: int, how: str) -> None:
        super().__init__(d, d, bias=False)
        self.gain = nn.Parameter(torch.ones(d))
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, ROWS[self.how](self.weight, self.gain))


def directed(d: int, how: str) -> nn.Module:
    return Between(d, Directed(d, how))


class SpectrallyNormed(nn.Module):
    """A hidden weight over its largest singular value, which torch finds by power iteration."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.hidden = spectral_norm(nn.Linear(d, d))

    def forward(self, x: Tensor) -> Tensor:
        return self.hidden(x).tanh()


def spectrally_normed(d: int) -> nn.Module:
    return Between(d, SpectrallyNormed(d))


class NormedTaps(nn.Module):
    """A convolution whose weight norm is over all channels, as wav2vec2 has it for positions."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.conv = weight_norm(nn.Conv1d(d, d, 3, padding=1, groups=2), dim=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.transpose(1, 2)).transpose(1, 2).tanh()


def normed_taps(d: int) -> nn.Module:
    return Between(d, NormedTaps(d))


# -- shared and tied ----------------------------------------------------------------------------


class Shared(nn.Module):
    """One layer at three depths."""

    def __init__(self, d: int, ff: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(d)
        self.up, self.down = nn.Linear(d, ff), nn.Linear(ff, d)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = x + self.down(F.gelu(self.up(self.norm(x))))
        return x


def shared(d: int, ff: int) -> nn.Module:
    return Between(d, Shared(d, ff))


class Tied(nn.Module):
    """A readout that is the embedding, behind a norm."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, d)
        self.hidden = nn.Linear(d, d)
        self.norm = nn.LayerNorm(d)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.norm(self.hidden(self.embedding(tokens)).tanh())
        return F.linear(x, self.embedding.weight)


class TwoTowers(nn.Module):
    """One encoder for two inputs, compared by cosine with a learned temperature."""

    def __init__(self, d: int, size: int = 6) -> None:
        super().__init__()
        self.first, self.hidden = nn.Linear(FEATURES, d), nn.Linear(d, d)
        self.project = nn.Linear(d, size, bias=False)
        self.temperature = nn.Parameter(torch.tensor(2.0))

    def encoded(self, x: Tensor) -> Tensor:
        return F.normalize(self.project(self.hidden(self.first(x)).tanh()), dim=-1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.encoded(x) @ self.encoded(y).mT * self.temperature.exp()


class Autoencoder(nn.Module):
    """A hidden weight and its transpose."""

    def __init__(self, d: int, code: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(code, d) * 0.02)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.linear(x, self.weight).tanh(), self.weight.T)


def autoencoder(d: int, code: int) -> nn.Module:
    return Between(d, Autoencoder(d, code))


# -- positions and heads ------------------------------------------------------------------------


class Positions(nn.Module):
    """A learned table, one of sines, and a bias for the distance of two positions."""

    table: Tensor

    def __init__(self, d: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.learned = nn.Parameter(torch.randn(TIME, d) * 0.02)
        angles = torch.arange(TIME)[:, None] / 100 ** (torch.arange(d // 2) / (d // 2))
        self.register_buffer("table", torch.cat([angles.sin(), angles.cos()], -1))
        self.distance = nn.Embedding(2 * TIME, heads)
        self.qkv = nn.Linear(d, 3 * d, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        x = x + self.learned[:t] + self.table[:t]
        q, k, v = (y.view(b, t, self.heads, -1).transpose(1, 2) for y in self.qkv(x).chunk(3, -1))
        places = torch.arange(t)
        bias = self.distance(places[:, None] - places[None] + t).permute(2, 0, 1)[None]
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return y.transpose(1, 2).reshape(b, t, d)


def positions(d: int, heads: int) -> nn.Module:
    return Between(d, Positions(d, heads))
