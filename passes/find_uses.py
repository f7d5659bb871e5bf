"""How every parameter is consumed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace

from mufx.diagnostics import Diagnostic, note, warning
from mufx.magnitudes import Magnitude
from mufx.program import Program
from mufx.ratios import Use, Walk
from mufx.rules import operation


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
    a use, `MUF206` for an axis of which only a part grows.
    """
    uses: dict[str, dict[str, Use]] = defaultdict(dict)
    for trace in program.traces:
        walk = Walk(trace, program.constants(trace), program.rules)
        walk.run()
        program = program.report(*walk.diagnostics, *_fixed_parts(walk))
        for use in walk.uses.values():
            uses[use.parameter].setdefault(use.node, use)
    unused = [
        note("MUF205", f"no operation uses {name}: it stays as it is")
        for name in program.parameters()
        if name not in uses
    ]
    found = {name: tuple(by_node.values()) for name, by_node in uses.items()}
    mixed = [d for name in found for d in _mixed_axes(name, found[name])]
    return replace(program, uses=found).report(*unused, *mixed)


def _fixed_parts(walk: Walk) -> Iterator[Diagnostic]:
    """A warning where a part of fixed size is taken of an activation's axis that grows.

    The rows of the weight that made this part are a readout's, and have the scales of the others.
    """
    trace = walk.trace
    for node in trace.graph.nodes:
        if operation(node) not in _PARTS or node in walk.constants:
            continue
        source = node.all_input_nodes[0]
        if source.name not in trace.axes and source.all_input_nodes:  # one of several results
            source = source.all_input_nodes[0]
        whole, part = trace.axes.get(source.name, ()), trace.axes.get(node.name, ())
        if len(whole) != len(part) or not isinstance(walk.values[node.name], Magnitude):
            continue
        for axis, taken in zip(whole, part, strict=True):
            if axis.grows and not taken.grows and taken.target:
                yield warning(
                    "MUF206",
                    f"{taken.target} of {axis.base}, at target of {axis.target}, features are "
                    "taken: what made them reads out, and has the scales of a hidden weight",
                    hint="make them with a weight of their own",
                    place=trace.recording.origins[node.name].place,
                )


_PARTS = frozenset({"getitem", "narrow", "slice"})


def _mixed_axes(name: str, uses: tuple[Use, ...]) -> Iterator[Diagnostic]:
    """A warning for every axis that grows only in part, once a parameter and axis."""
    axes = {axis: use for use in uses for axis in (*use.contracted, *use.kept)}
    for axis, use in axes.items():
        if not axis.is_power:
            yield warning(
                "MUF206",
                f"an axis of {name} is {axis.base}, {axis.target} and {axis.along} at base, target "
                "and further along: a part of it grows and another does not, and both get the "
                f"same scales, those of x {axis.m:.4g}",
                hint="use a weight of its own for each part",
                place=use.place,
            )
