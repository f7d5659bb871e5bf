"""The audit over the zoo: it asks for what a conversion does, and finds nothing after that."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest
import torch
from torch import nn

import mufx
from mufx.api import convert_source
from mufx.auditing.entry import audit_source
from mufx.auditing.records import AuditReport
from mufx.diagnostics import Place
from mufx.manifest import Manifest
from mufx.passes import PASSES, apply_corrections, scale_inits
from mufx.program import Program
from mufx.sizes import same
from tests.zoo.specs import SPECS, Spec

pytestmark = pytest.mark.filterwarnings("ignore::Warning:transformers.*", "ignore::FutureWarning")

FAST = {"gpt2", "bert"}
"""Part of `make test`."""


def each(specs: Iterable[Spec]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "spec",
        [
            pytest.param(s, id=s.name, marks=[] if s.name in FAST else [pytest.mark.zoo])
            for s in specs
            if s.refused is None
        ],
    )


# -- a model in standard parametrization --------------------------------------------------------

Asked = set[tuple[str, str, float]]
"""Quantity, parameter, and how it should change from base to target."""


def labelled(spec: Spec) -> Program:
    """Everything that a conversion finds out, before it rewrites."""
    program = mufx.trace(spec.source())
    for step in PASSES[: PASSES.index(apply_corrections)]:
        program = step(program)
    return scale_inits(program)


def folded(spec: Spec) -> Program:
    """After it has rewritten, where multipliers have gone into gains."""
    return convert_source(spec.source()).program


def wanted(program: Program) -> Asked:
    """Every number of a parameter that is not 1, or that its own init does not give it."""
    asked: Asked = set()
    for name, scales in program.plan.items():
        measured = any(init.kind == "measured" for init in program.inits[name])
        if abs(program.init_corrections[name] - 1) > (0.1 if measured else 0.01):
            asked.add(("init", name, round(scales.init, 4)))
        if not same(scales.lr, 1.0):
            asked |= {
                ("lr", name, round(scales.lr, 4)),
                ("weight decay", name, round(scales.weight_decay, 4)),
            }
    for name, correction in program.row_corrections.items():
        if name in program.row_blocks and not same(correction, 1.0):
            asked.add(("rows", name, round(program.plan[name].init * correction, 4)))
    return asked


def found(report: AuditReport) -> Asked:
    return {
        (
            "rows" if "the rows" in f.message else f.quantity.value,
            f.parameter,
            round(f.expected, 4),
        )
        for f in report.findings
        if f.parameter is not None and f.quantity.value != "multiplier"
    }


def factors(values: Iterable[float]) -> list[float]:
    """A factor on a divisor is the reciprocal of one on the quotient."""
    return sorted(round(max(v, 1 / v), 4) for v in values)


def missing(report: AuditReport) -> list[float]:
    """The factors that the forward pass lacks."""
    pairs = (f for f in report.findings if f.quantity.value == "multiplier")
    return factors(f.expected / f.found for f in pairs)


def corrected(program: Program) -> list[float]:
    sites = {site: f for mode in program.corrections.values() for site, f in mode.items()}
    return factors(sites.values())


Blamed = set[tuple[str, str, str]]
"""The parameters that a factor of the forward pass is missing behind: role, and what it makes."""


def blamed(report: AuditReport) -> Blamed:
    """Of the readouts; a number behind an embedding is of the number's own place."""
    named = (f for f in report.findings if f.quantity.value == "multiplier" and f.parameter)
    return {(f.parameter or "", f.role or "", f.where) for f in named if f.where == "readout"}


def tied(program: Program) -> Blamed:
    labels = program.labels.items()
    return {(name, label.role.value, "readout") for name, label in labels if label.multipliers}


Places = set[tuple[str, int, str]]
LATER = {"gemma2", "cohere"}
"""Their logits meet a number of the model's own: the audit sees there that a factor is missing."""


def places(found: Iterable[Place | None]) -> Places:
    return {(p.file, p.line, p.module) if p is not None else ("", 0, "") for p in found}


def of_findings(report: AuditReport) -> Places:
    return places(f.place for f in report.findings if f.quantity.value == "multiplier")


def of_corrections(program: Program) -> Places:
    return places(
        trace.recording.origins[site.node].place
        for trace in program.traces
        for site in program.corrections[trace.training]
    )


@each(SPECS)
def test_an_audit_asks_for_what_a_conversion_does(spec: Spec) -> None:
    report = audit_source(spec.source())
    program = labelled(spec)

    if missing(report) == corrected(program):
        assert found(report) == wanted(program)
        assert spec.name in LATER or of_findings(report) == of_corrections(program)
    else:  # a factor that a gain already has is asked of its learning rate
        assert found(report) == wanted(folded(spec))
    assert blamed(report) == tied(program)


# -- the same model after mufx.apply ------------------------------------------------------------


def scaled(model: nn.Module, plan: Manifest) -> nn.Module:
    """What `mufx.apply` does to real parameters, on `meta`."""
    with torch.no_grad():
        for name, entry in plan.parameters.items():
            parameter = model.get_parameter(name)
            if entry.init_correction != 1.0:
                parameter.mul_(entry.init_correction)
            for rows in entry.rows:
                part = parameter.narrow(rows.axis, rows.start, rows.stop - rows.start)
                part.mul_(rows.init_correction)
    return model


def groups(plan: Manifest) -> Callable[[nn.Module], torch.optim.Optimizer]:
    """The optimizer of a user: of the plan at target width, plain at base."""

    def optimizer(model: nn.Module) -> torch.optim.Optimizer:
        shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
        at_target = all(shapes[name] == entry.shape for name, entry in plan.parameters.items())
        made = mufx.param_groups(model, plan, lr=1e-3, weight_decay=0.1) if at_target else None
        return torch.optim.AdamW(made or model.parameters(), lr=1e-3, weight_decay=0.1)

    return optimizer


@each(SPECS)
def test_an_applied_model_with_its_own_groups_is_clean(spec: Spec) -> None:
    source = spec.source()
    manifest = convert_source(source).manifest
    if manifest.unabsorbed:
        with pytest.raises(mufx.MufxError):
            mufx.applied(manifest)
        return
    plan = mufx.applied(manifest)

    def build(**knobs: object) -> nn.Module:
        model = source.build(**knobs)
        return scaled(model, plan) if knobs == dict(source.target) else model

    report = audit_source(replace(source, build=build), optimizer=groups(plan))

    assert report.findings == ()
