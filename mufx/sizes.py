"""The sizes a program is looked at, and what changes from one to the next."""

from __future__ import annotations

from dataclasses import dataclass

Slot = int | str
"""Which argument of a node: a position or a keyword."""

_TOLERANCE = 1e-6
_ROUNDING = 0.03


def same(a: float, b: float) -> bool:
    """Whether two ratios are equal, up to the rounding of the literals they come from."""
    return abs(a - b) <= _TOLERANCE * max(abs(a), abs(b))


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of one tensor, at base and target width and at a size further along the way.

    `along` is the probe size, or, where base and target are the same, the size with the knobs
    that would grow. It decides growth there: a ratio of 1 does not.
    """

    base: int
    target: int
    along: int

    @property
    def grows(self) -> bool:
        """Whether the axis scales with width."""
        return not self.base == self.target == self.along

    @property
    def m(self) -> float:
        """The width multiplier target/base; 1 for an axis that does not grow."""
        return self.target / self.base if self.base else 1.0

    @property
    def is_power(self) -> bool:
        """Whether it grows by one ratio per step, up to the rounding of a size.

        `d + 16` does not: a part of the axis grows and another does not.
        """
        if self.base == self.target or self.target == self.along or 0 in (self.base, self.target):
            return True
        first, second = self.target / self.base, self.along / self.target
        return abs(first - second) <= _ROUNDING * first


@dataclass(frozen=True, slots=True)
class Number:
    """A literal in the program that is not the same at every size."""

    base: float
    target: float
    along: float

    @property
    def ratio(self) -> float:
        """target/base."""
        return self.target / self.base if self.base else 1.0

    @property
    def is_power(self) -> bool:
        """Whether it follows one power of the width over the three sizes.

        The third size lies at `base * (target/base)**2`, so a power repeats its ratio.
        """
        if self.base == self.target or self.target == self.along:
            return True  # nothing to carry over, or nothing to check it with
        return 0 not in (self.base, self.target) and same(
            self.target / self.base, self.along / self.target
        )
