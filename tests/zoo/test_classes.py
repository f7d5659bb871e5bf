"""One live instance against two sizes of its factory, on all models of the zoo."""

from __future__ import annotations

import pytest

import mufx
from mufx.classes import find_identities
from mufx.passes import PASSES, find_corrections
from mufx.program import Program
from mufx.source import BATCH
from tests.agreement import disagreements, planned_alone
from tests.zoo.specs import SPECS, Spec

pytestmark = pytest.mark.filterwarnings("ignore::Warning:transformers.*", "ignore::FutureWarning")

FAST = {"gpt2", "mixtral"}
"""Part of `make test`."""

each = pytest.mark.parametrize(
    "spec",
    [
        pytest.param(spec, id=spec.name, marks=[] if spec.name in FAST else [pytest.mark.zoo])
        for spec in SPECS
        if spec.refused is None
    ],
)


def by_factory(spec: Spec) -> Program:
    """What two sizes show, up to the factors that the forward pass needs."""
    program = mufx.trace(spec.source())
    for step in PASSES[: PASSES.index(find_corrections) + 1]:
        program = step(program)
    return program


def facts(program: Program, name: str) -> tuple[object, ...]:
    """All that is decided about a parameter but its init at target width."""
    label = program.labels[name]
    kind = (label.role, label.m_in, label.m_out, label.multipliers)
    return (kind, program.row_blocks.get(name), program.plan[name])


@each
def test_an_instance_and_a_factory_agree(spec: Spec) -> None:
    known = by_factory(spec)
    model, inputs = spec.build(at_target=True), spec.example(BATCH, at_target=True)
    found = find_identities(model, inputs)

    wrong, count = disagreements(found, known)
    assert not wrong, f"{len(wrong)} nodes, {count} axes"
    assert count > 50
    alone = planned_alone(model, inputs, found, known).program
    assert alone.parameters() == known.parameters()
    assert [n for n in alone.parameters() if facts(alone, n) != facts(known, n)] == []
    assert alone.corrections == known.corrections
