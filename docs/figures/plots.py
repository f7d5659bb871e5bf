"""What the figures share: two panels, standard parametrization beside μP, as a readable SVG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

HERE = Path(__file__).parent
PARAMETRIZATIONS = {"sp": "standard parametrization", "mup": "μP"}
MARKERS = "osD^v"


def panels(ylabel: str) -> tuple[Any, dict[str, Axes]]:
    """A figure with one panel for each parametrization, on the same scale."""
    plt.rcParams["font.size"] = 10
    plt.rcParams["svg.hashsalt"] = "mufx"
    plt.rcParams["legend.frameon"] = False
    figure, axes = plt.subplots(1, 2, figsize=(8.4, 3.5), sharey=True, layout="constrained")
    for axis, title in zip(axes, PARAMETRIZATIONS.values(), strict=True):
        axis.set_title(title)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel(ylabel)
    return figure, dict(zip(PARAMETRIZATIONS, axes, strict=True))


def widths(axis: Axes, found: Sequence[int]) -> None:
    """A logarithmic axis with the widths as people write them."""
    axis.set_xscale("log", base=2)
    axis.set_xticks(found, [str(width) for width in found])
    axis.set_xlabel("width")


def colour(index: int, count: int) -> Any:
    """From dark to light, so that the order survives a print in grey."""
    return matplotlib.colormaps["viridis"](0.85 * index / max(1, count - 1))


def save(figure: Any, name: str) -> None:
    """Writes the figure; the same numbers give the same bytes."""
    figure.savefig(HERE / f"{name}.svg", metadata={"Date": None})
