"""What a labelled program is judged by, and the report of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from mufx.auditing.expected import Expectation, expectation
from mufx.auditing.findings import of_diagnostics, of_forward, of_parameters
from mufx.auditing.groups import Live
from mufx.auditing.multipliers import carried, without_constant
from mufx.auditing.numbers import Found, of_parameter, settings
from mufx.auditing.records import AuditReport, Finding, Parameter, ordered
from mufx.auditing.training import is_plain, of_eps, of_groups
from mufx.diagnostics import Diagnostic, Place, Severity
from mufx.init_sizes import compared
from mufx.moments import Moments, moments_of_rows
from mufx.program import Program


@dataclass(frozen=True)
class Audited:
    """An audit with what it was judged by.

    Attributes:
        report: What was found.
        program: The model as it is, with roles and a plan; nothing is rewritten.
        expected: What μP expects of it.
    """

    report: AuditReport
    program: Program
    expected: Expectation


def judged(program: Program, live: tuple[Live, Live] | None, place: Place | None) -> Audited:
    """Judges a program with `labels`, `inits` and the `plan` of the form without multipliers.

    Args:
        program: For the optimizer that `live` is, where there is one.
        live: The optimizers of the models at base and at target width; `None` judges a model in
            standard parametrization, which has one group for everything.
        place: Where the optimizers are made.
    """
    found = _numbers(program, live)
    expected, findings = _expected(program, found)
    if live is not None and place is not None:
        findings = [*of_groups(program, found, expected, live, place), *findings]
    return Audited(_report(program, expected, findings, live), program, expected)


def _numbers(program: Program, live: tuple[Live, Live] | None) -> dict[str, Found]:
    found: dict[str, Found] = {}
    for name in program.parameters():
        pair = settings(live, name, program.optimizer)
        base, target = program.inits[name]
        parts = _parts(program, name)
        if parts is None:
            whole = _as_compared(program, name, of_parameter((base, target), pair))
            found[name] = _less_rows(program, name, whole)
            continue
        hidden, reading = (of_parameter((base, part), pair) for part in parts)
        found[name] = replace(hidden, rows_init=reading.init)
    return found


def _as_compared(program: Program, name: str, found: Found) -> Found:
    """With an init that stays where a conversion takes its sizes for one, as of computed decays."""
    small, large = compared(program, name)
    return replace(found, init=1.0) if found.init is not None and small == large else found


def _less_rows(program: Program, name: str, found: Found) -> Found:
    """The init of the other rows, if those that read out are m_in**-1/2 as large.

    Where they do not stand on the first axis their entries cannot be told apart in memory.
    """
    blocks = program.row_blocks.get(name)
    if blocks is None or found.init is None or program.inits[name][1].kind == "unknown":
        return found
    rows = program.target.model.get_parameter(name).shape[blocks.axis]
    part = sum(stop - start for start, stop in blocks.rows) / rows
    size = math.sqrt(1 - part * (1 - 1 / program.labels[name].m_in))
    return replace(found, init=found.init / size, exact_init=False)


def _parts(program: Program, name: str) -> tuple[Moments, Moments] | None:
    """The inits at target width of the rows of a fused weight: hidden, and reading out."""
    blocks = program.row_blocks.get(name)
    if blocks is None or blocks.axis or program.inits[name][1].kind == "unknown":
        return None
    rows = program.target.model.get_parameter(name).shape[0]
    bounds = [0, *(bound for block in blocks.rows for bound in block), rows]
    others = tuple((a, b) for a, b in zip(bounds[::2], bounds[1::2], strict=True) if a < b)
    found = [moments_of_rows(program.target, name, part) for part in (others, blocks.rows)]
    hidden, reading = found
    return (hidden, reading) if hidden is not None and reading is not None else None


def _expected(program: Program, found: Mapping[str, Found]) -> tuple[Expectation, list[Finding]]:
    """What is expected, and what deviates from it.

    Learning rates that are the same for all are right in Table 9 with SGD, and where nothing
    grows. If that does not explain everything, they are taken for not having been chosen.
    """
    expected = expectation(program, found, plain=False)
    findings = _deviations(program, found, expected)
    if is_plain(found) and any(f.severity is Severity.ERROR for f in findings):
        expected = expectation(program, found, plain=True)
        findings = _deviations(program, found, expected)
    return expected, findings


def _deviations(
    program: Program, found: Mapping[str, Found], expected: Expectation
) -> list[Finding]:
    return [
        *of_diagnostics(program, expected),
        *of_parameters(program, found, expected),
        *of_forward(program, expected),
        *without_constant(program),
        *of_eps(found, expected),
    ]


def _report(
    program: Program,
    expected: Expectation,
    findings: list[Finding],
    live: tuple[Live, Live] | None,
) -> AuditReport:
    source = program.source
    return AuditReport(
        source.name,
        program.optimizer.value,
        dict(source.base),
        dict(source.target),
        live is not None,
        {name: _parameter(program, expected, name) for name in program.parameters()},
        ordered(findings),
        tuple(carried(program)),
        tuple(_remarks(program)),
    )


def _parameter(program: Program, expected: Expectation, name: str) -> Parameter:
    label = program.labels[name]
    return Parameter(
        label.role.value,
        tuple(program.target.model.get_parameter(name).shape),
        label.m_in,
        label.m_out,
        expected.scales[name].multiplier,
        label.because,
    )


def _remarks(program: Program) -> Iterable[Diagnostic]:
    return (d for d in program.diagnostics if d.severity is not Severity.ERROR)
