"""The figure: loss against the hyperparameter, one line a width, SP on the left and μP beside."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from mufx.sweep.summary import Sample, Summary
from mufx.sweep.text import NAMES

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


def draw(
    summary: Summary, width_knob: str, caption: str, folder: Path, stem: str = "sweep"
) -> None:
    """Writes the figure as PNG and SVG into a folder.

    A run that diverged has no point; a cross at the top says how many of them did.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(cast("Any", _STYLE)):
        figure = Figure(figsize=(8.0, 3.6), layout="constrained")
        _draw(figure, summary, width_knob, caption)
        folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(folder / f"{stem}.png", dpi=160)
        figure.savefig(folder / f"{stem}.svg", metadata={"Date": None})


def _draw(figure: Figure, summary: Summary, width_knob: str, caption: str) -> None:
    from matplotlib import colormaps

    parametrizations = list(dict.fromkeys(p for p, _ in summary.curves))
    panels = figure.subplots(1, len(parametrizations), sharey=True, sharex=True, squeeze=False)
    low, high = limits(summary)
    for panel, parametrization in zip(cast("Any", panels)[0], parametrizations, strict=True):
        optima = summary.of(parametrization)
        for i, optimum in enumerate(optima):
            color = colormaps["viridis"](0.9 * i / max(1, len(optima) - 1))
            samples = profile(summary, summary.curves[parametrization, optimum.width])
            _curve(panel, summary, samples, f"{optimum.width}", color)
        panel.set_title(NAMES[parametrization])
        panel.set_xlabel(f"log2 of {summary.axis}" if is_log(summary) else summary.axis)
        panel.set_ylim(low, high)
    panels[0][0].set_ylabel("training loss")
    panels[0][-1].legend(title=width_knob, frameon=False, fontsize=8)
    figure.supxlabel(caption, fontsize=7, color="0.35")


def _curve(
    panel: Axes, summary: Summary, samples: Sequence[Sample], label: str, color: Any
) -> None:
    places = [place(summary, sample) for sample in samples]
    finite = [(x, s) for x, s in zip(places, samples, strict=True) if math.isfinite(s.mean)]
    panel.plot(
        [x for x, _ in finite],
        [s.mean for _, s in finite],
        color=color,
        label=label,
        linewidth=1.4,
        marker="o",
        markersize=2.5,
    )
    for x, sample in finite:
        panel.plot([x, x], [min(sample.losses), max(sample.losses)], color=color, alpha=0.3, lw=0.8)
    for x, sample in zip(places, samples, strict=True):
        if not math.isfinite(sample.mean):
            panel.plot(x, 0.98, "x", color=color, transform=panel.get_xaxis_transform(), ms=4)
    if finite:
        x, best = min(finite, key=lambda pair: pair[1].mean)
        panel.plot(x, best.mean, "*", color=color, markersize=11, markeredgecolor="black", mew=0.5)


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
