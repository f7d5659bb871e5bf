"""Prints an audit for people: at most 100 columns, equal findings of many layers in one row."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mufx.auditing.records import AuditReport, Finding, Multiplier, Parameter, Quantity
from mufx.diagnostics import Diagnostic, Place, Severity
from mufx.knobs import differing, written
from mufx.report import relative

if TYPE_CHECKING:
    from rich.console import Console

_STYLES = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.NOTE: ""}


def show(report: AuditReport, console: Console) -> None:
    """Prints the roles, the findings, the multipliers, and the verdict."""
    from rich.text import Text

    console.print(Text(_header(report, console.width)), soft_wrap=True)
    _show_roles(report.parameters, console)
    single = [f for f in report.findings if _is_single(f)]
    rows = [f for f in report.findings if not _is_single(f)]
    for finding in single:
        _show_single(finding, console)
    if rows:
        _show_rows(rows, console)
    if report.multipliers:
        _show_multipliers(report.multipliers, console)
    for diagnostic in folded(report.diagnostics):
        console.print(Text(str(diagnostic)))
    if report.sizes:
        sizes = ", ".join(f"{where} x {ratio:.4g}" for where, ratio in report.sizes.items())
        console.print(Text(f"sizes that leave 1, target over base, at most: {sizes}"))
    console.print(Text(verdict(report)))


def _header(report: AuditReport, width: int) -> str:
    """The model and the knobs that make it wider, with blanks to break at where it is long."""
    base, target = (
        written(differing(here, there))
        for here, there in ((report.base, report.target), (report.target, report.base))
    )
    trained = f"{report.optimizer}{', groups as made' * report.live}"
    line = f"{report.model}: {base} -> {target}, {trained}"
    return line if len(line) <= width else re.sub(r",(?! )", ", ", line)


def verdict(report: AuditReport) -> str:
    """One line: what was found, and what the analysis warns of beside that."""
    parts = [_counted(f.severity for f in report.findings)]
    beside = _counted(d.severity for d in report.diagnostics)
    if beside:
        parts.append(f"{beside} of the analysis")
    found = "; ".join(part for part in parts if part)
    return f"{'clean' if report.ok else 'not μP'}{': ' * bool(found)}{found}"


def _counted(severities: Iterable[Severity]) -> str:
    counts = Counter(severities)
    return ", ".join(f"{counts[s]} {s}{'s' * (counts[s] > 1)}" for s in _STYLES if counts[s])


def folded(diagnostics: Iterable[Diagnostic]) -> list[Diagnostic]:
    """What is said of many layers at one line of the source, once, with how often."""
    alike: dict[object, list[Diagnostic]] = {}
    for diagnostic in diagnostics:
        line = (diagnostic.place.file, diagnostic.place.line) if diagnostic.place else None
        likeness = (diagnostic.code, _pattern(diagnostic.message), diagnostic.hint, line)
        alike.setdefault(likeness, []).append(diagnostic)
    return [_once(group) for group in alike.values()]


def _once(group: list[Diagnostic]) -> Diagnostic:
    first = group[0]
    if len(group) == 1:
        return first
    place = first.place and replace(first.place, module=_pattern(first.place.module))
    message = f"{_pattern(first.message)} ({len(group)} times)"
    return replace(first, message=message, place=place)


def _is_single(finding: Finding) -> bool:
    """What is about the model or the groups as a whole."""
    return finding.parameter is None and finding.code != "MUF612"


def _show_roles(parameters: Mapping[str, Parameter], console: Console) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table("role", box=SIMPLE_HEAD, pad_edge=False)
    for name in ("tensors", "numbers"):
        table.add_column(name, justify="right")
    rows: dict[str, list[Parameter]] = {}
    for parameter in parameters.values():
        rows.setdefault(parameter.role, []).append(parameter)
    for role, members in sorted(rows.items()):
        table.add_row(role, str(len(members)), f"{sum(math.prod(p.shape) for p in members):,}")
    console.print(table)


def _show_single(finding: Finding, console: Console) -> None:
    from rich.text import Text

    where = f"{relative(finding.place)}: " if finding.place is not None else ""
    line = f"{where}{finding.severity} {finding.code}: {finding.message}"
    console.print(Text(line, style=_STYLES[finding.severity]))
    console.print(Text(f"  hint: {finding.hint}"))


@dataclass(frozen=True, slots=True)
class Row:
    """Parameters of several layers, or a number of the forward pass, with equal findings."""

    name: str
    times: int
    findings: tuple[Finding, ...]

    def head(self, width: int) -> str:
        """What it is, and under it how often, which role and where it is used.

        A name that is longer than `width` goes on in the next line, after a dot.
        """
        first = self.findings[0]
        place = [_short(first.place, width - 2)] if first.place is not None else []
        role = [first.role] if first.role else []
        often = [f"{self.times} times"] if self.times > 1 else []
        line = ", ".join([*often, *role, *place])
        lines = [line] if len(line) <= width - 2 else [", ".join([*often, *role]), *place]
        return "\n  ".join([*_broken(self.name, width), *lines])

    def cell(self, quantity: Quantity) -> str:
        """`found -> right` of one quantity, target over base."""
        found = [f for f in self.findings if f.quantity is quantity]
        return f"{found[0].found:.4g} -> {found[0].expected:.4g}" if found else ""


def rows_of(findings: Sequence[Finding]) -> list[Row]:
    """The rows of the table, in the order of the findings."""
    owners: dict[tuple[object, ...], list[Finding]] = {}
    for i, f in enumerate(findings):
        owners.setdefault((f.parameter,) if f.parameter else (f.where, i), []).append(f)
    alike: dict[tuple[object, ...], list[list[Finding]]] = {}
    for group in owners.values():
        alike.setdefault(_likeness(group), []).append(group)
    return [_row(groups) for groups in alike.values()]


def _likeness(group: list[Finding]) -> tuple[object, ...]:
    numbers = tuple((f.quantity, f"{f.found:.4g}", f"{f.expected:.4g}") for f in group)
    place = group[0].place
    line = (place.file, place.line) if place is not None else None
    return (_pattern(_name(group[0])), group[0].role, line, numbers)


def _row(groups: list[list[Finding]]) -> Row:
    name = _name(groups[0][0])
    return Row(_pattern(name) if len(groups) > 1 else name, len(groups), tuple(groups[0]))


def _broken(name: str, width: int) -> list[str]:
    """A dotted name in lines of at most `width`, two columns less from the second one on."""
    lines = [""]
    for part in re.findall(r"[^.]+\.?", name):
        if lines[-1] and len(lines[-1]) + len(part) > width - 2 * (len(lines) > 1):
            lines.append("")
        lines[-1] += part
    return lines


def _short(place: Place, width: int = 40) -> str:
    """The place with as many of its folders as fit into a column."""
    shown = str(place.portable())
    while len(shown) > width and "/" in shown:
        shown = shown.partition("/")[2]
    return shown


def _name(finding: Finding) -> str:
    return finding.parameter or finding.where


def _pattern(name: str) -> str:
    """The name with a star for the number of a layer."""
    return re.sub(r"(?<=\.)\d+(?=\.)|^\d+(?=\.)", "*", name)


def _show_rows(findings: Sequence[Finding], console: Console) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    shown = [q for q in Quantity if any(f.quantity is q for f in findings)]
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("target / base: found -> right", overflow="fold")
    for quantity in shown:
        table.add_column(quantity.value, justify="right", no_wrap=True)
    remarks: dict[str, None] = {}
    rows = rows_of(findings)
    width = console.width - sum(_column(quantity, rows) for quantity in shown) - 2
    for row in rows:
        worst = min(row.findings, key=lambda f: list(_STYLES).index(f.severity))
        head = Text(row.head(width), style=_STYLES[worst.severity])
        table.add_row(head, *(row.cell(quantity) for quantity in shown))
        for finding in row.findings:
            _, _, remark = finding.hint.partition("; ")
            if remark:
                remarks[f"{finding.quantity.value} of {row.name}: {remark}"] = None
    console.print(table)
    for remark in remarks:
        console.print(Text(remark))


def _column(quantity: Quantity, rows: Sequence[Row]) -> int:
    """The width of a column of numbers, with the space before it."""
    return 3 + max(len(quantity.value), *(len(row.cell(quantity)) for row in rows))


def _show_multipliers(multipliers: Sequence[Multiplier], console: Console) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table("multiplier", box=SIMPLE_HEAD, pad_edge=False)
    for name in ("times", "at base", "at target", "is 1 at width"):
        table.add_column(name, justify="right")
    table.add_column("at", overflow="fold")
    counted = Counter(replace(m, place=replace(m.place, module="", cls="")) for m in multipliers)
    for multiplier, times in counted.items():
        width = multiplier.implied_base
        table.add_row(
            multiplier.kind,
            str(times),
            f"{multiplier.base:.6g}",
            f"{multiplier.target:.6g}",
            f"{width:.6g}" if width is not None else "",
            _short(multiplier.place),
        )
    console.print(table)
