"""The static prediction: the exponent of every node's size, from the ratio calculation."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from mufx.align import Trace
from mufx.check.watch import named
from mufx.magnitudes import Magnitude, Weight
from mufx.passes.prove import walked
from mufx.program import Optimizer, Program
from mufx.ratios import Check, Scaling, Use
from mufx.sizes import Slot


class _Standard(Check):
    """What each use of a weight adds by itself, where its operand has kept its size."""

    def __init__(self, *given: Any) -> None:
        """A walk that keeps the growth at every node with weights."""
        super().__init__(*given)
        self.growth: dict[str, float] = {}

    def result_of(
        self, uses: list[Use], weight: Weight, x: Magnitude, x_slot: Slot | None, slot: Slot | None
    ) -> Magnitude:
        """Notes what is learned: a step of the rate times the terms of the sum."""
        grown = [self.scalings[use.parameter].update * use.m_in for use in uses]
        before = self.growth.get(self.node.name, 0.0)
        self.growth[self.node.name] = max(before, *grown) if grown else before
        return Magnitude()


def of_converted(program: Program, m: float) -> dict[str, float]:
    """By node of the emitted module in training: the exponent in the width multiplier `m`.

    0 nearly everywhere. Where a multiplier is folded into a gain or a bias it is not, on purpose.
    """
    walk = walked(program, program.train)
    found = {n: v.ratio for n, v in walk.values.items() if isinstance(v, Magnitude)}
    return _exponents(program.train, found, m)


def of_standard(program: Program, original: Program, m: float) -> dict[str, float]:
    """The same of the original in standard parametrization, trained with Adam at one rate.

    Only for nodes that use a weight, and only what that weight adds where its operand has kept
    its size; what grew before it comes on top. Nothing is predicted for SGD: its updates follow
    gradients, whose sizes the calculation only knows where every ratio is 1.
    """
    if original.optimizer is Optimizer.SGD:
        return {}
    drawn = {name: Scaling(1.0, 1.0) for name in program.inits}
    trace = original.train
    walk = _Standard(trace, original.constants(trace), original.rules, drawn)
    walk.run()
    return _exponents(trace, walk.growth, m)


def _exponents(trace: Trace, ratios: Mapping[str, float], m: float) -> dict[str, float]:
    seen: Counter[tuple[str, str]] = Counter()
    found: dict[str, float] = {}
    for node in trace.graph.nodes:
        if not node.op.startswith("call_"):
            continue
        name = named(node, trace.recording.origins[node.name], seen)
        if ratios.get(node.name, 0.0) > 0:
            found[name] = math.log(ratios[node.name]) / math.log(m)
    return found
