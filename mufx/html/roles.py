"""The table of parameters: their roles, groups and numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod

from mufx.auditing.records import AuditReport, Finding
from mufx.html.document import Cell, Column, Row, Table
from mufx.manifest import Manifest, ParameterEntry

_TITLE = "Parameters"


def of_manifest(manifest: Manifest) -> Table:
    """Role, group, shapes and factors of every parameter of a conversion."""
    factors = ("Init ×", "Learning rate ×", "Weight decay ×", "Eps ×", "Multiplier")
    columns = (
        *_first(manifest.parameters),
        Column("Group", "code", filter="choice"),
        *(Column(title, "number") for title in ("Shape", "Base shape", *factors)),
    )
    rows = tuple(_of_entry(name, entry) for name, entry in manifest.parameters.items())
    return Table(_TITLE, columns, rows)


def _of_entry(name: str, entry: ParameterEntry) -> Row:
    cells: tuple[Cell, ...] = (
        name,
        entry.role.value,
        entry.group,
        _shape(entry.shape),
        _shape(entry.base_shape),
        entry.init_scale,
        entry.lr_scale,
        entry.weight_decay_scale,
        entry.eps_scale,
        entry.multiplier,
    )
    also = (f"the same tensor as {', '.join(entry.tied)}",) if entry.tied else ()
    rows = tuple(f"rows {r.start} to {r.stop} of axis {r.axis}: {r.role}" for r in entry.rows)
    return Row(cells, (*entry.because, *also, *rows))


def of_audit(report: AuditReport, groups: Mapping[str, str]) -> Table:
    """Role, group and shape of every parameter of an audit, and what was found about it."""
    columns = (
        *_first(report.parameters),
        Column("Group in μP", "code", filter="choice"),
        Column("Found", "mark", filter="choice"),
        *(Column(t, "number") for t in ("Shape", "Fan-in ×", "Fan-out ×", "Multiplier ×")),
    )
    found: dict[str, list[Finding]] = {}
    for finding in report.findings:
        found.setdefault(finding.parameter or "", []).append(finding)
    rows = (
        Row(
            (
                name,
                p.role,
                groups[name],
                found[name][0].severity.value if name in found else "clean",
                _shape(p.shape),
                p.m_in,
                p.m_out,
                p.multiplier,
            ),
            (*(f.message for f in found.get(name, ())), *p.because),
        )
        for name, p in report.parameters.items()
    )
    return Table(_TITLE, columns, tuple(rows))


def _first(parameters: Iterable[str]) -> tuple[Column, Column]:
    hints = tuple(dict.fromkeys(m for name in parameters for m in _modules(name)))
    return (
        Column("Parameter", "code", filter="search", hints=hints),
        Column("Role", "mark", filter="choice"),
    )


def _modules(name: str) -> list[str]:
    """The modules that a parameter lies in, outermost first, as a search takes them."""
    parts = name.split(".")[:-1]
    return [".".join(parts[: i + 1]) + "." for i in range(len(parts))]


def _shape(shape: tuple[int, ...]) -> tuple[float, str]:
    return prod(shape), " × ".join(map(str, shape)) or "1"
