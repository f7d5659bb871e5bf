"""What a sweep found: the optimum of every line, how far it moves, and what to train with."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Final

from mufx.sweep.estimates import Bound, Center, center_of, fitted, noise, standard_error
from mufx.sweep.settings import Parametrization, Plan
from mufx.sweep.study import Result
from mufx.sweep.values import Value

Key = tuple[tuple[str, Value], ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """The losses at one choice of values, one for each seed; inf where a run diverged."""

    values: Mapping[str, Value]
    seeds: tuple[int, ...]
    losses: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean loss over the seeds; inf where one of them diverged."""
        return fmean(self.losses)

    @property
    def by_seed(self) -> dict[int, float]:
        """The losses, each under its seed."""
        return dict(zip(self.seeds, self.losses, strict=True))


@dataclass(frozen=True, slots=True)
class Optimum:
    """The best values of one parametrization at one width.

    Attributes:
        values: With the lowest mean loss over the seeds, of those that were tried.
        loss: That loss.
        loss_error: The standard error of the loss over the seeds; None for one seed.
        center: log2 of the first hyperparameter's optimum, between the values tried. On a grid,
            the vertex of a parabola through the best value and its neighbours, averaged over the
            seeds; with a sampler, that of one parabola over the draws. None where all diverged.
        center_error: Its standard error; None where it is not known.
        bound: "<=" or ">=" where the optimum is the first or the last value: it may lie beyond.
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
    bound: Bound
    diverged: int
    runs: int

    @property
    def edge(self) -> bool:
        """Whether the optimum is at an end of what was tried."""
        return self.bound != ""


@dataclass(frozen=True, slots=True)
class Shift:
    """How far the optimum moves from the narrowest to the widest model.

    Attributes:
        on_grid: From best value to best value, in steps of the grid; None with a sampler.
        steps: Between the interpolated optima, in steps of the grid; with a sampler, log2 of the
            factor.
        error: The standard error of `steps`; None where it is not known.
        bounds: "<=" where an optimum at an end of what was tried may lie further down, ">=" where
            further up; both where the two ends leave it open.
    """

    parametrization: Parametrization
    on_grid: float | None
    steps: float
    error: float | None
    bounds: tuple[Bound, ...]


@dataclass(frozen=True, slots=True)
class Rise:
    """A wide model that ends with a higher loss than a narrower one, on the same seeds.

    Attributes:
        by: How much higher, on average over the seeds; inf where only the wide one diverged.
        error: The standard error of `by`; None for one seed.
        certain: Whether it is more than noise: beyond what 95 % of Student's t lie within. With
            one seed nothing tells noise, and any difference counts.
    """

    width: int
    than: int
    by: float
    error: float | None
    certain: bool


@dataclass(frozen=True, slots=True)
class Shared:
    """The losses of the converted models at the values that the narrowest one is tuned to.

    Attributes:
        values: Those values.
        samples: By width, the losses; they may be of more seeds than the rest of the grid.
        rises: For each width that loses to a narrower one, where it loses most.
    """

    values: Mapping[str, Value]
    samples: Mapping[int, Sample]
    rises: tuple[Rise, ...]

    @property
    def losses(self) -> dict[int, float]:
        """By width, the mean loss over the seeds."""
        return {width: sample.mean for width, sample in self.samples.items()}

    @property
    def seeds(self) -> int:
        """How many seeds every width was trained from."""
        return min(len(sample.seeds) for sample in self.samples.values())

    @property
    def worse(self) -> tuple[int, ...]:
        """The widths that lose to a narrower one by more than noise."""
        return tuple(rise.width for rise in self.rises if rise.certain)


@dataclass(frozen=True, slots=True)
class Summary:
    """Everything that a sweep found.

    Attributes:
        axis: The first hyperparameter.
        step: The factor from one of its values to the next; None where a sampler drew them.
        tuned: What to train with: the optimum of the narrowest converted model. With a sampler the
            first hyperparameter is the vertex over the draws. None where there is no such model,
            or all its runs diverged.
        shared: None where not every width was trained with `tuned`.
    """

    axis: str
    step: float | None
    curves: Mapping[tuple[Parametrization, int], tuple[Sample, ...]]
    optima: tuple[Optimum, ...]
    shifts: tuple[Shift, ...]
    tuned: Mapping[str, Value] | None
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
            "tuned": self.tuned,
            "shared": self._shared_document(),
        }

    def _shared_document(self) -> object:
        if self.shared is None:
            return None
        return _finite({**asdict(self.shared), "losses": self.shared.losses})


def summarise(plan: Plan, results: Iterable[Result], confirmed: Iterable[Result] = ()) -> Summary:
    """The optima and their shifts; the first hyperparameter of the plan is the axis.

    `confirmed` are runs of further seeds with the values that the narrowest model is tuned to.
    """
    axis, drawn = plan.over[0], plan.draws is not None
    curves = _curves(plan, results)
    optima = tuple(_optimum(line, held, axis.name, drawn) for line, held in curves.items())
    step = None if drawn else axis.step
    summary = Summary(axis.name, step, curves, optima, (), None, None)
    shifts = [_shift(summary, parametrization) for parametrization in plan.parametrizations]
    tuned = _tuned(summary)
    return replace(
        summary,
        shifts=tuple(shift for shift in shifts if shift is not None),
        tuned=tuned,
        shared=_shared(summary, tuned, confirmed) if tuned is not None else None,
    )


def _curves(
    plan: Plan, results: Iterable[Result]
) -> dict[tuple[Parametrization, int], tuple[Sample, ...]]:
    held = list(results)
    return {
        line: _samples(r for r in held if (r.point.parametrization, r.point.width) == line)
        for line in ((p, width) for p in plan.parametrizations for width in plan.widths)
    }


def _samples(results: Iterable[Result]) -> tuple[Sample, ...]:
    """By choice of values, the losses of all seeds."""
    found: dict[Key, dict[int, float]] = {}
    for result in results:
        found.setdefault(tuple(result.values.items()), {})[result.point.seed] = result.loss
    samples = [_sample(dict(values), losses) for values, losses in found.items()]
    return tuple(sorted(samples, key=lambda sample: _sortable(sample.values)))


def _sample(values: Mapping[str, Value], losses: Mapping[int, float]) -> Sample:
    return Sample(values, tuple(losses), tuple(losses.values()))


def _sortable(values: Mapping[str, Value]) -> list[tuple[bool, float, str]]:
    return [
        (isinstance(v, str), 0.0 if isinstance(v, str) else float(v), str(v))
        for v in values.values()
    ]


# -- one line -----------------------------------------------------------------------------------


def _optimum(
    line: tuple[Parametrization, int], samples: Sequence[Sample], axis: str, drawn: bool
) -> Optimum:
    best = min(samples, key=lambda sample: sample.mean)
    center = _center(samples, best, axis, drawn) if math.isfinite(best.mean) else None
    runs = [loss for sample in samples for loss in sample.losses]
    return Optimum(
        parametrization=line[0],
        width=line[1],
        values=best.values,
        loss=best.mean,
        loss_error=standard_error(best.losses),
        center=center.at if center else None,
        center_error=center.error if center else None,
        bound=center.bound if center else "",
        diverged=sum(math.isinf(loss) for loss in runs),
        runs=len(runs),
    )


def _center(samples: Sequence[Sample], best: Sample, axis: str, drawn: bool) -> Center | None:
    """The first hyperparameter's optimum; None where it has no logarithm."""
    places = [_log2(sample.values[axis]) for sample in samples]
    at = _log2(best.values[axis])
    if at is None or None in places:
        return None
    placed = [(place, s) for place, s in zip(places, samples, strict=True) if place is not None]
    seeds = list(dict.fromkeys(seed for sample in samples for seed in sample.seeds))
    if drawn:
        draws = [[(x, s.by_seed[n]) for x, s in placed if n in s.by_seed] for n in seeds]
        return fitted(draws) or Center(at)
    profile = [(x, s) for x, s in placed if _others(s, axis) == _others(best, axis)]
    return center_of([[(x, s.by_seed[n]) for x, s in profile] for n in seeds])


