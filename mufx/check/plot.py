"""The figure: the change of every node against width, one panel a variant."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, cast

import numpy as np

from mufx.check.request import Variant
from mufx.check.result import Checked
from mufx.check.show import NAMES
from mufx.diagnostics import MufxError, error

FILES: Final = ("check.png", "check.svg")
_STYLE: Final[dict[str, Any]] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "svg.fonttype": "none",
    "svg.hashsalt": "mufx",
}


def require() -> None:
    """Checks that figures can be drawn.

    Raises:
        MufxError: `MUF762` where matplotlib is missing.
    """
    if find_spec("matplotlib") is None:
        hint = "pip install 'mufx[check]', or leave out --out"
        raise MufxError(error("MUF762", "the figures of a check need matplotlib", hint=hint))


def draw(found: Checked, folder: Path) -> None:
    """Writes the figure as PNG and SVG. What departs is thick; nodes that never move are absent."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(cast("Any", _STYLE)):
        figure = Figure(figsize=(3.2 * len(found.runs) + 0.8, 3.4), layout="constrained")
        panels = figure.subplots(1, len(found.runs), sharey=True, squeeze=False)
        for panel, variant in zip(cast("Any", panels)[0], found.runs, strict=True):
            _draw(panel, found, variant)
        panels[0][0].set_ylabel("mean |change|")
        request = found.request
        caption = (
            f"{found.model}, {request.optimizer}, lr {request.lr:g}, {request.steps} steps, "
            f"mean of {request.seeds} seeds; one line a node, red where its slope exceeds +0.15"
        )
        figure.supxlabel(caption, fontsize=7, color="0.35")
        for name in FILES:
            options: dict[str, Any] = (
                {"metadata": {"Date": None}} if name.endswith("svg") else {"dpi": 160}
            )
            figure.savefig(folder / name, **options)


def _draw(panel: Any, found: Checked, variant: Variant) -> None:
    runs = found.runs[variant]
    for row in found.of(variant):
        if row.change.value is None:
            continue
        heights = [np.exp(np.mean([np.log(r.changes[row.node]) for r in runs[w]])) for w in runs]
        color = "tab:red" if row.verdict == "grows" else "0.45"
        width = 2.0 if row.departs else 0.9
        panel.plot(list(runs), heights, color=color, marker="o", ms=2.5, lw=width, alpha=0.75)
    panel.set(xscale="log", yscale="log", title=NAMES[variant], xlabel=found.knob)
    panel.set_xticks(list(runs), labels=[str(w) for w in runs])
    panel.minorticks_off()
