"""Random residual networks: branches of several kinds off one stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Branch:
    """A branch: "mlp" and "gated" widen the stream, "attention" and "heads" mix positions.

    In "attention" the size of a head grows with width, in "heads" their number does.
    """

    kind: str
    norm: str
    bias: bool


@dataclass(frozen=True)
class Net:
    """Branches in order, between a readin and a readout that may be tied."""

    branches: tuple[Branch, ...]
    tied: bool


NORMS = {"layer": nn.LayerNorm, "rms": nn.RMSNorm, "none": nn.Identity}
TOKENS, HEADS, HEAD_SIZE = 11, 2, 4


class Mixed(nn.Module):
    """What a Net describes, over tokens; `names` rename its branches."""

    def __init__(self, net: Net, width: int, names: Mapping[int, str] | None = None) -> None:
        super().__init__()
        self.read = nn.Embedding(TOKENS, width)
        self.names = [(names or {}).get(i, f"branch{i}") for i in range(len(net.branches))]
        for name, branch in zip(self.names, net.branches, strict=True):
            self.add_module(name, made(branch, width))
        self.norm = nn.LayerNorm(width)
        self.write = nn.Linear(width, TOKENS, bias=False)
        if net.tied:
            self.write.weight = self.read.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.read(tokens)
        for name in self.names:
            x = x + self.get_submodule(name)(x)
        logits: Tensor = self.write(self.norm(x))
        return logits


def made(branch: Branch, width: int) -> nn.Module:
    norm = NORMS[branch.norm](width)
    if branch.kind in ("attention", "heads"):
        heads = HEADS if branch.kind == "attention" else width // HEAD_SIZE
        return Attention(norm, width, heads, branch.bias)
    return FeedForward(norm, width, branch.kind == "gated", branch.bias)


class FeedForward(nn.Module):
    def __init__(self, norm: nn.Module, width: int, gated: bool, bias: bool) -> None:
        super().__init__()
        self.norm, self.gated = norm, gated
        self.up = nn.Linear(width, (6 if gated else 3) * width, bias=bias)
        self.down = nn.Linear(3 * width, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(self.norm(x))
        if self.gated:
            gate, x = x.chunk(2, dim=-1)
            x = F.silu(gate) * x
        else:
            x = F.gelu(x)
        y: Tensor = self.down(x)
        return y


class Attention(nn.Module):
    def __init__(self, norm: nn.Module, width: int, heads: int, bias: bool) -> None:
        super().__init__()
        self.norm, self.heads = norm, heads
        self.qkv = nn.Linear(width, 3 * width, bias=bias)
        self.out = nn.Linear(width, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        rows, length, width = x.shape
        split = (rows, length, self.heads, width // self.heads)
        q, k, v = (t.view(split).transpose(1, 2) for t in self.qkv(self.norm(x)).chunk(3, dim=-1))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        z: Tensor = self.out(y.transpose(1, 2).reshape(rows, length, width))
        return z


def tokens(batch: int = 2) -> tuple[Tensor]:
    return (torch.arange(batch * 5).reshape(batch, 5) % TOKENS,)


def expected_roles(net: Net, names: Sequence[str]) -> dict[str, str]:
    """The role of every weight matrix, from the code above."""
    roles = {"read.weight": "input"}
    if not net.tied:
        roles["write.weight"] = "output"
    for name, branch in zip(names, net.branches, strict=True):
        attends = branch.kind in ("attention", "heads")
        for layer in ("qkv", "out") if attends else ("up", "down"):
            roles[f"{name}.{layer}.weight"] = "hidden"
    return roles
