"""Follows a value through operations that are linear in it and belong to no parameter."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import fx

from mufx.align import Trace
from mufx.program import Program
from mufx.ratios import Use
from mufx.rules import operation
from mufx.sizes import Number, Slot, same

_VIEWS = frozenset(
    """
    view reshape transpose permute contiguous unsqueeze squeeze expand expand_as repeat
    repeat_interleave chunk split getitem unflatten flatten float to type_as type double half
    bfloat16 clone t swapaxes swapdims movedim masked_fill dropout neg narrow slice
    """.split()
)
_PRODUCTS = frozenset("matmul bmm baddbmm einsum".split())


@dataclass(frozen=True, slots=True)
class Literal:
    """A number that multiplies an activation: `operand * number ** power`."""

    node: fx.Node
    operand: fx.Node
    number: Number
    power: int

    def value(self, number: float) -> float:
        """The factor itself: a division's is the reciprocal."""
        return number**self.power


class Chains:
    """The linear stretches of one trace."""

    def __init__(self, program: Program, trace: Trace) -> None:
        """Of one mode of a program with `uses`."""
        self.trace = trace
        self.constants = program.constants(trace)
        self.uses: dict[str, list[Use]] = {}
        for uses in program.uses.values():
            for use in uses:
                self.uses.setdefault(use.node, []).append(use)

    def literal(self, node: fx.Node) -> Literal | None:
        """The number that a node multiplies an activation with, if that is what it does."""
        name = operation(node)
        if name not in ("mul", "div") or len(node.all_input_nodes) != 1 or len(node.args) != 2:
            return None
        (operand,) = node.all_input_nodes
        slot: Slot = 1 if node.args[0] is operand else 0
        number = self.number(node, slot)
        if number is None or operand in self.constants or (name == "div" and slot == 0):
            return None
        return Literal(node, operand, number, -1 if name == "div" else 1)

    def number(self, node: fx.Node, slot: Slot) -> Number | None:
        """The number in an argument, at every size."""
        known = self.trace.numbers.get((node.name, slot))
        if known is not None:
            return known
        value = node.args[slot] if isinstance(slot, int) else node.kwargs.get(slot)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return None
        return Number(value, value, value)

    def before(self, node: fx.Node) -> Iterator[fx.Node]:
        """The node and what it comes from, up to and including the first that is more."""
        while True:
            yield node
            if not self._passes(node):
                return
            node = node.all_input_nodes[0]

    def after(self, node: fx.Node) -> Iterator[fx.Node]:
        """What a value goes into, through linear operations and products of activations."""
        seen: set[fx.Node] = set()
        waiting = list(node.users)
        while waiting:
            user = waiting.pop()
            if user in seen:
                continue
            seen.add(user)
            yield user
            if self._is_linear(user) or self.is_softcap(user):
                waiting.extend(user.users)

    def is_product(self, node: fx.Node) -> bool:
        """Whether it contracts two activations."""
        return operation(node) in _PRODUCTS and node.name not in self.uses

    def _is_linear(self, node: fx.Node) -> bool:
        return self._passes(node) or self.is_product(node) or self._is_masked(node)

    def is_softcap(self, node: fx.Node) -> bool:
        """Whether it is the tanh of `c * tanh(x / c)`, which keeps small values as they are."""
        users = list(node.users)
        if operation(node) != "tanh" or len(users) != 1:
            return False
        inner, outer = self.literal(node.all_input_nodes[0]), self.literal(users[0])
        if inner is None or outer is None:
            return False
        return same(inner.value(inner.number.base) * outer.value(outer.number.base), 1.0)

    def _passes(self, node: fx.Node) -> bool:
        if node.op not in ("call_function", "call_method") or node.name in self.uses:
            return False
        return operation(node) in _VIEWS or self.literal(node) is not None

    def _is_masked(self, node: fx.Node) -> bool:
        """A sum with a mask or a table that depends on no activation."""
        tensors = node.all_input_nodes
        return operation(node) == "add" and sum(n not in self.constants for n in tensors) == 1
