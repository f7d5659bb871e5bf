"""Compares what the classes of one instance say with two recorded sizes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

from torch import nn

from mufx.classes import Identities, InstancePlan
from mufx.classes.axes import AxisSpace, Var
from mufx.classes.growing import Growth
from mufx.classes.naming import best, pieces, resized
from mufx.classes.planning import planned
from mufx.classes.program import program_of
from mufx.diagnostics import Diagnostic, MufxError
from mufx.inputs import Inputs
from mufx.program import Program


def factors(found: Identities, known: Program) -> dict[Var, Fraction]:
    """Target over base of every class that grows, read off the first place that shows it.

    A class that is never an axis by itself is read off a product with others that are known, and
    none off an axis without entries, as `x[..., n:]` of an x that has n.
    """
    space = found.space
    shown = [
        (var, axis.base)
        for run, trace in zip(found.runs, known.traces, strict=True)
        for node, axes in trace.axes.items()
        for var, axis in zip(run.axes[node], axes, strict=True)
        if axis.base
    ]
    read: dict[Var, Fraction] = {}
    count = -1
    while len(read) > count:
        count = len(read)
        for var, base in shown:
            unknown = set(space.atoms(var)) - read.keys()
            if len(unknown) == 1 and _is_factor(space, var, *unknown):
                down = {atom: 1 / factor for atom, factor in read.items()}
                read[unknown.pop()] = resized(space, var, down) / base
    return {atom: factor for atom, factor in read.items() if factor != 1}


def _is_factor(space: AxisSpace, var: Var, atom: Var) -> bool:
    return resized(space, var, {atom: Fraction(2)}) == 2 * space.size(var)


def disagreements(found: Identities, known: Program) -> tuple[list[str], int]:
    """Axes whose base size, as the classes give it, is not the one recorded; and how many are."""
    growth = Growth(found.space, factors(found, known))
    wrong: list[str] = []
    count = 0
    for run, trace in zip(found.runs, known.traces, strict=True):
        for node, axes in trace.axes.items():
            count += len(axes)
            if [a.base for a in axes] != [growth.axis(v).base for v in run.axes[node]]:
                wrong.append(node)
    return wrong, count


def growing(found: Identities, known: Program) -> Mapping[str, float]:
    """The same as a user says it: by the part of a parameter that names a class."""
    names = {atom: piece.name for atom, piece in best(found.space, pieces(found)).items()}
    return {names[atom]: float(factor) for atom, factor in factors(found, known).items()}


def planned_alone(
    model: nn.Module, inputs: Inputs, found: Identities, known: Program
) -> InstancePlan:
    """The plan of one instance: questions about its numbers are answered as two sizes show them."""
    grow = growing(found, known)
    try:
        program = program_of(model, inputs, found, grow, {})
    except MufxError as problem:
        answers = dict(answer(question, known) for question in problem.diagnostics)
        program = program_of(model, inputs, found, grow, answers)
    return planned(replace(program, optimizer=known.optimizer, rules=known.rules))


def answer(question: Diagnostic, known: Program) -> tuple[str, float]:
    """What is asked about, as the hint spells it, and target over base of it."""
    asked = re.search(r"--number (\S+)=fixed", question.hint)
    assert asked, question
    key = asked[1]
    if key in dict(known.target.model.named_buffers()):
        values = (c.value(key).flatten()[0].item() for c in (known.target, known.base))
        target, base = values
        return key, target / base
    ratios = {
        number.ratio
        for trace in known.traces
        for (node, _), number in trace.numbers.items()
        if trace.recording.origins[node].place == question.place
    }
    assert len(ratios) <= 1, question
    return key, ratios.pop() if ratios else 1.0
