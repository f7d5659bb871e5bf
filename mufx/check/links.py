"""What a small change of every value does to the values that are computed from it.

A change that a gradient made is aligned with what the gradient came from: with the input that a
weight met, with the keys of a query, with a readout. There n products add up to n times one of
them, not to sqrt(n). Most of a gradient came from other rows of the batch than the one that is
looked at, so alignment is the stronger the fewer rows there are, and the more alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from torch import fx

from mufx.align import Trace
from mufx.check.alike import averages, bent, rectified, summed
from mufx.check.starting import ATTENTION, SUMS, Side, Sizes, terms_of
from mufx.constants import Constants
from mufx.magnitudes import Magnitude, Rank, Value, Weight
from mufx.ratios import Use
from mufx.rules import Rule, operation
from mufx.rules.contractions import CONTRACTIONS
from mufx.sizes import Slot

_NORMS: Final = frozenset("layer_norm group_norm batch_norm instance_norm rms_norm".split())
_MEANS: Final = frozenset({"mean", "sum", "nansum"})


class Kind(StrEnum):
    """What the operand of a link is."""

    WEIGHT = "weight"
    INPUT = "input"
    """Of a weight that keeps an axis that grows: to a random matrix a change is any vector."""
    READ = "read"
    """Of a weight that only contracts, or of attention: all of a change is aligned."""
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Link:
    """What a small change of one operand does to a result.

    Attributes:
        operand: The node of the operand.
        gain: The size of the result's change over that of the operand's, entries independent.
        aligned: How many times that where the change is aligned with what it is summed against.
        kind: What the operand is.
    """

    operand: str
    gain: float
    aligned: float = 1.0
    kind: Kind = Kind.OTHER


class Links(Sizes):
    """The links of every node; `rows` is the number of terms that the loss is a mean of."""

    def __init__(
        self,
        trace: Trace,
        constants: Constants,
        rules: Mapping[str, Rule],
        inits: Mapping[str, float],
        side: Side,
        rows: float,
    ) -> None:
        """A walk that has not started."""
        super().__init__(trace, constants, rules, inits, side)
        self.rows = rows
        self.links: dict[str, tuple[Link, ...]] = {}
        self.logits: dict[str, tuple[Link, ...]] = {}
        """Of the attention logits inside a fused kernel."""
        self.logit_sizes: dict[str, float] = {}
        self._alike: dict[str, float] = {}
        self._contracted: dict[str, Link] = {}
        self._aligned = 1.0

    def _visit(self, node: fx.Node) -> Value:
        self._contracted, self._aligned = {}, 1.0
        value = super()._visit(node)
        if node in self.constants or not node.op.startswith("call_"):
            return value
        self._alike[node.name] = self._cosine(node)
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
        name = operation(node)
        if name in _NORMS:
            normed = operand is node.all_input_nodes[0]
            return Link(operand.name, size / self.size(operand) if normed else 1.0)
        if name in SUMS or self.needed:
            return Link(operand.name, 1.0)
        gain = size / self.size(operand)
        if name in _MEANS:  # the mean of a change is one over independent entries
            left = math.prod(axis.target for axis in self.axes(node))
            gain /= math.sqrt(self.entries(operand) / left)
        return Link(operand.name, gain, self._aligned)

    def _attention(self, node: fx.Node) -> Iterator[Link]:
        """Through the logits, and through the values that they weigh.

        Values that change in the same way are not averaged away, as those at the start are.
        """
        query, key, value = (*self.operands(node)[:2], self.operands(node)[-1])
        head = self.axes(query)[-1]
        root = math.sqrt(head.target)
        logits = self.needed[0] * (1 / root if head.grows else root)
        aligned, averaged = self._meeting(head.target), self.averaged(node)
        inner = tuple(
            Link(n.name, logits / self.size(n), aligned) for n in dict.fromkeys((query, key))
        )
        self.logits[node.name], self.logit_sizes[node.name] = inner, logits
        weighed = self.size(value) * averaged
        yield from (Link(link.operand, link.gain * weighed, aligned) for link in inner)
        yield Link(value.name, averaged, 1 / averaged, Kind.READ)

    def moved(self, value: Magnitude, factor: float, rank: Rank = Rank.RESULT) -> Magnitude:
        """A query's change is aligned with its keys."""
        if operation(self.node) in CONTRACTIONS:
            self._aligned = self._meeting(factor)
        return super().moved(value, factor, rank)

    def result_of(
        self, uses: list[Use], weight: Weight, x: Magnitude, x_slot: Slot | None, slot: Slot | None
    ) -> Magnitude:
        """A weight's change is aligned with its input, and the input's with a readout."""
        result = super().result_of(uses, weight, x, x_slot, slot)
        operand = self.argument(x_slot) if x_slot is not None else None
        if not isinstance(operand, fx.Node):
            return result
        terms = terms_of(uses)
        classes = math.prod(axis.target for use in uses for axis in use.kept)
        kind = Kind.INPUT if any(use.keeps for use in uses) else Kind.READ
        read = math.hypot(1.0, math.sqrt(terms / classes))
        self._contracted[operand.name] = Link(operand.name, result.ratio / x.ratio, read, kind)
        parameter = self.argument(slot) if slot is not None else None
        if isinstance(parameter, fx.Node):
            gain = result.ratio / self.drawn(weight)
            learned = self._meeting(terms, self._rows_of(operand))
            self._contracted[parameter.name] = Link(parameter.name, gain, learned, Kind.WEIGHT)
        return result

    def _meeting(self, terms: float, alike: float = 0.0) -> float:
        """How many times larger a sum of terms is where one row's own part is aligned."""
        return math.hypot(1.0, math.sqrt(terms / self.rows), math.sqrt(terms) * alike)

    def _cosine(self, node: fx.Node) -> float:
        """How alike the rows of a value are: the cosine of two of them."""
        name, operands = operation(node), self.operands(node)
        values = [n for n in operands if isinstance(self.item(n), Magnitude)]
        if name == "batch_norm" or not values:
            return 0.0
        if name == ATTENTION:
            return averages(self.keys(node), self.rows, causal=bool(node.kwargs.get("is_causal")))
        if name in SUMS:
            return summed([(self.size(n), self._rows_of(n)) for n in operands])
        before = math.prod(map(self._rows_of, values))
        if name == "relu":
            return rectified(before)
        return bent(before, self.size(values[0])) if name in ("gelu", "silu", "mish") else before

    def _rows_of(self, node: fx.Node) -> float:
        """A bias is the same in every row, rows of a table are not alike."""
        if isinstance(self.item(node), Weight):
            return float(sum(axis.target > 1 for axis in self.axes(node)) <= 1)
        return self._alike.get(node.name, 0.0)
