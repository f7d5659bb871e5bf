"""What a sweep found: the optimum of every line, how far it moves, and what to train with."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from statistics import fmean, stdev
from typing import Final

from mufx.sweep.settings import Parametrization, Plan
from mufx.sweep.study import Result
from mufx.sweep.values import Value

NOISE: Final = 2.0  # standard errors that a difference of losses may have by chance

Point2 = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Sample:
    """The losses at one choice of values, one for each seed; inf where a run diverged."""

    values: Mapping[str, Value]
    losses: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean loss over the seeds; inf where one of them diverged."""
        return fmean(self.losses)


@dataclass(frozen=True, slots=True)
class Optimum:
    """The best values of one parametrization at one width.

    Attributes:
        values: With the lowest mean loss over the seeds, of those that were tried.
        loss: That loss.
        loss_error: The standard error of the loss over the seeds; None for one seed.
        center: log2 of the first hyperparameter's optimum, between the values tried: the vertex
            of a parabola through the best value and its neighbours, averaged over the seeds.
        center_error: Its standard error over the seeds; None for one seed.
        edge: Whether the best value is the first or the last one tried.
        diverged: How many runs ended with a loss that is not finite.
        runs: Of how many.
    """

    parametrization: Parametrization
    width: int
    values: Mapping[str, Value]
    loss: float
    loss_error: float | None
    center: float | None
    center_error: float | None
    edge: bool
    diverged: int
    runs: int


@dataclass(frozen=True, slots=True)
class Shift:
    """How far the optimum moves from the narrowest to the widest model.

    Attributes:
        on_grid: From best value to best value, in steps of the grid.
        steps: Between the interpolated optima, in steps of the grid.
        error: The standard error of `steps` over the seeds; None for one seed.
    """

    parametrization: Parametrization
    on_grid: float
    steps: float
    error: float | None


@dataclass(frozen=True, slots=True)
class Shared:
    """The losses of the converted models at the narrowest one's optimum.

    Attributes:
        values: That optimum.
        losses: By width, the mean loss over the seeds.
        worse: The widths that lose to the next narrower one by more than noise.
    """

    values: Mapping[str, Value]
    losses: Mapping[int, float]
    worse: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Summary:
    """Everything that a sweep found."""

    axis: str
    step: float
    curves: Mapping[tuple[Parametrization, int], tuple[Sample, ...]]
    optima: tuple[Optimum, ...]
    shifts: tuple[Shift, ...]
    shared: Shared | None

    def of(self, parametrization: Parametrization) -> tuple[Optimum, ...]:
        """The optima of a parametrization, from narrow to wide."""
        return tuple(o for o in self.optima if o.parametrization is parametrization)

    def document(self) -> dict[str, object]:
        """The summary as JSON takes it: an infinite loss is null."""
        curves = [
            {
                "parametrization": line[0].value,
                "width": line[1],
                "samples": [_finite(asdict(sample)) for sample in samples],
            }
            for line, samples in self.curves.items()
        ]
        return {
            "axis": self.axis,
            "step": self.step,
            "curves": curves,
            "optima": [_finite(asdict(o)) for o in self.optima],
            "shifts": [_finite(asdict(s)) for s in self.shifts],
            "shared": _finite(asdict(self.shared)) if self.shared is not None else None,
        }


def summarise(plan: Plan, results: Iterable[Result]) -> Summary:
    """The optima and their shifts; the first hyperparameter of the plan is the axis."""
    axis = plan.over[0]
    held = list(results)
    curves = {
        (parametrization, width): _samples(
            [
                r
                for r in held
                if (r.point.parametrization, r.point.width) == (parametrization, width)
            ]
        )
        for parametrization in plan.parametrizations
        for width in plan.widths
    }
    optima = tuple(_optimum(line, samples, axis.name) for line, samples in curves.items())
    summary = Summary(axis.name, axis.step, curves, optima, (), None)
    shifts = tuple(
        shift
        for parametrization in plan.parametrizations
        if (shift := _shift(summary, parametrization)) is not None
    )
    return replace(summary, shifts=shifts, shared=_shared(summary))


def _samples(results: Iterable[Result]) -> tuple[Sample, ...]:
    """By choice of values, the losses of all seeds."""
    found: dict[tuple[tuple[str, Value], ...], list[float]] = {}
    for result in results:
        found.setdefault(tuple(result.values.items()), []).append(result.loss)
    samples = [Sample(dict(values), tuple(losses)) for values, losses in found.items()]
    return tuple(sorted(samples, key=lambda sample: _sortable(sample.values)))


