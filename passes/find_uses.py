"""How every parameter is consumed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace

from mufx.diagnostics import note
from mufx.program import Program
from mufx.ratios import Use, Walk
from mufx.rescaling import Rescaling


def find_uses(program: Program) -> Program:
    """Finds every use of every parameter, in training and in evaluation.

    A use is an operation that meets the parameter with an activation, also through views, casts,
    transposes and slices. The op rules say which of its axes are contracted; which of them grow
    was seen by recording the model at two sizes.

    Before: the traces. After: `uses` holds at least one use of every parameter that either mode
    consumes.

        F.linear(x, w.weight)  with w.weight (out: 64 -> 256, in: 64 -> 256)
        ->  contraction, contracts m_in = 4, keeps m_out = 4

    Codes: `MUF201` and `MUF202` for operations without a rule, `MUF205` for a parameter without
    a use.
    """
    uses: dict[str, dict[str, Use]] = defaultdict(dict)
    rescaled: set[tuple[str, str]] = set()
    for trace in program.traces:
        walk = Walk(trace, program.constants(trace), program.rules)
        walk.run()
        program = program.report(*walk.diagnostics)
        for use in walk.uses.values():
            uses[use.parameter].setdefault(use.node, use)
        rescaled.update(_rescaled(walk))
    unused = [
        note("MUF205", f"no operation uses {name}: it stays as it is")
        for name in program.parameters()
        if name not in uses
    ]
    found = {name: tuple(by_node.values()) for name, by_node in uses.items()}
    return _marked(replace(program, uses=found), rescaled).report(*unused)


def _rescaled(walk: Walk) -> Iterator[tuple[str, str]]:
    """Readouts, by parameter and node, whose result only a norm reads."""
    rescaling = Rescaling(walk)
    nodes = {node.name: node for node in walk.trace.graph.nodes}
    for use in walk.uses.values():
        if use.contracts and not use.keeps and rescaling.is_lost(nodes[use.node]):
            yield use.parameter, use.node


def _marked(program: Program, rescaled: set[tuple[str, str]]) -> Program:
    """The Program that knows them, in its traces too: later walks note the uses again."""
    if not rescaled:
        return program
    train, evaluate = (replace(t, rescaled=frozenset(rescaled)) for t in program.traces)
    uses = {
        name: tuple(replace(u, rescaled=(name, u.node) in rescaled) for u in found)
        for name, found in program.uses.items()
    }
    return replace(program, train=train, evaluate=evaluate, uses=uses)