def _others(sample: Sample, axis: str) -> dict[str, Value]:
    return {name: value for name, value in sample.values.items() if name != axis}


# -- all widths ---------------------------------------------------------------------------------


def _shift(summary: Summary, parametrization: Parametrization) -> Shift | None:
    optima = summary.of(parametrization)
    first, last = optima[0], optima[-1]
    ends = [_log2(optimum.values[summary.axis]) for optimum in (first, last)]
    if ends[0] is None or ends[1] is None or first.center is None or last.center is None:
        return None
    unit = math.log2(summary.step) if summary.step is not None else 1.0
    errors = (first.center_error, last.center_error)
    bounds: set[Bound] = {last.bound, _OPPOSITE[first.bound]}
    return Shift(
        parametrization,
        on_grid=(ends[1] - ends[0]) / unit if summary.step is not None else None,
        steps=(last.center - first.center) / unit,
        error=None if None in errors else math.hypot(*(e or 0.0 for e in errors)) / unit,
        bounds=tuple(bound for bound in sorted(bounds) if bound),
    )


_OPPOSITE: Final[Mapping[Bound, Bound]] = {"": "", "<=": ">=", ">=": "<="}


def _tuned(summary: Summary) -> Mapping[str, Value] | None:
    narrowest = next(iter(summary.of(Parametrization.MUP)), None)
    if narrowest is None or not math.isfinite(narrowest.loss):
        return None
    if summary.step is not None or narrowest.center is None:
        return narrowest.values
    rounded = float(f"{2.0**narrowest.center:.4g}")  # the same on every machine
    return {**narrowest.values, summary.axis: rounded}


def _shared(
    summary: Summary, tuned: Mapping[str, Value], confirmed: Iterable[Result]
) -> Shared | None:
    more = [r for r in confirmed if r.values == tuned]
    found: dict[int, Sample] = {}
    for optimum in summary.of(Parametrization.MUP):
        tried = summary.curves[Parametrization.MUP, optimum.width]
        losses = {n: loss for s in tried if s.values == tuned for n, loss in s.by_seed.items()}
        losses |= {r.point.seed: r.loss for r in more if r.point.width == optimum.width}
        if not losses:
            return None
        found[optimum.width] = _sample(tuned, losses)
    rises = [_rise(width, found) for width in found]
    return Shared(tuned, found, tuple(rise for rise in rises if rise is not None))


def _rise(width: int, found: Mapping[int, Sample]) -> Rise | None:
    """Where a width loses most to a narrower one, what is more than noise first."""
    compared = [_compared(width, narrow, found) for narrow in found if narrow < width]
    rises = [rise for rise in compared if rise is not None and rise.by > 0]
    return max(rises, key=lambda rise: (rise.certain, rise.by), default=None)


def _compared(wide: int, narrow: int, found: Mapping[int, Sample]) -> Rise | None:
    """How much more the wide one loses, seed by seed; None where the narrow one diverged."""
    a, b = found[wide].by_seed, found[narrow].by_seed
    common = [seed for seed in a if seed in b]
    if not all(math.isfinite(b[seed]) for seed in common):
        return None
    differences = [a[seed] - b[seed] for seed in common]
    by, chance = fmean(differences), noise(differences)
    return Rise(wide, narrow, by, standard_error(differences), by > (chance or 0.0))


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
