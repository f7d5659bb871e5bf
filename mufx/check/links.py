"""What a small change of every value does to the values that are computed from it.

A change that a gradient made is aligned with what the gradient came from: with the input that a
weight met, with the keys of a query, with a readout. There n products add up to n times one of
them, not to sqrt(n). A weight's gradient comes from all rows of a batch, so a row meets the more of
its own the fewer rows there are, and the more of the others' the more alike they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from torch import fx

from mufx.align import Trace
from mufx.check.alike import APART, SAME, Alike, Batch, Means, bent, rectified, squared, summed
from mufx.check.starting import ATTENTION, BESIDE, SUMS, ZERO, Side, Sizes, terms_of
from mufx.constants import Constants
from mufx.magnitudes import Magnitude, Value, Weight
from mufx.ratios import Use
from mufx.rules import Rule, operation
from mufx.rules.contractions import CONTRACTIONS
from mufx.sizes import Slot

_NORMS: Final = frozenset("layer_norm group_norm batch_norm instance_norm rms_norm".split())
_MEANS: Final = frozenset({"mean", "sum", "nansum"})
_PRODUCTS: Final = frozenset({"mul", "div"})
_POSITIVE: Final = frozenset({"pow", "square", "abs", "exp"})
_POWERS: Final[Mapping[str, float]] = {"sqrt": 0.5, "rsqrt": 0.5, "square": 2.0}
"""What a derivative has beside the size of the result over that of the operand."""


class Kind(StrEnum):
    """What the operand of a link is."""

    WEIGHT = "weight"
    INPUT = "input"
    """Of a weight that it meets."""
    VALUE = "value"
    """Of a mean over keys."""
    KEY = "key"
    """What all keys have in common moves all logits alike, and a softmax does not see it."""
    TABLE = "table"
    """Of rows that are looked up."""
    GAIN = "gain"
    """What is learned and multiplies or is added entry by entry."""
    OTHER = "other"


LEARNING: Final = frozenset({Kind.WEIGHT, Kind.TABLE, Kind.GAIN})


@dataclass(frozen=True, slots=True)
class Link:
    """What a small change of one operand does to a result.

    Attributes:
        operand: The node of the operand.
        gain: The size of the result's change over that of the operand's, entries independent.
        aligned: How many times that where the change is aligned with what it is summed against.
        kind: What the operand is.
        met: How alike the rows are of what the operand is multiplied by.
        means: Of a value: the means that it goes into.
        along: The cosine of the gradient of the result and what an aligned change makes of it.
    """

    operand: str
    gain: float
    aligned: float = 1.0
    kind: Kind = Kind.OTHER
    met: Alike = SAME
    means: Means | None = None
    along: float = 1.0


class Links(Sizes):
    """The links of every node; `batch` is what the loss is a mean of."""

    def __init__(
        self,
        trace: Trace,
        constants: Constants,
        rules: Mapping[str, Rule],
        inits: Mapping[str, float],
        side: Side,
        batch: Batch,
    ) -> None:
        """A walk that has not started."""
        super().__init__(trace, constants, rules, inits, side)
        self.batch = batch
        self.links: dict[str, tuple[Link, ...]] = {}
        self.logits: dict[str, tuple[Link, ...]] = {}
        """Of the attention logits inside a fused kernel."""
        self.logit_sizes: dict[str, float] = {}
        self._alike: dict[str, Alike] = {}
        self._contracted: dict[str, Link] = {}

    def _visit(self, node: fx.Node) -> Value:
        self._contracted = {}
        value = super()._visit(node)
        if node in self.constants or not node.op.startswith("call_"):
            return value
        self._alike[node.name] = self._likeness(node)
        if operation(node) == ATTENTION:
            self.links[node.name] = tuple(self._attention(node))
        else:
            size = self.size_of(value)
            self.links[node.name] = tuple(self._link(node, n, size) for n in self.operands(node))
        return value

    def _link(self, node: fx.Node, operand: fx.Node, size: float) -> Link:
        """As the result is linear in the operand, unless it is one term of a sum."""
        if operand.name in self._contracted:
            return self._contracted[operand.name]
        name, met = operation(node), self._met(node, operand)
        kind = Kind.GAIN if self.is_weight(operand) else Kind.OTHER
        gain = size / self.size(operand)
        if name in _NORMS:
            normed = operand is node.all_input_nodes[0]
            return Link(operand.name, gain if normed else 1.0, kind=kind, met=met)
        if name in BESIDE:
            return Link(operand.name, self.filled(node, operand), kind=kind)
        if node.name in self.slopes:
            return Link(operand.name, self.slopes[node.name], kind=kind)
        if name in SUMS or self.needed:
            return Link(operand.name, 1.0, kind=kind, met=met)
        if name == "embedding":
            return Link(operand.name, gain, self._looked_up(node, operand), Kind.TABLE, APART)
        if name in _MEANS:  # the mean of a change is one over independent entries
            left = math.prod(axis.target for axis in self.axes(node))
            gain /= math.sqrt(self.entries(operand) / left)
        aligned = self._meeting(node, operand) if name in CONTRACTIONS else 1.0
        return Link(operand.name, gain * _power(node), aligned, kind, met)

    def _meeting(self, node: fx.Node, operand: fx.Node) -> float:
        """How many times larger a product is where an operand moved along its gradient.

        The gradient was a sum over the entries of the result that it goes into. Of them one has the
        n terms of its own, and each of the others the square root of n of them.
        """
        return math.hypot(1.0, math.sqrt(self.entries(operand) / self.entries(node)))

    def _met(self, node: fx.Node, operand: fx.Node) -> Alike:
        """Of the other factor of a product; what is added is multiplied by 1 in its own rows."""
        name, operands = operation(node), self.operands(node)
        if name in SUMS and self.is_weight(operand):
            return self.alike(operand)
        if name in _NORMS:
            return self.alike(operands[0]) if operands.index(operand) == 1 else SAME
        others = [n for n in operands if n is not operand]
        return self.alike(others[0]) if name in _PRODUCTS and others else SAME

    def _looked_up(self, node: fx.Node, table: fx.Node) -> float:
        """How much larger the gradient of the rows that are looked up is than that of a table."""
        return math.sqrt(max(1.0, self.entries(table) / self.entries(node)))

    def _attention(self, node: fx.Node) -> Iterator[Link]:
        """Through the logits, and through the values that they weigh.

        What all keys share moves all logits alike, and what all values share weighs the same:
        neither changes anything.
        """
        query, key, value = (*self.operands(node)[:2], self.operands(node)[-1])
        means, logits = self.means(node), self.logit_size(node)
        terms = self.axes(query)[-1].target
        aligned = math.hypot(1.0, math.sqrt(terms / means.keys))
        inner = tuple(
            Link(n.name, logits / self.size(n), aligned) for n in dict.fromkeys((query, key))
        )
        self.logits[node.name], self.logit_sizes[node.name] = inner, logits
        weighed = self.size(value) * means.unlike * self._unlike(value)
        aligned = math.hypot(1.0, math.sqrt(terms / means.reach))
        # It is a sum of n values of d entries, each times its product with the gradient.
        along = math.sqrt(means.reach / (means.reach + self.axes(value)[-1].target))
        for link in inner:
            kind = Kind.KEY if link.operand == key.name else Kind.OTHER
            seen = self._unlike(key) if link.operand == query.name else 1.0
            yield Link(link.operand, link.gain * weighed * seen, aligned, kind, along=along)
        yield Link(value.name, 1.0, kind=Kind.VALUE, means=means)

    def means(self, node: fx.Node) -> Means:
        """What all keys share is the same in all logits, and a softmax does not see it."""
        means = super().means(node)
        return replace(means, logits=means.logits * self._unlike(self.operands(node)[1]))

    def averaged(self, node: fx.Node) -> float:
        """What all values share is not averaged away."""
        return self.means(node).forward(self.alike(self.operands(node)[-1]))[0]

    def _unlike(self, node: fx.Node) -> float:
        """How much of a value is not the same in all rows of a sequence."""
        return math.sqrt(1 - min(1.0, self.alike(node).near)) or ZERO

    def result_of(
        self, uses: list[Use], weight: Weight, x: Magnitude, x_slot: Slot | None, slot: Slot | None
    ) -> Magnitude:
        """A weight's change is aligned with its input, and the input's with the weight."""
        result = super().result_of(uses, weight, x, x_slot, slot)
        operand = self.argument(x_slot) if x_slot is not None else None
        if not isinstance(operand, fx.Node):
            return result
        terms = terms_of(uses)
        kept = math.prod(axis.target for use in uses for axis in use.kept)
        aligned = math.sqrt(terms / kept)
        gain = result.ratio / x.ratio
        self._contracted[operand.name] = Link(operand.name, gain, aligned, Kind.INPUT)
        parameter = self.argument(slot) if slot is not None else None
        if isinstance(parameter, fx.Node):
            gain = result.ratio / self.drawn(weight, uses)
            met = self.alike(operand)
            self._contracted[parameter.name] = Link(
                parameter.name, gain, math.sqrt(terms), Kind.WEIGHT, met
            )
        return result

    def _likeness(self, node: fx.Node) -> Alike:
        """How alike the rows of a value are."""
        name, operands = operation(node), self.operands(node)
        values = [n for n in operands if not self.is_weight(n)]
        if name == "batch_norm" or not values:
            return APART
        if name == ATTENTION:
            return self.means(node).forward(self.alike(operands[-1]))[1]
        if name in SUMS:
            return summed([(self.size(n), self._spread(node, n)) for n in operands])
        if name in _MEANS and operation(values[0]) in _POSITIVE:
            return SAME  # a mean of many such numbers is nearly the same in all rows
        before = self.alike(values[0])
        if _power(node) == 2.0:
            return before.each(squared)
        for other in values[1:]:
            before = before.times(self.alike(other))
        if name == "relu":
            return before.each(rectified)
        if name in ("gelu", "silu", "mish"):
            size = self.size(values[0])
            return before.each(lambda cosine: bent(cosine, size))
        return before

    def _spread(self, node: fx.Node, term: fx.Node) -> Alike:
        """Of a term of a sum: what has fewer rows than the sum is the same in every sequence."""
        alike = self.alike(term)
        fewer = self.entries(term) < self.entries(node)
        return replace(alike, place=1.0) if fewer else alike

    def alike(self, node: fx.Node) -> Alike:
        """A bias is the same in every row, rows of a table are not alike."""
        if self.is_weight(node):
            return SAME if sum(axis.target > 1 for axis in self.axes(node)) <= 1 else APART
        return self._alike.get(node.name, APART)


def _power(node: fx.Node) -> float:
    """Of a power: its exponent, which its derivative is multiplied by; else 1."""
    name = operation(node)
    if name == "mul" and len(node.all_input_nodes) == 1 and node.args[0] is node.args[-1]:
        return 2.0
    if name == "pow" and len(node.args) > 1 and isinstance(node.args[1], (int, float)):
        return abs(float(node.args[1]))
    return _POWERS.get(name, 1.0)
