"""Which parameters can take over factors that stand in the forward pass, exactly.

Two programs are compared: the corrected one, and the original with rescaled parameters. Every
value of the second is `scale` times that of the first, where a scale is a product of unknown
powers: of the factors on the parameters, and of the corrections that are missing. An operation
either passes scales on (a product multiplies them, a sum needs equal ones) or it needs a scale of
1. These demands are linear equations in the logarithms; a solution is an exact absorption, for
every value of the parameters and so after every step of training.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction

from mufx.sizes import same


@dataclass(frozen=True, slots=True, order=True)
class Missing:
    """A factor of the corrected program that the original lacks: the node, and in which mode."""

    node: str
    training: bool


Term = str | Missing
"""The factor on a parameter, by its name, or a missing factor."""
Scale = Mapping[Term, Fraction]
"""A product of powers; the empty one is 1."""

ONE: Scale = {}


def power(scale: Scale, exponent: Fraction | int) -> Scale:
    """`scale ** exponent`."""
    return {term: e * exponent for term, e in scale.items()} if exponent else ONE


def product(*scales: Scale) -> Scale:
    """The product of scales."""
    held = [s for s in scales if s]
    if len(held) < 2:
        return held[0] if held else ONE
    total: dict[Term, Fraction] = {}
    for scale in held:
        for term, exponent in scale.items():
            total[term] = total.get(term, Fraction(0)) + exponent
    return {term: exponent for term, exponent in total.items() if exponent}


@dataclass(frozen=True, slots=True)
class Conflict:
    """A demand that no factor on a parameter can meet."""

    node: str
    training: bool
    missing: tuple[Missing, ...]
    """The factors that would have to be absorbed and cannot be."""


class Absorption:
    """The equations, solved as they come.

    Each is solved for the parameter that comes first in an order of preference. What the equations
    leave free keeps its scale of 1.
    """

    def __init__(self, factors: Mapping[Missing, float], order: Iterable[str]) -> None:
        """No equation yet; `order` are the parameters, the ones to rescale first."""
        self.factors = factors
        self.conflicts: list[Conflict] = []
        self._order = {name: i for i, name in enumerate(order)}
        self._solved: dict[str, Scale] = {}

    def demand(self, left: Scale, right: Scale, node: str, training: bool) -> None:
        """The two scales are equal; `node` is where that is needed."""
        ratio = self.reduced(product(left, power(right, -1)))
        unknown = [term for term in ratio if isinstance(term, str)]
        if unknown:
            first = min(unknown, key=self._order.__getitem__)
            rest = {term: e for term, e in ratio.items() if term != first}
            self._solved[first] = power(rest, -1 / ratio[first])
        elif not same(self._value(ratio), 1.0):
            missing = sorted(t for t in ratio if isinstance(t, Missing))
            self.conflicts.append(Conflict(node, training, tuple(missing)))

    def reduced(self, scale: Scale) -> Scale:
        """The scale in terms of what is still unknown."""
        while known := [t for t in scale if isinstance(t, str) and t in self._solved]:
            kept: Scale = {t: e for t, e in scale.items() if t not in known}
            scale = product(kept, *(power(self._solved[str(t)], scale[t]) for t in known))
        return scale

    def solution(self) -> dict[str, float]:
        """The factor on every parameter that gets one."""
        found = {name: self._value(self.reduced({name: Fraction(1)})) for name in self._solved}
        return {name: value for name, value in found.items() if not same(value, 1.0)}

    def _value(self, scale: Scale) -> float:
        return math.prod(self._powers(scale))

    def _powers(self, scale: Scale) -> Iterator[float]:
        for term, exponent in scale.items():
            if isinstance(term, Missing):  # an unknown that is left is 1
                yield self.factors[term] ** float(exponent)
