"""The walk over a graph that writes down what every operation demands of the scales it meets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from torch import fx

from mufx.absorption.equations import ONE, Absorption, Missing, Scale, product
from mufx.align import Trace
from mufx.rules import operation
from mufx.sizes import Slot

Passing = Callable[["Scaling", fx.Node], Scale]
"""How one operation passes scales on: the scale of its result, and demands on the operands."""


class Scaling:
    """One walk.

    `table` says how operations pass scales on, by name. `parameters` are those that may get a
    factor. `numbers` and `nodes` are the factors that the corrected graph has and the original
    does not: on a literal, and as a node or a buffer.
    """

    def __init__(
        self,
        trace: Trace,
        system: Absorption,
        table: Mapping[str, Passing],
        parameters: frozenset[str],
        numbers: Mapping[tuple[str, Slot], Missing],
        nodes: Mapping[str, Missing],
    ) -> None:
        """A walk that has not started."""
        self._trace, self._system, self._table = trace, system, table
        self._parameters = parameters
        self._numbers, self._nodes = numbers, nodes
        self._scales: dict[str, Scale] = {}
        self._node: fx.Node = trace.graph._root
        self._read: set[Slot] = set()

    def run(self) -> None:
        """Visits every node."""
        for node in self._trace.graph.nodes:
            self._node, self._read = node, set()
            self._scales[node.name] = self._visit(node)

    def _visit(self, node: fx.Node) -> Scale:
        if node.op == "get_attr":
            own: Scale = {str(node.target): Fraction(1)} if self._is_parameter(node) else ONE
            return self._original(node, own)
        if not node.op.startswith("call_"):
            return needs_one(self, node)
        rule = self._table.get(operation(node), needs_one)
        result = self._original(node, rule(self, node))
        for name, slot in self._numbers:
            if name == node.name and slot not in self._read:
                self.demand(self.scale(slot), ONE)
        if _is_inplace(node) and not self._is_unshared(node):
            self.demand(result, self.scale(0))  # whoever else holds the memory sees the same scale
        return result

    def _is_parameter(self, node: fx.Node) -> bool:
        return str(node.target) in self._parameters

    def _is_unshared(self, node: fx.Node) -> bool:
        """Whether nothing but this operation sees the memory that it writes to."""
        held = node.args[0]
        while isinstance(held, fx.Node) and len(held.users) == 1:
            if held.op in ("get_attr", "placeholder"):
                return False
            if self._table.get(operation(held)) is not kept:
                return True
            held = held.args[0]
        return False

    def _original(self, node: fx.Node, scale: Scale) -> Scale:
        """Without the factor that the corrected graph has here."""
        missing = self._nodes.get(node.name)
        return scale if missing is None else product(scale, {missing: Fraction(-1)})

    def scale(self, slot: Slot) -> Scale:
        """Of the operand in an argument slot, literal or tensor."""
        self._read.add(slot)
        missing = self._numbers.get((self._node.name, slot))
        if missing is not None:
            return {missing: Fraction(-1)}
        args = self._node.args
        held = (args[slot] if slot < len(args) else None) if isinstance(slot, int) else None
        return self.of(self._node.kwargs.get(slot) if isinstance(slot, str) else held)

    def of(self, operand: Any) -> Scale:
        """Of a node; 1 for a literal."""
        return self._scales[operand.name] if isinstance(operand, fx.Node) else ONE

    def is_empty(self, operand: fx.Node) -> bool:
        """Whether it has no entries, as a cache before its first token."""
        value = self._trace.recording.values[operand.name]
        return value is not None and 0 in value.sizes

    def demand(self, left: Scale, right: Scale) -> None:
        """Two scales have to be equal."""
        if left or right:
            self._system.demand(left, right, self._node.name, self._trace.training)


def needs_one(scaling: Scaling, node: fx.Node) -> Scale:
    """Nothing is known: no operand may have a factor."""
    for operand in node.all_input_nodes:
        scaling.demand(scaling.of(operand), ONE)
    return ONE


def kept(scaling: Scaling, node: fx.Node) -> Scale:
    """Homogeneous of degree 1 in the first operand; the others choose or give shapes."""
    return scaling.scale(0 if node.args else "input")


def _is_inplace(node: fx.Node) -> bool:
    name = str(getattr(node.target, "__name__", node.target))
    if getattr(node.target, "__module__", "") == "_operator":
        return name in _INPLACE_OPERATORS
    return name.endswith("_") and not name.startswith("_")


_INPLACE_OPERATORS = frozenset("iadd isub imul itruediv ipow imatmul".split())
