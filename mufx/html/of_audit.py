"""The page of an audit."""

from __future__ import annotations

import math
from collections.abc import Iterator

from mufx.auditing.entry import corrected
from mufx.auditing.judgement import Audited
from mufx.auditing.records import AuditReport, Finding, Multiplier
from mufx.auditing.show import verdict
from mufx.html import roles, tree
from mufx.html.axes import Grown
from mufx.html.corrections import corrections
from mufx.html.document import Block, Code, Column, Document, Entry, Row, Section, Table, Words
from mufx.html.places import lines_at, of_diagnostic, shown
from mufx.html.training import grouping
from mufx.knobs import written
from mufx.manifest import group_names

_MENDED = (
    "The groups that μP wants in the form that the model is written in; inits and multipliers are "
    "those of the findings. mufx convert writes all of it."
)


def of_audit(found: Audited, grown: Grown | None = None) -> Document:
    """Findings, roles, modules, the corrections that are missing, and what else was said.

    `grown` is what is known of the instance, where one was audited.
    """
    report = found.report
    knobs = f"{written(report.base)} → {written(report.target)}"
    return Document(
        f"Audit of {report.model}",
        f"{knobs} · {report.optimizer}{', groups as made' * report.live}",
        (
            Section("findings", "Findings", tuple(_findings(report))),
            Section("roles", "Roles", (roles.of_audit(report, _groups(found)),)),
            tree.section(found.program, grown),
            Section("corrections", "Corrections", _corrections(found)),
            *_multipliers(report),
            Section("diagnostics", "Diagnostics", tuple(_diagnostics(report))),
            Section("train", "Train", _train(found)),
        ),
        verdict(report),
        report.ok,
        found.program.source.digest,
    )


def _groups(found: Audited) -> dict[str, str]:
    """The group that μP puts each parameter into, in the form that the model is written in."""
    expected = found.expected.scales
    scales = {name: (s.lr, s.weight_decay, s.eps) for name, s in expected.items()}
    return group_names(scales, {name: label.role for name, label in found.program.labels.items()})


def _train(found: Audited) -> tuple[Block, ...]:
    """The optimizer that is right for the model once its findings are mended."""
    code = grouping(found.program.optimizer, found.expected.scales, _groups(found))
    return Words(_MENDED), Code(code)


def _findings(report: AuditReport) -> Iterator[Block]:
    if not report.findings:
        yield Words("None: every number follows the width as μP wants it.")
        return
    columns = (
        Column("Of", "code", filter="search"),
        Column("Severity", "mark", filter="choice"),
        Column("Role", "mark", filter="choice"),
        Column("Quantity", filter="choice"),
        *(Column(title, "number") for title in ("Found ×", "Right ×", "Found", "Right")),
        Column("Place", "code"),
    )
    yield Table("Findings", columns, tuple(_row(f) for f in report.findings))


def _row(finding: Finding) -> Row:
    numbers = (finding.found, finding.expected, finding.found_value, finding.expected_value)
    return Row(
        (
            finding.parameter or finding.where or "the model",
            finding.severity.value,
            finding.role or "",
            finding.quantity.value,
            *(value if math.isfinite(value) else None for value in numbers),
            shown(finding.place),
        ),
        (f"{finding.code}: {finding.message}", finding.hint),
    )


def _corrections(found: Audited) -> tuple[Block, ...]:
    """What the forward pass lacks, as the graph that is there and the one that is right."""
    return corrections(corrected(found)) or (Words("None: the forward pass is right."),)


def _multipliers(report: AuditReport) -> Iterator[Section]:
    if not report.multipliers:
        return
    numbers = (Column(title, "number") for title in ("At base", "At target", "Is 1 at width"))
    columns = (Column("Multiplier", filter="choice"), Column("Place", "code"), *numbers)
    rows = tuple(_of_multiplier(each) for each in report.multipliers)
    yield Section("multipliers", "Multipliers", (Table("Multipliers", columns, rows),))


def _of_multiplier(each: Multiplier) -> Row:
    return Row((each.kind, shown(each.place), each.base, each.target, each.implied_base))


def _diagnostics(report: AuditReport) -> Iterator[Block]:
    """The findings of each place with their lines of source, then what else was said."""
    places: dict[str, list[Finding]] = {}
    for finding in report.findings:
        places.setdefault(shown(finding.place), []).append(finding)
    yield from (_entry(there) for there in places.values())
    yield from (of_diagnostic(each) for each in report.diagnostics)
    if not report.findings and not report.diagnostics:
        yield Words("None.")


def _entry(there: list[Finding]) -> Entry:
    """One place; findings that are told with the same words and numbers are told once."""
    told: dict[tuple[str, ...], list[Finding]] = {}
    for finding in there:
        told.setdefault(_told(finding), []).append(finding)
    facts = [fact for alike in told.values() for fact in _facts(alike)]
    place = there[0].place
    title = shown(place) or ", ".join(dict.fromkeys(finding.code for finding in there))
    return Entry(title, tuple(facts), lines_at(place), mark=there[0].severity.value)


def _told(finding: Finding) -> tuple[str, ...]:
    """All that the message and the hint say, but the parameter."""
    numbers = f"{finding.found:.4g}", f"{finding.expected:.4g}"
    return finding.code, finding.role or "", *numbers, finding.hint


def _facts(alike: list[Finding]) -> Iterator[tuple[str, str]]:
    names = [name for name in dict.fromkeys(f.parameter for f in alike) if name]
    yield alike[0].code, alike[0].message
    if alike[0].hint:
        yield "hint", alike[0].hint
    if names[1:]:
        yield "also", ", ".join(names[1:])
