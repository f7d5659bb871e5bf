"""The rewritten places of the forward pass, each with the graph before and after."""

from __future__ import annotations

from collections.abc import Sequence

from mufx.align import Trace
from mufx.html.document import Drawing, Entry
from mufx.html.layout import laid_out
from mufx.html.places import lines_at, shown
from mufx.html.sketch import sketched
from mufx.html.svg import drawn
from mufx.program import Change, Program

_INSERTED = "1"
"""What a multiplication that was put in multiplied by before."""


def corrections(program: Program) -> tuple[Entry, ...]:
    """One entry for each place; equal changes of several layers share it, and show the first."""
    alike: dict[tuple[str, ...], list[Change]] = {}
    for change in program.changes:
        key = (shown(change.place), change.before, change.after, change.because)
        alike.setdefault(key, []).append(change)
    return tuple(_entry(program, changes) for changes in alike.values())


def _entry(program: Program, changes: Sequence[Change]) -> Entry:
    first = changes[0]
    modules = dict.fromkeys(c.place.module for c in changes if c.place.module)
    inserted = first.before == _INSERTED
    facts = [
        ("before", "no multiplication" if inserted else first.before),
        ("after", f"× {first.after}" if inserted else first.after),
        ("because", first.because),
        ("in", ", ".join(modules)),
    ]
    return Entry(
        shown(first.place),
        tuple((name, text) for name, text in facts if text),
        lines_at(first.place),
        _drawings(program, first),
    )


def _drawings(program: Program, change: Change) -> tuple[Drawing, ...]:
    """The graph that holds the node, before and after."""
    trace = next(t for t in program.traces if _holds(t, change.node))
    put_in = frozenset(
        c.node for c in program.changes if c.before == _INSERTED and _holds(trace, c.node)
    )
    sign = "× " if change.node in put_in else ""
    before = sketched(trace, change.node, change.before, new=False, without=put_in)
    after = sketched(trace, change.node, sign + change.after, new=True, without=frozenset())
    return tuple(
        Drawing(title, drawn(laid_out(sketch)), sketch.words)
        for title, sketch in (("before", before), ("after", after))
    )


def _holds(trace: Trace, name: str) -> bool:
    return any(node.name == name for node in trace.graph.nodes)
