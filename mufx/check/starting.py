"""How large every value is at initialisation, at one of the two widths of a trace.

Estimates of root mean squares. The entries of a weight are independent of what they meet, so a sum
of n products is sqrt(n) times as large as one of them (central limit theorem, Tensor Programs V,
Appendix J). Sizes that the data has are left out: a slope over width does not see them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from typing import Any, Final

from torch import fx

from mufx.align import Trace
from mufx.check.alike import APART, Means
from mufx.check.bending import bending
from mufx.constants import Constants
from mufx.magnitudes import Magnitude, Rank, Several, Value, Weight
from mufx.ratios import Use, Walk
from mufx.rules import Rule, operation
from mufx.rules.contractions import CONTRACTIONS
from mufx.sizes import Axis, Number, Slot

ATTENTION: Final = "scaled_dot_product_attention"
SUMS: Final = frozenset({"add", "sub", "rsub"})
ZERO: Final = 1e-30
"""Stands for a size of zero: what it multiplies stays far below every other term of a sum."""
_BENT: Final = frozenset(
    """
    relu gelu silu mish tanh softsign elu selu celu hardtanh hardswish relu6 leaky_relu sin atan
    asinh erf tanhshrink softshrink hardshrink
    """.split()
)
"""Nonlinearities of one value that pass through 0, of which the sizes are calculated."""
_THROUGH_ZERO: Final = frozenset("glu expm1 log1p tan sinh asin erfinv clamp clip rrelu".split())
"""Others, which are linear around 0: what is small there stays as small."""
BESIDE: Final = frozenset("cat concat concatenate stack hstack vstack dstack".split())
"""What lays values side by side: each fills a part of the result."""


class Side(StrEnum):
    """At which of its widths a trace is looked at."""

    BASE = "base"
    TARGET = "target"


class Sizes(Walk):
    """The sizes at initialisation; `inits` are those of the parameters.

    The op rules count in ratios from base to target. Here an axis grows from a length of 1, so
    that a ratio is a size; what rules demand to be 1 is left as it is.
    """

    def __init__(
        self,
        trace: Trace,
        constants: Constants,
        rules: Mapping[str, Rule],
        inits: Mapping[str, float],
        side: Side,
    ) -> None:
        """A walk that has not started."""
        super().__init__(trace, constants, rules)
        self.inits, self.side = inits, side
        self.needed: list[float] = []
        self.readouts: dict[str, float] = {}
        """Of parts that read out of a fused weight: how many times as large as the others."""
        self.slopes: dict[str, float] = {}
        """Of nonlinearities: the size of their derivative."""

    def size(self, node: fx.Node) -> float:
        """The size of a value."""
        return self.size_of(self.item(node)) or ZERO

    def size_of(self, value: Value) -> float:
        """The same of what is known of it."""
        if isinstance(value, Magnitude):
            return 0.0 if value.zero else value.ratio
        if isinstance(value, Several):
            return max(map(self.size_of, value.items))
        if not value.linear and not value.factors:
            return 1.0  # 1 + g, softplus(g): a size of its own
        return value.ratio * math.prod(self.inits[n] for n in value.names | value.gains)

    def is_weight(self, node: fx.Node) -> bool:
        """Whether a value, or each of several, is made of parameters only."""
        value = self.item(node)
        parts = value.items if isinstance(value, Several) else (value,)
        return all(isinstance(part, Weight) for part in parts)

    def entries(self, node: fx.Node) -> float:
        """The number of a value's entries; 1 of an empty one, in which no size is seen."""
        if isinstance(self.values.get(node.name), Several):
            return self.entries(node.all_input_nodes[0])
        return math.prod(axis.target for axis in self.axes(node)) or 1

    def operands(self, node: fx.Node) -> list[fx.Node]:
        """What a node computes with; constants neither learn nor pass a gradient on."""
        return [n for n in node.all_input_nodes if n not in self.constants]

    def averaged(self, node: fx.Node) -> float:
        """The size of a fused attention's mean over its keys, over that of one value."""
        return self.means(node).forward(APART)[0]

    def means(self, node: fx.Node) -> Means:
        """Those that a fused attention makes, while its logits are visited."""
        keys, causal = self.axes(node.args[1])[-2].target, bool(node.kwargs.get("is_causal"))
        return Means(keys, causal, self.logit_size(node))

    def logit_size(self, node: fx.Node) -> float:
        """The size of its logits: the scale counts what is aligned, and at the start none is."""
        head = self.axes(node.args[0])[-1]
        root = math.sqrt(head.target)
        return self.needed[0] * (1 / root if head.grows else root)

    # -- the walk ---------------------------------------------------------------------------

    def _visit(self, node: fx.Node) -> Value:
        self.needed = []
        value = super()._visit(node)
        if not isinstance(value, Magnitude) or not node.op.startswith("call_"):
            return value
        resized = value if node in self.constants else self._resized(node, value)
        return replace(resized, ratio=resized.ratio * self.readouts.get(node.name, 1.0))

    def _resized(self, node: fx.Node, value: Magnitude) -> Magnitude:
        """Sums of unlike terms, and nonlinearities: rules know them where every ratio is 1."""
        name = operation(node)
        if name == ATTENTION:
            return Magnitude(value.ratio * self.averaged(node))
        if name in SUMS:
            return Magnitude(math.hypot(*map(self.size, self.operands(node))))
        if name in BESIDE:
            filled = [self.size(n) * self.filled(node, n) for n in node.all_input_nodes]
            return Magnitude(math.hypot(*filled))
        if len(self.needed) > 1:
            return Magnitude(math.hypot(*self.needed))
        if name in _BENT and len(node.all_input_nodes) == 1:
            size, self.slopes[node.name] = bending(node, self.size(node.all_input_nodes[0]))
            return Magnitude(size)
        if self.needed and name in _THROUGH_ZERO:
            return Magnitude(min(1.0, self.needed[0]))
        return value

    def filled(self, node: fx.Node, operand: fx.Node) -> float:
        """The root of the part of a value's entries that an operand fills."""
        return math.sqrt(self.entries(operand) / self.entries(node))

    # -- what rules ask ---------------------------------------------------------------------

    def item(self, operand: Any) -> Value:
        """A constant has its size at base, and at target what it has grown to."""
        value = super().item(operand)
        if not (isinstance(operand, fx.Node) and operand in self.constants):
            return value
        if not isinstance(value, Magnitude):
            return value
        grown = 1.0 if self.side is Side.BASE else value.ratio
        return replace(value, ratio=grown * self.constants.base_size(operand))

    def axes(self, operand: Any) -> tuple[Axis, ...]:
        """Axes that grow from 1 to their length here: rules then count terms, not multipliers."""
        return tuple(map(self._from_one, super().axes(operand)))

    def _from_one(self, axis: Axis) -> Axis:
        length = axis.base if self.side is Side.BASE else axis.target
        return Axis(1, length, length**2) if axis.grows else axis

    def number(self, slot: Slot, default: Number | None = None) -> Magnitude:
        """The size of a literal; a default was computed from an axis that grows from 1."""
        literal, found = self.argument(slot), self.trace.numbers.get((self.node.name, slot))
        if found is not None:
            literal = found.base if self.side is Side.BASE else found.target
        elif default is not None:
            literal = default.target
        if not isinstance(literal, (int, float)):
            return Magnitude()
        return Magnitude(abs(literal) or ZERO, neutral=not 1e-3 < abs(literal) < 1e4)

    # -- what subclasses decide -------------------------------------------------------------

    def need(self, value: Magnitude, slot: Slot, wanted: float = 1.0) -> None:
        """Nothing is demanded; what would be is a term of a sum, or what a nonlinearity bends."""
        self.needed.append(value.ratio)

    def finite_output(self, result: fx.Node, value: Magnitude) -> None:
        """An output may start at any size."""

    def moved(self, value: Magnitude, factor: float, rank: Rank = Rank.RESULT) -> Magnitude:
        """Activations that meet are independent too: queries and keys."""
        independent = operation(self.node) in CONTRACTIONS
        return super().moved(value, math.sqrt(factor) if independent else factor, rank)

    def result_of(
        self, uses: list[Use], weight: Weight, x: Magnitude, x_slot: Slot | None, slot: Slot | None
    ) -> Magnitude:
        """The square root of the number of terms."""
        return Magnitude(self.drawn(weight, uses) * x.ratio * math.sqrt(terms_of(uses)))

    def drawn(self, weight: Weight, uses: list[Use]) -> float:
        """The size of what a weight was initialised with; of a gain 1 + g, that of the whole."""
        contracted = any(use.kind == "contraction" for use in uses)
        return self.size_of(replace(weight, linear=True) if contracted else weight)


def terms_of(uses: list[Use]) -> float:
    """How many products are summed where an activation meets a weight."""
    return math.prod(axis.target for use in uses for axis in use.contracted)
