"""`mufx.audit` of one instance: everything but init, which one size does not show."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from mufx.auditing.groups import Live, MakeOptimizer, read
from mufx.auditing.judgement import Audited, judged
from mufx.auditing.records import AuditReport
from mufx.classes.growing import Grow
from mufx.classes.numbers import Answers
from mufx.classes.planning import labelled
from mufx.classes.program import trace_instance
from mufx.diagnostics import Diagnostic, MufxError, error, raise_errors, warning
from mufx.factory import place_of
from mufx.garbage import uncollected
from mufx.moments import Moments
from mufx.program import Optimizer, Program
from mufx.rules import RULES, RuleTable
from mufx.source import ExampleInputs

_UNKNOWN = Moments(0.0, 0.0, random=False, kind="unknown")


@uncollected()
def audit_instance(
    model: nn.Module,
    inputs: ExampleInputs,
    grow: Grow,
    *,
    numbers: Answers | None = None,
    optimizer: str | MakeOptimizer = "adamw",
    rules: RuleTable = RULES,
) -> AuditReport:
    """Audits a live instance at target width, as `mufx.audit` does two sizes of a factory.

    How the init follows the width one instance does not show: it is taken to be right, and a
    warning says so.

    Args:
        model: The instance.
        inputs: Example inputs, as in `mufx.convert`.
        grow: The classes that grow, and how many times, as `trace_instance` takes them.
        numbers: Answers on numbers in the forward pass, as `trace_instance` takes them.
        optimizer: "adam", "adamw" or "sgd", for a model in standard parametrization; or a
            function of a model that returns its optimizer. It is called with the instance, and
            with bare modules that hold parameters of the same names at their base shapes.
        rules: The op rules.

    Raises:
        MufxError: As `trace_instance`; `MUF601` to `MUF604` as `mufx.audit`.
    """
    name = optimizer if isinstance(optimizer, str) else "adamw"
    program = trace_instance(model, inputs, grow, numbers=numbers, optimizer=name, rules=rules)
    return audited(program, model, optimizer).report


def audited(program: Program, model: nn.Module, optimizer: str | MakeOptimizer) -> Audited:
    """The audit of a Program from `trace_instance`."""
    if dict(program.source.base) == dict(program.source.target):
        raise MufxError(
            error(
                "MUF604",
                "no class grows, so there is nothing that could be judged",
                hint="name the classes that are wider than at base width, as residual=4",
            )
        )
    live: tuple[Live, Live] | None = None
    if not isinstance(optimizer, str):
        live = (read(optimizer, program.base.model), read(optimizer, model))
        program = replace(program, optimizer=live[1].kind)
    else:
        program = replace(program, optimizer=Optimizer(optimizer))
    program = labelled(program)
    raise_errors(program.diagnostics)
    program = replace(program, inits=dict.fromkeys(program.parameters(), (_UNKNOWN, _UNKNOWN)))
    place = None if isinstance(optimizer, str) else place_of(optimizer)
    return judged(program.report(_init()), live, place)


def _init() -> Diagnostic:
    return warning(
        "MUF710",
        "how the init follows the width is not judged: one instance does not show it",
        hint="give the model's class with base and target knobs",
    )
