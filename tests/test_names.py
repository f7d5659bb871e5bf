"""Inputs, parameters and buffers that are called as operations are."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

import mufx
from mufx.construction import is_in_place, is_random
from mufx.rules import RULES, operation

# Those that the compiler itself asks for, and one of every family of rules.
OPERATIONS = """
    cat concat slice narrow getitem setitem copy split multi_head_attention_forward conv1d linear
    softmax mul full normal rand
""".split()
Rename = Callable[[str], str]
X = torch.randn(2, 6, generator=torch.Generator().manual_seed(0))


def plain(name: str) -> str:
    return f"plainly_{name}"


def same(name: str) -> str:
    return name


class Joined(nn.Module):
    """A hidden layer beside 2 features, and a part of fixed size: where names were once read."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(6, width)
        self.second = nn.Linear(width, 2 * width)
        self.readout = nn.Linear(2 * width + 2, 3)

    def joined(self, hidden: Tensor, x: Tensor) -> Tensor:
        hidden = torch.cat([self.second(hidden).relu(), x[:, :2]], 1)
        result: Tensor = self.readout(hidden * self.first.out_features**-0.5)
        return result


def taking_inputs(width: int, names: list[str]) -> nn.Module:
    """A model whose forward has parameters of these names."""

    class Taking(Joined):
        def forward(self, *values: Tensor) -> Tensor:
            return self.joined(self.first(sum(values[1:], values[0])), values[0])

    taken = [inspect.Parameter(n, inspect.Parameter.POSITIONAL_OR_KEYWORD) for n in names]
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    forward: Any = Taking.forward
    forward.__signature__ = inspect.Signature([own, *taken])
    return Taking(width)


class Holding(Joined):
    """A model that multiplies with what it holds under these names."""

    def __init__(self, width: int, names: list[str], parameters: bool) -> None:
        super().__init__(width)
        self.names = names
        for name in names:
            gain = torch.full((width,), 1.01)
            if parameters:
                self.register_parameter(name, nn.Parameter(gain))
            else:
                self.register_buffer(name, gain)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        for name in self.names:
            hidden = hidden * getattr(self, name)
        return self.joined(hidden, x)


def model(kind: str, rename: Rename, width: int) -> nn.Module:
    free = [n for n in OPERATIONS if kind == "inputs" or not hasattr(nn.Module, n)]
    names = [rename(n) for n in free]
    if kind == "inputs":
        return taking_inputs(width, names)
    return Holding(width, names, kind == "parameters")


def inputs(kind: str) -> tuple[Tensor, ...]:
    return (X,) * len(OPERATIONS) if kind == "inputs" else (X,)


def found(kind: str, rename: Rename) -> tuple[object, ...]:
    """Labels, scales, changes and diagnostics, by the names before `plain`."""
    conversion = mufx.convert(
        lambda width: model(kind, rename, width), inputs(kind), {"width": 16}, {"width": 64}
    )
    manifest = conversion.manifest
    scales = {
        name.removeprefix(plain("")): (e.role, e.m_in, e.m_out, e.lr_scale, e.init_correction)
        for name, e in manifest.parameters.items()
    }
    changes = [(c.before, c.after) for c in manifest.changes]
    return scales, changes, [d.code for d in manifest.diagnostics]


@pytest.mark.parametrize("kind", ["inputs", "parameters", "buffers"])
def test_a_name_is_no_operation(kind: str) -> None:
    assert found(kind, same) == found(kind, plain)


@pytest.mark.parametrize("op", ["placeholder", "get_attr", "output"])
def test_only_calls_have_an_operation(op: str) -> None:
    graph = fx.Graph()
    nodes = [graph.create_node(op, name) for name in (*RULES, "normal_", "iadd")]

    assert {operation(node) for node in nodes} == {""}
    assert not any(is_random(node) or is_in_place(node) for node in nodes)
