"""How every parameter is consumed."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

from mufx.diagnostics import note
from mufx.matrices import computed_matrices
from mufx.program import Program
from mufx.ratios import Use, Walk


def find_uses(program: Program) -> Program:
    """Finds every use of every parameter, in training and in evaluation.

    A use is an operation that meets the parameter with an activation, also through views, casts,
    transposes and slices. The op rules say which of its axes are contracted; which of them grow
    was seen by recording the model at two sizes.

    Before: the traces. After: `uses` holds at least one use of every parameter that either mode
    consumes.

        F.linear(x, w.weight)  with w.weight (out: 64 -> 256, in: 64 -> 256)
        ->  contraction, contracts m_in = 4, keeps m_out = 4

    Codes: `MUF201` and `MUF202` for operations without a rule and for matrices that a parameter
    makes entry by entry, `MUF205` for a parameter without
    a use.
    """
    uses: dict[str, dict[str, Use]] = defaultdict(dict)
    for trace in program.traces:
        walk = Walk(trace, program.constants(trace), program.rules)
        walk.run()
        program = program.report(*walk.diagnostics, *computed_matrices(walk))
        for use in walk.uses.values():
            uses[use.parameter].setdefault(use.node, use)
    unused = [
        note("MUF205", f"no operation uses {name}: it stays as it is")
        for name in program.parameters()
        if name not in uses
    ]
    found = {name: tuple(by_node.values()) for name, by_node in uses.items()}
    return replace(program, uses=found).report(*unused)
