"""Values whose size makes no difference, because a norm brings them back to one of its own.

    y = linear(x, w);  y * rsqrt(mean(y**2) + eps)     a larger y gives the same

A weight that makes such a value learns by the ratio of its update to its init alone.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import MutableMapping
from dataclasses import replace

from torch import fx

from mufx.magnitudes import Magnitude, Several, Value, Weight
from mufx.ratios import Use, Walk
from mufx.rules.creation import made
from mufx.rules.elementwise import sizeless
from mufx.rules.table import operation
from mufx.sizes import Slot, same

_LARGER = 1.7  # times; no power that a width multiplier would have
_WITHOUT_GRADIENT = (made, sizeless)  # they give the same too, but nothing is learned through them


class Rescaling(Walk):
    """Asks of a node what would be different if its result were larger."""

    def __init__(self, walk: Walk) -> None:
        """Questions on what `walk` found, once it has run."""
        super().__init__(walk.trace, walk.constants, walk.rules)
        self._found = walk.values
        self._demands: list[float] = []

    def is_lost(self, node: fx.Node) -> bool:
        """Whether nothing is: whatever reads it ends in a norm of it, or chooses by it."""
        found = self._found[node.name]
        if not isinstance(found, Magnitude):
            return False
        normed = False
        moved: dict[str, Value] = {node.name: replace(found, ratio=found.ratio * _LARGER)}
        pending = {self.order[user.name]: user for user in node.users}
        while pending:
            reader = pending.pop(min(pending))  # in the order of the graph: all operands are known
            before, asked = self._visited(reader, self._found)
            after, asks = self._visited(reader, ChainMap(moved, self._found))
            if reader.op == "output" or asked != asks:
                return False
            if not _equal(before, after):
                moved[reader.name] = after
                pending |= {self.order[user.name]: user for user in reader.users}
            elif self.rules.get(operation(reader)) not in _WITHOUT_GRADIENT:
                normed = True
        return normed

    def _visited(
        self, node: fx.Node, values: MutableMapping[str, Value]
    ) -> tuple[Value, list[float]]:
        """What a node yields, and the sizes that it was asked about on the way."""
        self.values, self._demands = values, []
        return self._visit(node), self._demands

    def need(self, value: Magnitude, slot: Slot, wanted: float = 1.0) -> None:
        """A larger operand would be another."""
        self._demands.append(value.ratio / wanted)

    def result_of(
        self, uses: list[Use], weight: Weight, x: Magnitude, x_slot: Slot | None, slot: Slot | None
    ) -> Magnitude:
        """As would one that meets a weight."""
        self._demands.append(x.ratio)
        return super().result_of(uses, weight, x, x_slot, slot)


def _equal(one: Value, other: Value) -> bool:
    if isinstance(one, Several) and isinstance(other, Several):
        return all(_equal(a, b) for a, b in zip(one.items, other.items, strict=True))
    if isinstance(one, Magnitude) and isinstance(other, Magnitude):
        return same(one.ratio, other.ratio)
    return type(one) is type(other)
