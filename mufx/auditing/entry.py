"""`mufx.audit`: judges a model in standard parametrization, or an existing μP implementation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from torch import nn

from mufx.auditing.expected import Expectation, expectation
from mufx.auditing.findings import of_diagnostics, of_forward, of_parameters
from mufx.auditing.groups import Live, MakeOptimizer, read
from mufx.auditing.multipliers import carried, without_constant
from mufx.auditing.numbers import Found, of_parameter, settings
from mufx.auditing.records import AuditReport, Finding, Parameter, ordered
from mufx.auditing.training import is_plain, of_eps, of_groups
from mufx.diagnostics import Diagnostic, MufxError, Severity, error, raise_errors
from mufx.factory import place_of
from mufx.garbage import uncollected
from mufx.passes.apply_corrections import apply_corrections
from mufx.passes.assign_roles import assign_roles
from mufx.passes.find_uses import find_uses
from mufx.passes.plan_parameters import plan_parameters
from mufx.passes.read_inits import read_inits
from mufx.program import Form, Program
from mufx.rules import RULES, RuleTable
from mufx.source import ExampleInputs, Source, from_callable
from mufx.tracing import trace

Progress = Callable[[str], None]


def audit(
    build: Callable[..., nn.Module],
    inputs: ExampleInputs,
    base: Mapping[str, object],
    target: Mapping[str, object],
    *,
    optimizer: str | MakeOptimizer = "adamw",
    vary: Iterable[str] = (),
    rules: RuleTable = RULES,
) -> AuditReport:
    """Finds what of a model and its training does not follow the width as μP wants it.

    Nothing is trained and nothing allocated: the model is built on `meta` at base and at target
    width, and so is its optimizer. What counts is the training that results, not the form it is
    written in: a multiplier in the forward pass, an init and a learning rate are judged together.

    Args:
        build: Makes the model, called with the knobs as keywords.
        inputs: Example inputs of `forward`, as in `mufx.convert`.
        base: The knobs where hyperparameters are tuned.
        target: The knobs of the model to train.
        optimizer: "adam", "adamw" or "sgd", for a model in standard parametrization; or a
            function that is called with the model and returns its `torch.optim.Optimizer` (or
            that and its scheduler), whose groups are then read at both widths.
        vary: As in `mufx.convert`.
        rules: The op rules.

    Returns:
        The report: `findings`, `ok`, and the role of every parameter.

    Raises:
        MufxError: What cannot be built, recorded or labelled, located; `MUF601` to `MUF604`.

    Source: Tensor Programs V (Yang et al., 2022), Tables 3, 8 and 9, Lemma J.1.
    """
    source = from_callable(build, inputs, base, target, tuple(vary))
    return audit_source(source, optimizer=optimizer, rules=rules)


@uncollected()
def audit_source(
    source: Source,
    *,
    optimizer: str | MakeOptimizer = "adamw",
    rules: RuleTable = RULES,
    progress: Progress = lambda _: None,
) -> AuditReport:
    """`audit` for a Source, as the command line loads it; `progress` is told each step."""
    return audited_source(source, optimizer=optimizer, rules=rules, progress=progress).report


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

    def corrected(self) -> Program:
        """The program with the factors that its forward pass lacks, and their changes."""
        factors = zip(self.program.traces, self.expected.fits, strict=True)
        corrections = {trace.training: fit.corrections for trace, fit in factors}
        return apply_corrections(replace(self.program, corrections=corrections))


@uncollected()
def audited_source(
    source: Source,
    *,
    optimizer: str | MakeOptimizer = "adamw",
    rules: RuleTable = RULES,
    progress: Progress = lambda _: None,
) -> Audited:
    """`audit_source`, with the Program that was judged."""
    if dict(source.base) == dict(source.target):
        raise MufxError(
            error(
                "MUF604",
                "base and target are the same size: nothing grows that could be judged",
                hint="choose a target that is a multiple of the base",
            )
        )
    progress("recording the model")
    name = optimizer if isinstance(optimizer, str) else "adamw"
    program = trace(source, optimizer=name, form=Form.TABLE3.value, rules=rules)
    live: tuple[Live, Live] | None = None
    if not isinstance(optimizer, str):
        progress("reading the optimizer's groups")
        live = (read(optimizer, program.base.model), read(optimizer, program.target.model))
        program = replace(program, optimizer=live[1].kind)
    progress("labelling")
    program = _analysed(program)
    found = _numbers(program, live)
    expected, findings = _judged(program, found)
    if live is not None and not isinstance(optimizer, str):
        groups = of_groups(program, found, expected, live, place_of(optimizer))
        findings = [*groups, *findings]
    return Audited(_report(program, expected, findings, live), program, expected)


def _judged(program: Program, found: Mapping[str, Found]) -> tuple[Expectation, list[Finding]]:
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


_AS_FINDINGS = frozenset({"MUF107", "MUF204"})
"""Errors of a conversion that an audit can go on with."""


def _analysed(program: Program) -> Program:
    """Uses, roles, inits and the plan of the form without multipliers; nothing is rewritten."""
    for step in (find_uses, assign_roles, read_inits, plan_parameters):
        program = step(program)
        raise_errors(d for d in program.diagnostics if d.code not in _AS_FINDINGS)
    return program


def _numbers(program: Program, live: tuple[Live, Live] | None) -> dict[str, Found]:
    found: dict[str, Found] = {}
    for name in program.parameters():
        pair = settings(live, name, program.optimizer)
        found[name] = of_parameter(program.inits[name], pair)
    return found


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
    return (d for d in program.diagnostics if d.severity is Severity.WARNING)
