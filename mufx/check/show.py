"""What a check found, as tables for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from mufx.check.request import Variant
from mufx.check.result import Checked, NodeRow
from mufx.check.slopes import Verdict
from mufx.sweep.text import counted

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

NAMES: Final[Mapping[Variant, str]] = {
    Variant.SP: "SP",
    Variant.MUP: "μP, emitted",
    Variant.APPLIED: "μP, applied",
}
FIRST_STEP: Final = (
    "The change over all steps is measured, not that of the first: a readout of zeros passes no "
    "gradient back in step 1, and attention logits only move once the values after them have."
)
NO_FIRST_STEP: Final = (
    "Step 1 was not measured, for the model computes in a precision of its own: whether a "
    "parameter can learn as much in a wider model was not judged."
)
_STYLES: Final[Mapping[Verdict, str]] = {
    Verdict.GROWS: "red",
    Verdict.DIVERGED: "red",
    Verdict.VANISHES: "yellow",
    Verdict.NOISY: "yellow",
    Verdict.FLAT: "green",
    Verdict.STILL: "dim",
    Verdict.CONSTANT: "dim",
}


def show(found: Checked, console: Console) -> None:
    """Prints the slopes of every variant, what diverged, and the conclusion."""
    from rich.text import Text

    request = found.request
    data = "synthetic data" if found.synthetic else "data of the user's"
    console.print(
        Text(
            f"{found.model}: slope of the change of every node over {found.knob}="
            f"{','.join(map(str, found.widths))}; {request.optimizer}, lr {request.lr:g}, "
            f"{request.steps} steps of batch {request.batch}, {counted(request.seeds)}, {data}"
        ),
        soft_wrap=True,
    )
    for variant in found.runs:
        table = _table(found, variant)
        table.width = _wide(console, table)
        console.print(table, crop=False)
    for line in conclusions(found):
        console.print(Text(line), soft_wrap=True)


def conclusions(found: Checked) -> list[str]:
    """What was left out and why, what diverged, and whether μP holds."""
    lines = [FIRST_STEP]
    lines += _left_out(found, Verdict.STILL, "did not move at all at some width")
    lines += _left_out(found, Verdict.CONSTANT, "never changes")
    lines += [
        f"{NAMES[v]}: left out, not in every run ({len(nodes)}): {', '.join(nodes)}"
        for v, nodes in found.missing.items()
    ]
    if not found.has_first_step:
        lines.append(NO_FIRST_STEP)
    lines += [f"{NAMES[v]}: left out: {why}" for v, why in found.skipped.items()]
    lines += [
        f"{NAMES[v]} diverged at {found.knob}={w}, seed {s}, in step {step}"
        for v, w, s, step in found.diverged
    ]
    lines += _noisy(found)
    lines += [f"{NAMES[row.variant]}: {row.node} {_departure(row)}" for row in found.departures]
    return [*lines, _verdict(found)]


def _left_out(found: Checked, verdict: Verdict, why: str) -> list[str]:
    nodes = dict.fromkeys(row.node for row in found.rows if row.verdict is verdict)
    return [f"left out, {why}: {', '.join(nodes)}"] if nodes else []


def _noisy(found: Checked) -> list[str]:
    """How much of μP nothing is said about: a check that judges little shows little."""
    rows = [row for row in found.rows if row.variant is not Variant.SP]
    noisy = sum(row.verdict is Verdict.NOISY for row in rows)
    more = "more --seeds, or widths further apart, tell"
    return [f"μP: {noisy} of {len(rows)} nodes are too noisy to say; {more}"] if noisy else []


def _verdict(found: Checked) -> str:
    if found.passes:
        return f"μP holds: median |slope| {found.median(Variant.MUP):.3f}"
    if found.judged or found.diverged or found.departures:
        return f"μP does not hold: median |slope| {found.median(Variant.MUP):.3f}"
    return (
        "μP is not shown to hold: no node of it was judged, all were left out or too noisy; "
        "take a larger --lr, more --steps or more --seeds"
    )


def _departure(row: NodeRow) -> str:
    if row.verdict is Verdict.DIVERGED:
        return "departs: it diverged"
    if row.starts_larger:
        return f"departs: it starts with slope {row.start.value:+.2f}, at most {row.design:+.2f}"
    if row.starts_smaller:
        return f"departs: it starts with slope {_number(row.start.value)}, and " + (
            f"{_number(row.start_predicted)} is expected"
        )
    if (part := row.learns_less) is not None:
        return (
            f"departs: the most that a step of {part.parameter} alone can change has slope "
            f"{_number(part.slope.value)}, and {part.expected:+.2f} is expected"
        )
    if row.change.value is None:
        return "departs: it moves at the smallest width, and not at all at a larger one"
    return f"departs: slope {row.change.value:+.2f}, and {row.design:+.2f} is expected"


def _wide(console: Console, table: Table) -> int:
    """Wide enough for the names of the nodes: what is cut off names nothing."""
    from rich.measure import Measurement

    natural = Measurement.get(console, console.options.update(max_width=500), table).maximum
    return max(console.width, natural)


def _table(found: Checked, variant: Variant) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(title=NAMES[variant], box=SIMPLE_HEAD, pad_edge=False, title_justify="left")
    table.add_column("node")
    for name in ("change", "start", "size", "step 1", "predicted", "verdict", ""):
        table.add_column(name, justify="right")
    for row in found.of(variant):
        table.add_row(
            Text(row.node),
            _slope(row),
            _number(row.start.value),
            _number(row.size.value),
            _number(row.first.value),
            _number(row.predicted),
            Text(row.verdict, style=_STYLES[row.verdict]),
            "departs" if row.departs else "disagrees" if row.disagrees else "",
        )
    return table


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:+.2f}"


def _slope(row: NodeRow) -> str:
    if row.change.value is None:
        return ""
    return f"{row.change.value:+.2f} ± {row.change.error:.2f}"
