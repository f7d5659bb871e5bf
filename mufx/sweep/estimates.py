"""Numbers from few runs: where a curve is lowest, and what may be chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

# What 95 % of Student's t lie within, for 1 to 10 degrees of freedom; the last serves for more.
STUDENT: Final = (12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
_RESAMPLED: Final = 200  # times that the draws are drawn anew, for the error of a fit
_LEAST: Final = 5  # draws of a seed that a fit takes, where it has them

Bound = Literal["", "<=", ">="]
Point2 = tuple[float, float]
_Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Center:
    """Where the optimum of one line lies, as log2 of the value.

    Attributes:
        at: The place.
        error: Its standard error; None where it is not known.
        bound: "<=" at the lower end of what was tried, ">=" at the upper one: it may lie beyond.
    """

    at: float
    error: float | None = None
    bound: Bound = ""


def standard_error(values: Sequence[float]) -> float | None:
    """The standard error of the mean; None for fewer than two values."""
    if len(values) < 2 or not all(map(math.isfinite, values)):
        return None
    return stdev(values) / math.sqrt(len(values))


def noise(differences: Sequence[float]) -> float | None:
    """What the mean of differences may be by chance; None where one alone does not tell."""
    error = standard_error(differences)
    if error is None:
        return None
    return STUDENT[min(len(differences) - 1, len(STUDENT)) - 1] * error


# -- on a grid ----------------------------------------------------------------------------------


def center_of(curves: Sequence[Sequence[Point2]]) -> Center:
    """The mean of the seeds' vertices, each curve over the same values, from small to large.

    A seed that has no vertex counts with its best value, and then no error is known.
    """
    places = [x for x, _ in curves[0]]
    means = [fmean(losses) for losses in zip(*([y for _, y in c] for c in curves), strict=True)]
    best = means.index(min(means))
    if len(places) > 1 and best in (0, len(places) - 1):
        return Center(places[best], bound=">=" if best else "<=")
    found = [vertex(curve) for curve in curves]
    lowest = [min(curve, key=lambda point: point[1])[0] for curve in curves]
    at = fmean(x if v is None else v for v, x in zip(found, lowest, strict=True))
    known = [v for v in found if v is not None]
    return Center(at, standard_error(known) if len(known) == len(found) else None)


def vertex(curve: Sequence[Point2]) -> float | None:
    """Where a curve is lowest: the vertex of a parabola through its lowest point and neighbours.

    None at an end of the curve, and beside a run that diverged.
    """
    i = min(range(len(curve)), key=lambda k: curve[k][1])
    if i in (0, len(curve) - 1) or not all(math.isfinite(curve[k][1]) for k in (i - 1, i, i + 1)):
        return None
    (x0, y0), (x, y), (x2, y2) = curve[i - 1 : i + 2]
    left, right = (y0 - y) / (x - x0), (y2 - y) / (x2 - x)
    return x + ((x2 - x) * left - (x - x0) * right) / (2 * (left + right))


# -- over draws ---------------------------------------------------------------------------------


def fitted(seeds: Sequence[Sequence[Point2]]) -> Center | None:
    """The vertex of one parabola over the better draws of all seeds, each seed at its own height.

    Its error is the spread over draws drawn anew from these (bootstrap). None where the draws are
    too few, or mostly show no minimum.
    """
    held = [np.array([p for p in seed if math.isfinite(p[1])], dtype=float) for seed in seeds]
    held = [points for points in held if len(points)]
    found = _lowest(held)
    if found is None:
        return None
    low, high = (float(end(np.concatenate(held)[:, 0])) for end in (np.min, np.max))
    if not low < found < high:
        return Center(min(max(found, low), high), bound="<=" if found <= low else ">=")
    generator = np.random.default_rng(0)
    again = [
        _lowest([points[generator.integers(len(points), size=len(points))] for points in held])
        for _ in range(_RESAMPLED)
    ]
    spread = [min(max(at, low), high) for at in again if at is not None]
    return Center(found, stdev(spread)) if len(spread) > _RESAMPLED / 2 else None


def _lowest(seeds: Sequence[_Array]) -> float | None:
    """The vertex; None where a parabola does not fit or has none."""
    kept = [points[np.argsort(points[:, 1])][: max(_LEAST, len(points) // 2)] for points in seeds]
    count = sum(map(len, kept))
    if count < len(kept) + 4:
        return None
    x, y = np.concatenate(kept).T
    middle = float(x.mean())
    heights = np.repeat(np.eye(len(kept)), [len(points) for points in kept], axis=0)
    terms = np.column_stack([(x - middle) ** 2, x - middle, heights])
    curvature, slope, *_ = np.linalg.lstsq(terms, y, rcond=None)[0].tolist()
    return middle - slope / (2 * curvature) if curvature > 0 else None
