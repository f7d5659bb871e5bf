"""`mufx.audit`: judges a model in standard parametrization, or an existing μP implementation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from torch import nn

from mufx.auditing.groups import Live, MakeOptimizer, read
from mufx.auditing.judgement import Audited, judged
from mufx.auditing.records import AuditReport
from mufx.diagnostics import MufxError, error, raise_errors
from mufx.factory import place_of
from mufx.garbage import uncollected
from mufx.passes import PASSES
from mufx.passes.apply_corrections import apply_corrections
from mufx.passes.find_corrections import find_corrections
from mufx.passes.scale_inits import scale_inits
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
    return judged(program, live, None if isinstance(optimizer, str) else place_of(optimizer))


def corrected(audited: Audited) -> Program:
    """The audited program with the factors that its forward pass lacks, and their changes."""
    program = audited.program
    factors = zip(program.traces, audited.expected.fits, strict=True)
    corrections = {trace.training: fit.corrections for trace, fit in factors}
    return apply_corrections(replace(program, corrections=corrections))


_ANALYSES = (*PASSES[: PASSES.index(find_corrections)], scale_inits)
_AS_FINDINGS = frozenset({"MUF107", "MUF204"})
"""Errors of a conversion that an audit can go on with."""


def _analysed(program: Program) -> Program:
    """Uses, roles, inits and the plan of the form without multipliers; nothing is rewritten."""
    for step in _ANALYSES:
        program = step(program)
        raise_errors(d for d in program.diagnostics if d.code not in _AS_FINDINGS)
    return program
