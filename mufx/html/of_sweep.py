"""The page of a sweep."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from statistics import fmean

from mufx.html.command import Typed
from mufx.html.document import (
    Block,
    Cell,
    Column,
    Document,
    Panels,
    Plot,
    Point,
    Row,
    Scale,
    Section,
    Series,
    Table,
    Words,
)
from mufx.html.training import Settings, blocks
from mufx.program import Optimizer
from mufx.sweep.models import knobs_among
from mufx.sweep.plot import is_log, limits, profile
from mufx.sweep.settings import Parametrization
from mufx.sweep.summary import Optimum, Sample, Summary
from mufx.sweep.sweeping import Sweep
from mufx.sweep.text import NAMES, centered, counted, findings, with_error
from mufx.sweep.values import Value, shown


def of_sweep(found: Sweep, typed: Typed | None = None) -> Document:
    """The curves and their numbers, the optima, and the settings to train the target with.

    `typed` names the model.
    """
    settings, summary, seeds = found.plan.settings, found.summary, len(found.plan.seeds)
    said = tuple(Words(line.strip()) for line in findings(summary, found.width_knob))
    about = (
        f"{summary.axis} against loss · {settings.optimizer} · {settings.steps} steps of batch "
        f"{settings.batch} · {counted(seeds)} · {settings.form}"
    )
    return Document(
        f"Sweep of {settings.model}",
        about,
        (
            Section("sweep", "Sweep", (*said, _panels(found), _losses(found)), (about,)),
            Section("optima", "Optima", (_optima(found),)),
            Section("tuned", "Tuned", tuple(_train(found, typed))),
        ),
        source=settings.source,
    )


# -- plots --------------------------------------------------------------------------------------


def _panels(found: Sweep) -> Panels:
    """SP beside μP, on one scale: loss up to what the smallest values give."""
    summary = found.summary
    samples = [s for held in summary.curves.values() for s in held]
    values = sorted({_number(summary, sample) for sample in samples})
    ticks = tuple((value, shown(value)) for value in values)
    x = Scale(summary.axis, is_log(summary), values[0], values[-1], ticks)
    y = Scale("training loss", False, *limits(summary))
    widths = tuple(f"{found.width_knob} {width}" for width in found.plan.widths)
    plots = tuple(
        Plot(NAMES[p], x, y, widths, True, tuple(_series(found, p)))
        for p in found.plan.parametrizations
    )
    return Panels("Loss", plots)


def _series(found: Sweep, parametrization: Parametrization) -> Iterator[Series]:
    for optimum in found.summary.of(parametrization):
        samples = found.summary.curves[parametrization, optimum.width]
        name = f"{found.width_knob} {optimum.width}"
        points = (_point(found.summary, s, optimum) for s in profile(found.summary, samples))
        yield Series(name, name, tuple(points))


def _point(summary: Summary, sample: Sample, optimum: Optimum) -> Point:
    x = _number(summary, sample)
    if not math.isfinite(sample.mean):
        return Point(x, None)
    best = sample.values == optimum.values
    return Point(x, sample.mean, min(sample.losses), max(sample.losses), best)


def _number(summary: Summary, sample: Sample) -> float:
    value = sample.values[summary.axis]
    assert isinstance(value, int | float)
    return float(value)


# -- numbers ------------------------------------------------------------------------------------


def _losses(found: Sweep) -> Table:
    """Every point of the curves."""
    names = [hyperparameter.name for hyperparameter in found.plan.over]
    columns = (
        Column("Trained", filter="choice"),
        Column(found.width_knob, "number", filter="choice"),
        *(Column(name, "number") for name in names),
        Column("Mean loss", "number"),
        Column("Diverged", "number"),
        Column("Loss by seed", "number"),
    )
    rows = [
        Row((NAMES[parametrization], width, *_values(sample, names), *_told(sample)))
        for (parametrization, width), samples in found.summary.curves.items()
        for sample in samples
    ]
    return Table("All losses", columns, tuple(rows), folded=True)


def _values(sample: Sample, names: list[str]) -> Iterator[Cell]:
    yield from (_cell(sample.values[name]) for name in names)


def _cell(value: Value) -> Cell:
    return (float(value), shown(value)) if isinstance(value, int | float) else value


def _told(sample: Sample) -> tuple[Cell, Cell, Cell]:
    finite = [loss for loss in sample.losses if math.isfinite(loss)]
    mean = fmean(finite) if len(finite) == len(sample.losses) else None
    lost = len(sample.losses) - len(finite)
    each = ", ".join(f"{v:.4f}" if math.isfinite(v) else "diverged" for v in sample.losses)
    return mean, lost, each


def _optima(found: Sweep) -> Table:
    numbers = (found.width_knob, f"Best {found.summary.axis}", "Between values", "Loss")
    columns = (
        Column("Trained", filter="choice"),
        *(Column(title, "number") for title in numbers),
        Column("At an end"),
        Column("Diverged", "number"),
    )
    rows = tuple(_of_optimum(found, optimum) for optimum in found.summary.optima)
    return Table("Optima", columns, rows)


def _of_optimum(found: Sweep, optimum: Optimum) -> Row:
    center = centered(optimum)
    loss = with_error(optimum.loss, optimum.loss_error, "{:.4f}")
    finite = math.isfinite(optimum.loss)
    cells: tuple[Cell, ...] = (
        NAMES[optimum.parametrization],
        optimum.width,
        _cell(optimum.values[found.summary.axis]),
        (optimum.center, center) if optimum.center is not None else None,
        (optimum.loss, loss) if finite else loss,
        "yes" if optimum.edge else "no",
        (optimum.diverged / optimum.runs, f"{optimum.diverged} of {optimum.runs}"),
    )
    return Row(cells)


# -- training -----------------------------------------------------------------------------------


def _train(found: Sweep, typed: Typed | None) -> Iterator[Block]:
    """The settings to train the target with, by group; they were found on the narrowest model."""
    settings = found.plan.settings
    if found.summary.tuned is None:
        yield Words("Nothing is recommended: no run of the narrowest converted model converged.")
        return
    tuned = {**settings.fixed, **found.summary.tuned}
    given = Settings(
        tuned, f"the optimum of the sweep at {found.width_knob} {found.plan.widths[0]}"
    )
    command = _command(found, typed, knobs_among(tuned, settings.optimizer)) if typed else ""
    yield from blocks(command, settings.model, Optimizer(settings.optimizer), given)
    yield Words(_schedule(found))
    columns = (
        Column("Group", "code"),
        *(Column(f"{n} ×", "number") for n in ("Learning rate", "Weight decay", "Eps")),
        Column("Learning rate", "number"),
        Column("Tensors", "number"),
    )
    rate = tuned.get("lr")
    rows = (
        Row(
            (
                row.group,
                row.lr_scale,
                row.weight_decay_scale,
                row.eps_scale,
                rate * row.lr_scale if isinstance(rate, int | float) else None,
                row.tensors,
            )
        )
        for row in found.groups
    )
    yield Table("Groups", columns, tuple(rows))


def _command(found: Sweep, typed: Typed, knobs: Mapping[str, Value]) -> str:
    """The conversion of the target, with the knobs that the sweep found or kept."""
    settings = found.plan.settings
    base, target = {**settings.base, **knobs}, {**found.target, **knobs}
    return typed.convert(base, target, settings.optimizer, settings.form)


def _schedule(found: Sweep) -> str:
    """What goes with the optimum: an optimum of other runs is another."""
    settings = found.plan.settings
    rises = f"a warmup of {settings.warmup:g} of the steps, " if settings.warmup else ""
    return f"Found with {rises}a {settings.decay} rate and no clipping: train the target alike."
