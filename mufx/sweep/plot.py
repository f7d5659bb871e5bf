"""The figure: loss against the hyperparameter, one line a width, SP on the left and μP beside."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Final, cast

from mufx.sweep.summary import Optimum, Sample, Summary
from mufx.sweep.text import NAMES
from mufx.sweep.values import FACTOR

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FILES: Final = ("sweep.png", "sweep.svg")
_STYLE: Final[dict[str, Any]] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "svg.fonttype": "none",
    "svg.hashsalt": "mufx",  # the same figure has the same bytes
}


_MARKERS: Final = "osD^vP*X"
_STYLES: Final = ("-", "--", "-.", ":")
_CAPTION: Final = 130  # characters of a line
_LIGHTEST: Final = 0.8  # of viridis; what comes after is a yellow that paper does not show
_ARROW: Final = 0.45  # of that distance, its length
_SPREAD: Final = 0.5  # of the distance between two values, over which the bars of all lines stand


@dataclass(frozen=True)
class Line:
    """How one width is drawn: told by colour, by marker and by line, each alone enough."""

    summary: Summary
    optimum: Optimum
    index: int
    count: int

    @property
    def color(self) -> Any:
        """From dark to light, so that the order survives a print in grey."""
        from matplotlib import colormaps

        return colormaps["viridis"](_LIGHTEST * self.index / max(1, self.count - 1))

    @property
    def marker(self) -> str:
        """Of its points, and of its optimum."""
        return _MARKERS[self.index % len(_MARKERS)]

    @property
    def style(self) -> str:
        """Of the line between them."""
        return _STYLES[self.index % len(_STYLES)]

    @property
    def samples(self) -> list[Sample]:
        """By value of the axis, the best choice of the others."""
        line = self.optimum.parametrization, self.optimum.width
        return profile(self.summary, self.summary.curves[line])

    @property
    def aside(self) -> float:
        """How far to the right its bars stand, so that those of all lines are seen."""
        return _SPREAD * gap(self.summary) * (self.index / max(1, self.count - 1) - 0.5)


def draw(
    summary: Summary, width_knob: str, caption: str, folder: Path, stem: str = "sweep"
) -> None:
    """Writes the figure as PNG and SVG into a folder.

    A run that diverged has no point; a cross at the top says how many of them did.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(cast("Any", _STYLE)):
        figure = Figure(figsize=(8.0, 4.6), layout="constrained")
        _draw(figure, summary, width_knob, caption)
        folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(folder / f"{stem}.png", dpi=160)
        figure.savefig(folder / f"{stem}.svg", metadata={"Date": None})


def _draw(figure: Figure, summary: Summary, width_knob: str, caption: str) -> None:
    """The losses above; below them, the optimum of every width and how sure it is."""
    parametrizations = list(dict.fromkeys(p for p, _ in summary.curves))
    grid: Any = figure.subplots(
        2, len(parametrizations), sharex=True, sharey="row", squeeze=False, height_ratios=(3, 1)
    )
    for panel, strip, parametrization in zip(*grid, parametrizations, strict=True):
        optima = summary.of(parametrization)
        for i, optimum in enumerate(optima):
            line = Line(summary, optimum, i, len(optima))
            _curve(panel, line)
            _optimum(strip, line)
        panel.set_title(NAMES[parametrization])
        panel.set_ylim(*limits(summary))
        strip.set_xlabel(f"log2 of {summary.axis}" if is_log(summary) else summary.axis)
        strip.set_yticks(range(len(optima)), [f"{optimum.width}" for optimum in optima])
        strip.set_ylim(len(optima) - 0.5, -0.5)
    grid[0][0].set_ylabel("training loss")
    grid[1][0].set_ylabel(f"optimum\nat {width_knob}")
    grid[0][-1].legend(title=width_knob, frameon=False, fontsize=8, handlelength=3.5)
    figure.supxlabel(textwrap.fill(caption, _CAPTION), fontsize=7, color="0.35")


