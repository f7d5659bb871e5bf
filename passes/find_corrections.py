"""The factors that the forward pass needs: attention scale, growing literals, multipliers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from mufx.align import Trace
from mufx.magnitudes import Site, SiteKind
from mufx.program import Program
from mufx.ratios import Correct
from mufx.sizes import same


def find_corrections(program: Program) -> Program:
    """Finds where the size of an activation changes with width, and what brings it back.

    The ratio target/base of every value's size after training is carried through the graph. It
    may leave 1 as long as everything that follows is linear in it; before a nonlinearity, a sum
    with a value of another ratio, a weight or a finite output it is corrected, once, at its
    origin.

        scores = q @ k.T / sqrt(d)     d: 64 -> 256, after training q.k grows like d
        ->  the literal 1/sqrt(256) becomes sqrt(64)/256
        x = emb(idx) * sqrt(d)         ->  sqrt(256) becomes sqrt(64) again
        normalize(x) * sqrt(d), sum(x) / d   ->  nothing: the ratio is 1 where it is used

    The multipliers of the plan are factors of the same kind: a weight whose activation has to
    come in 1/m as large.

    Before: `labels` and `plan`. After: `corrections` holds, for both modes, a factor for each
    site; nothing is rewritten yet.

    Codes: `MUF301`, `MUF302` where nothing can be scaled; `MUF107` for a number that follows no
    power of the width.
    """
    corrections: dict[bool, Mapping[Site, float]] = {}
    for trace in program.traces:
        walk = Correct(trace, program.constants(trace), program.rules, _multipliers(program))
        walk.run()
        corrections[trace.training] = {**walk.corrections, **_elementwise(program, trace)}
        program = program.report(*walk.diagnostics)
    return replace(program, corrections=corrections)


def _multipliers(program: Program) -> dict[tuple[str, str], float]:
    """What each contraction wants of its activation, by (node, parameter)."""
    return {
        (use.node, name): program.plan[name].multiplier * label.multipliers.get(use.node, 1.0)
        for name, label in program.labels.items()
        for use in program.uses.get(name, ())
        if use.kind == "contraction"
    }


def _elementwise(program: Program, trace: Trace) -> dict[Site, float]:
    """Multipliers of what nothing contracts: on the parameter, or on the rows looked up."""
    factors: dict[Site, float] = {}
    nodes = {n.name for n in trace.graph.nodes}
    for name, label in program.labels.items():
        for use in program.uses.get(name, ()):
            factor = program.plan[name].multiplier * label.multipliers.get(use.node, 1.0)
            if use.kind == "contraction" or same(factor, 1.0) or use.node not in nodes:
                continue
            if use.kind == "lookup":
                factors[Site(SiteKind.RESULT, use.node)] = factor
                continue
            assert use.slot is not None, "the plan gives it no multiplier"
            factors[Site(SiteKind.OPERAND, use.node, use.slot)] = factor
    return factors
