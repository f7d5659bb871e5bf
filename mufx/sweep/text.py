"""What a sweep found, as tables for people."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from mufx.knobs import written as written_knobs
from mufx.report import GroupRow
from mufx.sweep.estimates import standard_error
from mufx.sweep.settings import Parametrization
from mufx.sweep.summary import Optimum, Rise, Shared, Shift, Summary
from mufx.sweep.values import Value, shown, written

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from mufx.sweep.sweeping import Sweep

NAMES: Mapping[Parametrization, str] = {Parametrization.SP: "SP", Parametrization.MUP: "μP"}


def show(sweep: Sweep, console: Console) -> None:
    """Prints the optimum of every line, the shifts, and what to train the target with."""
    from rich.text import Text

    settings, summary, width_knob = sweep.plan.settings, sweep.summary, sweep.width_knob
    console.print(
        Text(
            f"{settings.model}: {summary.axis} against loss, {settings.optimizer}, "
            f"{settings.steps} steps of batch {settings.batch}, {counted(len(sweep.plan.seeds))}"
        )
    )
    console.print(_optima(summary, width_knob))
    for line in findings(summary, width_knob):
        console.print(Text(line), soft_wrap=True)
    if summary.tuned is not None:
        values = {**settings.fixed, **summary.tuned}
        knobs = written_knobs(sweep.target)
        console.print(Text(f"to train {knobs}: {written(values)} at base, which is"))
        console.print(_groups(values, sweep.groups))


def _optima(summary: Summary, width_knob: str) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table("", box=SIMPLE_HEAD, pad_edge=False)
    for name in (width_knob, f"best {summary.axis}", "between values", "loss", "diverged"):
        table.add_column(name, justify="right")
    for optimum in summary.optima:
        table.add_row(
            NAMES[optimum.parametrization],
            str(optimum.width),
            Text(_best(optimum, summary)),
            centered(optimum),
            with_error(optimum.loss, optimum.loss_error, "{:.4f}"),
            f"{optimum.diverged} of {optimum.runs}",
        )
    return table


def _best(optimum: Optimum, summary: Summary) -> str:
    others = {name: value for name, value in optimum.values.items() if name != summary.axis}
    edge = f" (end of the {_tried(summary)})" if optimum.edge else ""
    rest = f" ({written(others)})" if others else ""
    return f"{shown(optimum.values[summary.axis])}{rest}{edge}"


def with_error(value: float | None, error: float | None, form: str) -> str:
    """A number and its standard error, where it has them."""
    if value is None:
        return "-"
    if math.isinf(value):
        return "diverged"
    return form.format(value) + (f" ± {error:.2g}" if error is not None else "")


def centered(optimum: Optimum) -> str:
    """Where the optimum lies between the values; at an end of them it may lie beyond."""
    bound = f"{optimum.bound} " if optimum.edge else ""
    return bound + with_error(optimum.center, optimum.center_error, "2^{:.2f}")


def counted(seeds: int) -> str:
    """How many seeds, in words."""
    return f"{seeds} seed{'s' * (seeds > 1)}"


def averaged(losses: Sequence[float]) -> str:
    """The mean loss over the seeds and its standard error."""
    return with_error(fmean(losses), standard_error(losses), "{:.4f}")


def findings(summary: Summary, width_knob: str) -> Iterator[str]:
    """How far the optimum moves, and whether wider is better, in sentences."""
    for shift in summary.shifts:
        yield _shift(shift, summary, width_knob)
    if any(optimum.edge for optimum in summary.optima):
        yield f"an optimum at an end of the {_tried(summary)} may lie beyond it: widen the range"
    narrowest = next(iter(summary.of(Parametrization.MUP)), None)
    if summary.step is None and narrowest is not None and narrowest.center is not None:
        yield _fitted(summary, narrowest, width_knob)
    shared = summary.shared
    if shared is None:
        return
    losses = ", ".join(f"{width}: {loss:.4f}" for width, loss in shared.losses.items())
    what = f"{written(shared.values)}, {counted(shared.seeds)}"
    yield f"μP at the narrowest one's optimum ({what}), loss by width: {losses}"
    yield from (f"  {line}" for line in compared(shared))


def compared(shared: Shared) -> Iterator[str]:
    """Whether wider is worse, and where."""
    if not shared.rises:
        yield "wider is never worse"
    for certain, said in ((True, "wider is worse"), (False, "within noise, wider is worse")):
        rises = [_rise(rise) for rise in shared.rises if rise.certain is certain]
        if rises:
            yield f"{said} at {', '.join(rises)}"


def _fitted(summary: Summary, narrowest: Optimum, width_knob: str) -> str:
    """How the recommended value came from draws."""
    known = narrowest.center_error is not None or narrowest.edge
    how = "the vertex of a parabola over the draws" if known else "the best draw: too few for a fit"
    return f"μP at {width_knob} {narrowest.width}: {summary.axis} {centered(narrowest)}, {how}"


def _rise(rise: Rise) -> str:
    if math.isinf(rise.by):
        return f"{rise.width} (diverged)"
    by = with_error(rise.by, rise.error, "{:.4f}")
    alone = "; one seed does not tell noise" if rise.error is None else ""
    return f"{rise.width} (by {by} than {rise.than}{alone})"


def _shift(shift: Shift, summary: Summary, width_knob: str) -> str:
    optima = summary.of(shift.parametrization)
    name = NAMES[shift.parametrization]
    way = f"from {width_knob} {optima[0].width} to {optima[-1].width}"
    if len(shift.bounds) > 1:
        return f"{name}: how the optimum moves {way} is open: it is at an end of the range at both"
    bound = "".join(f"{bound} " for bound in shift.bounds)
    error = f" ± {shift.error:.1f}" if shift.error is not None else ""
    if summary.step is None or shift.on_grid is None:
        return f"{name}: the optimum moves by a factor {bound}2^{shift.steps:.1f}{error} {way}"
    between = "" if bound else f" ({shift.steps:+.1f}{error} between values)"
    return (
        f"{name}: the optimum moves by {bound}{shift.on_grid:+.0f} steps of a factor "
        f"{summary.step:.3g} {way}{between}"
    )


def _tried(summary: Summary) -> str:
    return "grid" if summary.step is not None else "draws"


def _groups(values: Mapping[str, Value], groups: tuple[GroupRow, ...]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table("group", box=SIMPLE_HEAD, pad_edge=False)
    for name in ("tensors", "lr", "weight decay", "eps"):
        table.add_column(name, justify="right")
    for row in groups:
        scales = {"lr": row.lr_scale, "weight_decay": row.weight_decay_scale, "eps": row.eps_scale}
        cells = [_scaled(values.get(name), scale) for name, scale in scales.items()]
        table.add_row(Text(row.group), str(row.tensors), *cells)
    return table


def _scaled(value: object, scale: float) -> str:
    if isinstance(value, int | float):
        return f"{value * scale:.6g}"
    return f"x {scale:.6g}"
