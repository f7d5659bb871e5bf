"""What a sweep found, as tables for people."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from mufx.knobs import written as written_knobs
from mufx.report import GroupRow
from mufx.sweep.settings import Parametrization
from mufx.sweep.summary import Optimum, Shift, Summary
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
    seeds = f"{len(sweep.plan.seeds)} seed" + "s" * (len(sweep.plan.seeds) > 1)
    console.print(
        Text(
            f"{settings.model}: {summary.axis} against loss, {settings.optimizer}, "
            f"{settings.steps} steps of batch {settings.batch}, {seeds}"
        )
    )
    console.print(_optima(summary, width_knob))
    for line in findings(summary, width_knob):
        console.print(Text(line), soft_wrap=True)
    if summary.shared is not None and math.isfinite(summary.of(Parametrization.MUP)[0].loss):
        values = {**settings.fixed, **summary.shared.values}
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
            Text(_best(optimum, summary.axis)),
            with_error(optimum.center, optimum.center_error, "2^{:.2f}"),
            with_error(optimum.loss, optimum.loss_error, "{:.4f}"),
            f"{optimum.diverged} of {optimum.runs}",
        )
    return table


def _best(optimum: Optimum, axis: str) -> str:
    others = {name: value for name, value in optimum.values.items() if name != axis}
    edge = " (end of the grid)" if optimum.edge else ""
    rest = f" ({written(others)})" if others else ""
    return f"{shown(optimum.values[axis])}{rest}{edge}"


def with_error(value: float | None, error: float | None, form: str) -> str:
    """A number and its standard error, where it has them."""
    if value is None:
        return "-"
    if math.isinf(value):
        return "diverged"
    return form.format(value) + (f" ± {error:.2g}" if error is not None else "")


def findings(summary: Summary, width_knob: str) -> Iterator[str]:
    """How far the optimum moves, and whether wider is better, in sentences."""
    for shift in summary.shifts:
        yield _shift(shift, summary, width_knob)
    if any(optimum.edge for optimum in summary.optima):
        yield "an optimum at an end of the grid may lie beyond it: widen the grid"
    shared = summary.shared
    if shared is None:
        return
    losses = ", ".join(f"{width}: {loss:.4f}" for width, loss in shared.losses.items())
    yield f"μP at the narrowest one's optimum ({written(shared.values)}), loss by width: {losses}"
    if shared.worse:
        yield f"  wider is worse at {', '.join(map(str, shared.worse))}{_unsure(summary)}"
    else:
        yield "  wider is never worse"


def _unsure(summary: Summary) -> str:
    """What to add where there is one seed, and nothing to tell noise by."""
    alone = all(optimum.loss_error is None for optimum in summary.optima)
    return " (by any difference: one seed does not tell noise)" if alone else ""


def _shift(shift: Shift, summary: Summary, width_knob: str) -> str:
    optima = summary.of(shift.parametrization)
    name = NAMES[shift.parametrization]
    error = f" ± {shift.error:.1f}" if shift.error is not None else ""
    return (
        f"{name}: the optimum moves by {shift.on_grid:+.0f} steps of a factor "
        f"{summary.step:.3g} from {width_knob} {optima[0].width} to {optima[-1].width} "
        f"({shift.steps:+.1f}{error} between values)"
    )


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
