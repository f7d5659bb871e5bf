"""The page of a dynamic check."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from statistics import fmean
from typing import Final

from mufx.api import Conversion
from mufx.check.request import Variant
from mufx.check.result import Checked, NodeRow
from mufx.check.show import NAMES, conclusions
from mufx.check.slopes import Slope, Verdict
from mufx.check.training import Run
from mufx.html import of_conversion
from mufx.html.command import Typed
from mufx.html.document import (
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
from mufx.html.training import Settings
from mufx.sweep.text import counted

Measure = Callable[[Run], Mapping[str, float]]

_DEPARTS: Final = "departs"
_SETTINGS: Final = "as in this check, which tuned nothing; it had no weight decay and did not clip"
_GROUPS: Final = (*(verdict.value for verdict in Verdict), _DEPARTS)
_ROOM: Final = 1.3
"""A factor between the lines and the edge of a plot."""
_MEASURES: Final[Mapping[str, tuple[str, Measure]]] = {
    "Change over training": ("mean |change|", lambda run: run.changes),
    "Size after training": ("mean |size|", lambda run: run.sizes),
    "Size before training": ("mean |size|", lambda run: run.starts),
}


def of_check(found: Checked, conversion: Conversion, typed: Typed | None = None) -> Document:
    """Plots and slopes, and what was decided at the width of `conversion`; `typed` names it."""
    request = found.request
    data = "synthetic data" if found.synthetic else "data of the user's"
    *said, verdict = conclusions(found)
    summary = (
        f"{found.knob} {', '.join(map(str, found.widths))} · {request.optimizer}, "
        f"lr {request.lr:g} · {request.steps} steps of batch {request.batch} · "
        f"{counted(request.seeds)} · {data}"
    )
    head = (summary, verdict)
    return Document(
        f"Check of {found.model}",
        summary,
        (
            Section("check", "Check", (*map(Words, said), *_panels(found), _table(found)), head),
            *of_conversion.of_program(conversion),
            of_conversion.train(conversion, typed, Settings({"lr": request.lr}, _SETTINGS)),
        ),
        verdict,
        found.passes,
        conversion.manifest.source.digest,
    )


# -- plots --------------------------------------------------------------------------------------


def _panels(found: Checked) -> Iterable[Panels]:
    """One row of plots for each measure, all on one scale; the change is what is judged."""
    for i, (title, (unit, measure)) in enumerate(_MEASURES.items()):
        lines = {v: _series(found, v, measure) for v in found.runs}
        seen = [p.y for held in lines.values() for s in held for p in s.points if p.y is not None]
        if seen:
            y = Scale(unit, True, min(seen) / _ROOM, max(seen) * _ROOM)
            plots = tuple(_plot(found, v, held, y) for v, held in lines.items())
            yield Panels(title, plots, folded=i > 0)


def _plot(found: Checked, variant: Variant, lines: tuple[Series, ...], y: Scale) -> Plot:
    widths = tuple(found.runs[variant])
    ticks = tuple((float(width), str(width)) for width in widths)
    x = Scale(found.knob, True, min(widths), max(widths), ticks)
    return Plot(NAMES[variant], x, y, _GROUPS, False, lines)


def _series(found: Checked, variant: Variant, measure: Measure) -> tuple[Series, ...]:
    runs = found.runs[variant]
    rows = found.of(variant)
    lines = (Series(r.node, _group(r), _points(r.node, runs, measure)) for r in rows)
    return tuple(line for line in lines if line.points)


def _group(row: NodeRow) -> str:
    return _DEPARTS if row.departs else row.verdict.value


def _points(node: str, runs: Mapping[int, tuple[Run, ...]], measure: Measure) -> tuple[Point, ...]:
    """The geometric mean over seeds; a width at which nothing has a size has no point."""
    measured = {w: [measure(run).get(node, math.inf) for run in made] for w, made in runs.items()}
    return tuple(point for w, sizes in measured.items() if (point := _point(w, sizes)) is not None)


def _point(width: int, sizes: list[float]) -> Point | None:
    if not all(map(math.isfinite, sizes)):
        return Point(width, None)
    if min(sizes) <= 0:
        return None
    return Point(width, math.exp(fmean(map(math.log, sizes))), min(sizes), max(sizes))


# -- numbers ------------------------------------------------------------------------------------


def _table(found: Checked) -> Table:
    """Every node of every variant: what is said of it, its slopes, its change at every width."""
    slopes = (
        "Slope of change",
        "Slope of step 1",
        "Step 1 predicted",
        "Slope of size before",
        "Slope of size after",
    )
    columns = (
        Column("Node", "code", filter="search"),
        Column("Verdict", "mark", filter="choice"),
        Column("Trained", filter="choice"),
        Column("Judged", "mark", filter="choice"),
        *(Column(title, "number") for title in slopes),
        *(Column(f"Change at {width}", "number") for width in found.widths),
    )
    return Table("Slopes", columns, tuple(_row(found, row) for row in found.rows))


def _row(found: Checked, row: NodeRow) -> Row:
    judged = _DEPARTS if row.departs else "disagrees" if row.disagrees else ""
    points = _points(row.node, found.runs[row.variant], _MEASURES["Change over training"][1])
    changes = {point.x: point.y for point in points}
    cells: tuple[Cell, ...] = (
        row.node,
        row.verdict.value,
        NAMES[row.variant],
        judged,
        _slope(row.change),
        _slope(row.first),
        (row.predicted, f"{row.predicted:+.2f}") if row.predicted is not None else None,
        _slope(row.start),
        _slope(row.size),
        *(_size(changes.get(width)) for width in found.widths),
    )
    return Row(cells)


def _slope(slope: Slope) -> Cell:
    if slope.value is None:
        return None
    return slope.value, f"{slope.value:+.2f} ± {slope.error:.2f}"


def _size(size: float | None) -> Cell:
    return (size, f"{size:.3g}") if size is not None else None