def _sortable(values: Mapping[str, Value]) -> list[tuple[bool, float, str]]:
    return [
        (isinstance(v, str), 0.0 if isinstance(v, str) else float(v), str(v))
        for v in values.values()
    ]


def _optimum(line: tuple[Parametrization, int], samples: Sequence[Sample], axis: str) -> Optimum:
    best = min(samples, key=lambda sample: sample.mean)
    profile = [s for s in samples if _others(s, axis) == _others(best, axis)]
    centers = _centers(profile, axis)
    runs = [loss for sample in samples for loss in sample.losses]
    return Optimum(
        parametrization=line[0],
        width=line[1],
        values=best.values,
        loss=best.mean,
        loss_error=_error(best.losses),
        center=fmean(centers) if centers else None,
        center_error=_error(centers),
        edge=len(profile) > 1 and best in (profile[0], profile[-1]),
        diverged=sum(math.isinf(loss) for loss in runs),
        runs=len(runs),
    )


def _others(sample: Sample, axis: str) -> dict[str, Value]:
    return {name: value for name, value in sample.values.items() if name != axis}


def _centers(profile: Sequence[Sample], axis: str) -> list[float]:
    """log2 of each seed's optimum; none where the axis has no logarithm."""
    places = [_log2(sample.values[axis]) for sample in profile]
    if not places or any(place is None for place in places):
        return []
    known = [place for place in places if place is not None]
    seeds = min(len(sample.losses) for sample in profile)
    return [
        vertex([(x, s.losses[seed]) for x, s in zip(known, profile, strict=True)])
        for seed in range(seeds)
    ]


def vertex(curve: Sequence[Point2]) -> float:
    """Where a curve is lowest: the vertex of a parabola through its lowest point and neighbours.

    At an end of the curve, and beside a run that diverged, it is the lowest point itself.
    """
    i = min(range(len(curve)), key=lambda k: curve[k][1])
    x, y = curve[i]
    if i in (0, len(curve) - 1) or not all(math.isfinite(curve[k][1]) for k in (i - 1, i + 1)):
        return x
    (x0, y0), (x2, y2) = curve[i - 1], curve[i + 1]
    left, right = (y0 - y) / (x - x0), (y2 - y) / (x2 - x)
    if left + right == 0:
        return x
    return x + ((x2 - x) * left - (x - x0) * right) / (2 * (left + right))


def _shift(summary: Summary, parametrization: Parametrization) -> Shift | None:
    optima = summary.of(parametrization)
    first, last = optima[0], optima[-1]
    ends = [_log2(optimum.values[summary.axis]) for optimum in (first, last)]
    if ends[0] is None or ends[1] is None or first.center is None or last.center is None:
        return None
    unit = math.log2(summary.step)
    errors = (first.center_error, last.center_error)
    error = None if None in errors else math.hypot(*(e or 0.0 for e in errors)) / unit
    return Shift(
        parametrization,
        on_grid=(ends[1] - ends[0]) / unit,
        steps=(last.center - first.center) / unit,
        error=error,
    )


def _shared(summary: Summary) -> Shared | None:
    """What the narrowest optimum gives at every width; None where no other width tried it."""
    optima = summary.of(Parametrization.MUP)
    if not optima:
        return None
    values = optima[0].values
    found = {
        optimum.width: sample
        for optimum in optima
        for sample in summary.curves[Parametrization.MUP, optimum.width]
        if sample.values == values
    }
    if len(found) < len(optima):
        return None
    widths = list(found)
    worse = [b for a, b in pairwise(widths) if _loses(found[b], found[a])]
    return Shared(values, {w: s.mean for w, s in found.items()}, tuple(worse))


def _loses(wide: Sample, narrow: Sample) -> bool:
    """Whether the losses are higher, seed by seed, by more than noise."""
    if not math.isfinite(wide.mean) or not math.isfinite(narrow.mean):
        return math.isinf(wide.mean) and math.isfinite(narrow.mean)
    differences = [a - b for a, b in zip(wide.losses, narrow.losses, strict=True)]
    return fmean(differences) > NOISE * (_error(differences) or 0.0)


def _error(values: Sequence[float]) -> float | None:
    """The standard error of the mean; None for fewer than two values."""
    if len(values) < 2 or not all(map(math.isfinite, values)):
        return None
    return stdev(values) / math.sqrt(len(values))


def _log2(value: Value) -> float | None:
    if isinstance(value, bool | str) or value <= 0:
        return None
    return math.log2(value)


def _finite(value: object) -> object:
    """The same for JSON, which has no infinity."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
