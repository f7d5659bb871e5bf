"""The figure: the change of every node against width, one panel a variant."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, cast

import numpy as np

from mufx.check.request import Variant
from mufx.check.result import Checked, NodeRow
from mufx.check.show import NAMES
from mufx.check.slopes import Verdict
from mufx.check.training import Run
from mufx.diagnostics import MufxError, error
from mufx.sweep.text import counted

FILES: Final = ("check.png", "check.svg")
_NAMED: Final = 3
"""The nodes of a panel that are named at the most."""
_GAP: Final = 0.06
"""Between two names, as a part of the height of the panel."""
_LABEL: Final[dict[str, Any]] = {
    "xytext": (-4, 2),
    "textcoords": "offset points",
    "ha": "right",
    "va": "bottom",
    "fontsize": 6,
    "zorder": 5,
    "bbox": {"fc": "white", "ec": "none", "alpha": 0.85, "pad": 0.6},
}
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
        for panel, variant in zip(cast("Any", panels)[0], found.runs, strict=True):
            _name(panel, found, variant)
        panels[0][0].set_ylabel("mean |change|")
        request = found.request
        caption = (
            f"{found.model}, {request.optimizer}, lr {request.lr:g}, {request.steps} steps, "
            f"mean of {counted(request.seeds)}; one line a node, red where its slope exceeds "
            "+0.15, thick where it departs, dotted where it falls by design; the steepest are named"
        )
        figure.supxlabel(caption, fontsize=7.5, color="0.35")
        for name in FILES:
            options: dict[str, Any] = (
                {"metadata": {"Date": None}} if name.endswith("svg") else {"dpi": 160}
            )
            figure.savefig(folder / name, **options)


def _line(row: NodeRow) -> dict[str, Any]:
    """Dark and thicker where a change grows, so that it shows without colours too."""
    grows = row.verdict is Verdict.GROWS
    width = 2.4 if row.departs else 1.1 if grows else 0.8
    style = ":" if row.design else "-"
    return {"color": "tab:red" if grows else "0.65", "lw": width, "ls": style, "zorder": 2 + grows}


def _draw(panel: Any, found: Checked, variant: Variant) -> None:
    runs = found.runs[variant]
    for row in found.of(variant):
        if row.change.value is None:
            continue
        heights = [_height(runs[w], row.node) for w in runs]
        panel.plot(list(runs), heights, marker="o", ms=2.5, **_line(row))
    panel.set(xscale="log", yscale="log", title=NAMES[variant], xlabel=found.knob)
    panel.set_xticks(list(runs), labels=[str(w) for w in runs])
    panel.minorticks_off()


def _height(runs: tuple[Run, ...], node: str) -> float:
    return float(np.exp(np.mean([np.log(run.changes[node]) for run in runs])))


def _name(panel: Any, found: Checked, variant: Variant) -> None:
    """Writes what grows most at its line, the steepest first; none over another."""
    runs = found.runs[variant]
    named = [r for r in found.of(variant) if r.verdict is Verdict.GROWS or r.departs]
    steep = sorted(
        ((r.change.value, r.node) for r in named if r.change.value is not None), reverse=True
    )
    low, high = np.log(panel.get_ylim())
    taken: list[float] = []
    for _, node in steep:
        height = _height(runs[max(runs)], node)
        apart = [abs(np.log(height / other)) for other in taken]
        if len(taken) < _NAMED and min(apart, default=np.inf) > _GAP * (high - low):
            taken.append(height)
            panel.annotate(node, (max(runs), height), **_LABEL)