def _curve(panel: Axes, line: Line) -> None:
    samples, color = line.samples, line.color
    places = [place(line.summary, sample) for sample in samples]
    finite = [(x, s) for x, s in zip(places, samples, strict=True) if math.isfinite(s.mean)]
    panel.plot(
        [x for x, _ in finite],
        [s.mean for _, s in finite],
        color=color,
        label=f"{line.optimum.width}",
        linestyle=line.style,
        linewidth=1.3,
        marker=line.marker,
        markersize=3.5,
    )
    usual = offsets(line.summary)
    for x, sample in finite:
        ends = [loss - usual.get(seed, 0.0) for seed, loss in sample.by_seed.items()]
        at = x + line.aside
        panel.plot([at, at], [min(ends), max(ends)], color=color, alpha=0.6, lw=0.9)
    for x, sample in zip(places, samples, strict=True):
        if not math.isfinite(sample.mean):
            panel.plot(x, 0.98, "x", color=color, transform=panel.get_xaxis_transform(), ms=4)


def _optimum(strip: Axes, line: Line) -> None:
    """The optimum between the values with its error, or an arrow where it may lie beyond."""
    optimum, y = line.optimum, line.index
    if not math.isfinite(optimum.loss):
        return
    x, error = _between(line.summary, optimum)
    strip.errorbar(
        x, y, xerr=error, fmt=line.marker, color=line.color, ms=4.5, capsize=2.5, linewidth=1.2
    )
    if optimum.edge:
        beyond = x + gap(line.summary) * (-_ARROW if optimum.bound == "<=" else _ARROW)
        arrow = {"arrowstyle": "->", "color": line.color}
        strip.annotate("", (beyond, y), (x, y), arrowprops=arrow, annotation_clip=False)


def _between(summary: Summary, optimum: Optimum) -> tuple[float, float | None]:
    """Where the optimum stands along the axis, and its error where that is known."""
    if is_log(summary) and optimum.center is not None:
        return optimum.center, optimum.center_error
    best = optimum.values[summary.axis]
    assert isinstance(best, int | float)
    return float(best), None


def gap(summary: Summary) -> float:
    """The distance between two values of the axis, on average; with a sampler, a factor 2."""
    if is_log(summary):
        return math.log2(summary.step if summary.step is not None else FACTOR)
    held = {place(summary, sample) for samples in summary.curves.values() for sample in samples}
    return (max(held) - min(held)) / (len(held) - 1) if len(held) > 1 else 1.0


def offsets(summary: Summary) -> dict[int, float]:
    """By seed, how much more its runs lose than those of all seeds, on average.

    All widths and values see the same batches from one seed, so most of what seeds differ by is
    common to all of them, and says nothing of one beside another.
    """
    found: dict[int, list[float]] = {}
    for sample in (s for samples in summary.curves.values() for s in samples):
        if math.isfinite(sample.mean):
            for seed, loss in sample.by_seed.items():
                found.setdefault(seed, []).append(loss - sample.mean)
    return {seed: fmean(differences) for seed, differences in found.items()}


def profile(summary: Summary, samples: Sequence[Sample]) -> list[Sample]:
    """By value of the axis, the best choice of all other values."""
    best: dict[float, Sample] = {}
    for sample in samples:
        at = place(summary, sample)
        if at not in best or sample.mean < best[at].mean:
            best[at] = sample
    return [best[at] for at in sorted(best)]


def place(summary: Summary, sample: Sample) -> float:
    """Where a sample stands along the axis: the value, or its log2."""
    value = sample.values[summary.axis]
    assert isinstance(value, int | float)
    return math.log2(value) if is_log(summary) else float(value)


def is_log(summary: Summary) -> bool:
    """Whether all values of the axis have a logarithm."""
    values = [s.values[summary.axis] for samples in summary.curves.values() for s in samples]
    return all(isinstance(v, int | float) and v > 0 for v in values)


def limits(summary: Summary) -> tuple[float, float]:
    """The losses worth seeing: from the best to what the smallest values give."""
    means = [s.mean for samples in summary.curves.values() for s in samples]
    finite = sorted(mean for mean in means if math.isfinite(mean))
    if not finite:
        return 0.0, 1.0
    low, high = finite[0], finite[min(len(finite) - 1, int(0.85 * len(finite)))]
    room = 0.08 * (high - low) or 0.1
    return low - room, high + room
