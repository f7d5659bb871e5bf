"""Looks on while a model is recorded, and gives every tensor its axes.

Functions of torch come down to a few ATen operations, whose schemas name every argument, so one
rule there serves all that is built of it: `einsum`, `einops`, `unflatten`, fused projections.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload

from mufx.classes.axes import AxisSpace, Equation, Var
from mufx.classes.contractions import CONTRACTIONS
from mufx.classes.elementwise import ELEMENTWISE, pointwise
from mufx.classes.fused import FUSED
from mufx.classes.lookups import LOOKUPS
from mufx.classes.reductions import REDUCTIONS
from mufx.classes.table import Axes, AxisRules, Call, Rule, tensors
from mufx.classes.views import VIEWS
from mufx.forward import Watch

RULES: AxisRules = AxisRules(ELEMENTWISE | VIEWS | CONTRACTIONS | REDUCTIONS | LOOKUPS | FUSED)


@dataclass(frozen=True, slots=True)
class Gap:
    """An operation through which the identity of some axes is not known."""

    operation: str
    axes: tuple[Var, ...]
    node: str = ""
    """The recorded node that the operation belongs to."""


@dataclass(frozen=True, slots=True)
class Clash:
    """Two equal axes whose parts do not fit together: that they grow alike is to be checked."""

    equation: Equation
    node: str = ""


class AxisWatch(Watch):  # type: ignore[no-untyped-call]
    """The axes of every tensor of one run."""

    def __init__(self, rules: Mapping[str, Rule] = RULES) -> None:
        """Nothing seen."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.space = AxisSpace()
        self.nodes: dict[str, Axes] = {}
        """By the name of the recorded node."""
        self.gaps: list[Gap] = []
        self.clashes: list[Clash] = []
        self._rules = rules
        self.named: dict[str, Axes] = {}
        """By the name of a parameter, buffer or input: the same in every run."""
        self._axes: dict[int, Axes] = {}
        self._alive: list[torch.Tensor] = []  # an id is only unique while its object lives

    # -- what a recording says --------------------------------------------------------------

    def start(self) -> None:
        """A new run of the same model begins."""
        self.nodes.clear()
        self.gaps.clear()
        self.clashes.clear()

    def know(self, node: fx.Node, tensor: torch.Tensor) -> None:
        """`node` stands for `tensor`; what was found since the node before belongs to it."""
        if node.op in ("get_attr", "placeholder"):
            known = self.named.setdefault(str(node.target), self.axes(tensor))
            self._set(tensor, known)
        self.nodes[node.name] = self.axes(tensor)
        self.gaps = [replace(g, node=g.node or node.name) for g in self.gaps]
        self.clashes = [replace(c, node=c.node or node.name) for c in self.clashes]
        self.clashes += [Clash(equation, node.name) for equation in self.space.unsolved]
        self.space.unsolved.clear()

    def axes(self, tensor: torch.Tensor) -> Axes:
        """The axes of a tensor; new ones where nothing made it."""
        if id(tensor) not in self._axes:
            self._set(tensor, tuple(self.space.new(int(n)) for n in tensor.shape))
        return self._axes[id(tensor)]

    def _set(self, tensor: torch.Tensor, axes: Axes) -> None:
        self._axes[id(tensor)] = axes
        self._alive.append(tensor)

    # -- the mode ---------------------------------------------------------------------------

    def __torch_dispatch__(
        self,
        func: Any,
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        """Carries out one call and gives its results their axes."""
        given = {**_named(func, args), **(kwargs or {})}
        for tensor in tensors(list(given.values())):
            self.axes(tensor)
        result = func(*args, **(kwargs or {}))
        if tensors(result):
            self._follow(func, given, result)
        return result

    def _follow(self, func: OpOverload, given: Mapping[str, Any], result: Any) -> None:
        name = func._schema.name.partition("::")[2]
        call = Call(self.space, name, given, result, self.axes)
        rule = self._rules.get(name) or self._rules.get(name.removesuffix("_"))
        if rule is None and torch.Tag.pointwise in func.tags:
            rule = pointwise
        if rule is None:
            self.gaps.append(Gap(name, tuple(v for x in call.tensors for v in self.axes(x))))
            return
        self._answered(result, rule(call))
        if call.lost:
            self.gaps.append(Gap(name, tuple(call.lost)))

    def _answered(self, result: Any, answer: Any) -> None:
        if isinstance(result, torch.Tensor):
            self._give(result, answer)
            return
        rows: Sequence[Axes | None] = answer
        for tensor, axes in zip(result, rows, strict=True):
            if axes is not None and isinstance(tensor, torch.Tensor):
                self._give(tensor, axes)

    def _give(self, tensor: torch.Tensor, axes: Axes) -> None:
        sizes = [self.space.size(v) for v in axes]
        assert sizes == list(tensor.shape), (sizes, tensor.shape)
        self._set(tensor, axes)


def _named(func: OpOverload, args: tuple[Any, ...]) -> dict[str, Any]:
    """The arguments of a call by the names of its schema, with defaults."""
    schema = func._schema.arguments
    named = {a.name: a.default_value for a in schema if a.has_default_value()}
    return {**named, **{a.name: value for a, value in zip(schema, args, strict=False)}}
