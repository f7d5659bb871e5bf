"""Log-log slopes over width, their uncertainty, and what they say."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np

GROWS: Final = 0.15
"""Above its prediction no change may grow by more: growth is judged strictly. As everywhere here it
counts where two standard errors are past it: of a hundred nodes that are right, a few lie beyond
one."""
VANISHES: Final = -0.5
"""Loosely: what falls slowly may be on its way."""
SHORT: Final = 0.25
"""What is known exactly may fall short of it by this and two standard errors."""
NOISY: Final = 0.15
"""A standard error above which a slope says nothing, unless it is two of them away from 0."""


class Verdict(StrEnum):
    """What the measured slope says of a node, whatever was predicted."""

    FLAT = "flat"
    GROWS = "grows"
    VANISHES = "vanishes"
    NOISY = "too noisy to say"
    DIVERGED = "diverged"
    STILL = "left out"
    CONSTANT = "constant"


UNJUDGED: Final = frozenset({Verdict.NOISY, Verdict.STILL, Verdict.CONSTANT})
"""What says nothing of a node, neither good nor bad."""


@dataclass(frozen=True, slots=True)
class Slope:
    """A slope of log size over log width: the mean over seeds, and its standard error.

    `value` is None where there is none, and `missing` says why: the size is 0 somewhere (a
    constant, or a readout of zeros before its first update) or is not finite.
    """

    value: float | None
    error: float = 0.0
    missing: Verdict = Verdict.STILL

    @property
    def verdict(self) -> Verdict:
        """In words."""
        return self.relative_to(0.0)

    def relative_to(self, predicted: float) -> Verdict:
        """The verdict on what is left of the slope once the prediction is taken off."""
        if self.value is None:
            return self.missing
        left, two = self.value - predicted, 2 * self.error
        if left - two > GROWS:
            return Verdict.GROWS
        if left + two < VANISHES:
            return Verdict.VANISHES
        hidden = self.error > NOISY and abs(left) < two
        return Verdict.NOISY if left > GROWS or hidden else Verdict.FLAT

    def falls_short_of(self, expected: float) -> bool:
        """Whether the slope is certainly below what is known of it."""
        if self.value is None:
            return self.missing is Verdict.VANISHES
        return self.value + 2 * self.error < expected - SHORT


def fit(widths: Sequence[int], sizes: Sequence[Sequence[float]]) -> Slope:
    """The slope of sizes by width and seed, (widths, seeds).

    The error is the larger of the spread of the seeds' own slopes and of the residuals about the
    line, so that one seed has an error too. A size that is not finite is a run that diverged.
    """
    table = np.array(sizes, dtype=np.float64)
    if not np.isfinite(table).all():
        return Slope(None, math.inf, Verdict.DIVERGED)
    if (table <= 0).any():
        return Slope(None, 0.0, _of_zeros(table))
    x, heights = np.log(np.array(widths, dtype=np.float64)), np.log(table)
    each = np.polyfit(x, heights, 1)[0]
    value = float(each.mean())
    return Slope(value, max(_spread(each), _residual(x, heights.mean(axis=1))))


def _of_zeros(sizes: np.ndarray) -> Verdict:
    """What sizes say of which some are 0: to lose all of it is the steepest way to vanish."""
    if (sizes <= 0).all():
        return Verdict.CONSTANT
    lost = (sizes[1:] <= 0).all(axis=1).any()
    return Verdict.VANISHES if lost and (sizes[0] > 0).all() else Verdict.STILL


def _spread(slopes: np.ndarray) -> float:
    return float(slopes.std(ddof=1) / math.sqrt(len(slopes))) if len(slopes) > 1 else 0.0


def _residual(x: np.ndarray, y: np.ndarray) -> float:
    left = y - np.polyval(np.polyfit(x, y, 1), x)
    spread = float(((x - x.mean()) ** 2).sum())
    return math.sqrt(float((left**2).sum()) / max(1, len(x) - 2) / spread)


def fitted(measured: Mapping[int, Sequence[Mapping[str, float]]]) -> dict[str, Slope]:
    """By node that every finished run has: its slope. A run that diverged has no node at all."""
    widths = sorted(measured)
    runs = [run for width in widths for run in measured[width] if run]
    names = [n for n in runs[0] if all(n in run for run in runs)] if runs else []
    return {
        name: fit(widths, [[run.get(name, math.inf) for run in measured[w]] for w in widths])
        for name in names
    }
