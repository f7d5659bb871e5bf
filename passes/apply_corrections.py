"""Writes the corrections into the graphs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from mufx.align import Trace
from mufx.editing import Editor
from mufx.magnitudes import Site, SiteKind
from mufx.program import Change, Program
from mufx.sizes import Number, Slot, same


def apply_corrections(program: Program) -> Program:
    """Rewrites both modes' graphs: every factor of `corrections` goes to its site.

        scaled_dot_product_attention(q, k, v)   ->  (q, k, v, scale=sqrt(64)/256)
        mul(x, 16.0)                            ->  mul(x, 8.0)
        linear(x, w)                            ->  linear(mul(x, 0.25), w)

    A buffer is not rewritten: its value is scaled where it is filled.

    Before: `corrections`. After: the graphs carry them, `changes` names each changed node, and
    `buffers` the factors on buffers. A program without corrections is left as it is.
    """
    changes: list[Change] = []
    buffers = dict(program.buffers)
    traces: dict[bool, Trace] = {}
    for trace in program.traces:
        factors = program.corrections[trace.training]
        traces[trace.training] = _rewrite(trace, factors, changes, buffers)
    return replace(
        program,
        train=traces[True],
        evaluate=traces[False],
        changes=(*program.changes, *dict.fromkeys(changes)),
        buffers=buffers,
    )


def _rewrite(
    trace: Trace, factors: Mapping[Site, float], changes: list[Change], buffers: dict[str, float]
) -> Trace:
    if not factors:
        return trace
    editor = Editor(trace)
    for site, factor in factors.items():
        place = trace.recording.origins[site.node].place
        if site.kind is SiteKind.BUFFER:
            buffers[str(editor.node(site.node).target)] = factor
            continue
        if site.kind is SiteKind.NUMBER:
            assert site.slot is not None
            number = _number(trace, site.node, site.slot)
            new = _corrected(number, factor)
            editor.set_number(site.node, site.slot, new)
            before, after = _texts(number, new)
            changes.append(Change(site.node, place, before, after, _because(site)))
            continue
        if site.kind is SiteKind.RESULT:
            name = editor.multiply_result(site.node, factor)
        else:
            assert site.slot is not None
            name = editor.multiply_operand(site.node, site.slot, factor)
        changes.append(Change(name, place, "1", f"{factor:g}", _because(site)))
    return editor.done()


def _number(trace: Trace, name: str, slot: Slot) -> Number:
    """The literal in a slot; a scale that is not given is attention's default."""
    found = trace.numbers.get((name, slot))
    if found is not None:
        return found
    node = next(n for n in trace.graph.nodes if n.name == name)
    literal = node.args[slot] if isinstance(slot, int) else node.kwargs.get(slot)
    if isinstance(literal, (int, float)):
        return Number(literal, literal, literal)
    query = node.args[0]
    head = trace.axes[query.name][-1]
    return Number(head.base**-0.5, head.target**-0.5, head.along**-0.5)


def _corrected(number: Number, factor: float) -> Number:
    """The number times the factor; exactly the base value if that is what it comes to."""
    target = number.target * factor
    if same(target, number.base):
        target = number.base
    ratio = target / number.base if number.base else 1.0
    return Number(number.base, target, target * ratio)


def _texts(before: Number, after: Number) -> tuple[str, str]:
    """The numbers as a person would write them, where they are roots of sizes."""
    inverse = before.target < 1
    n, n_base = (_square(1 / v if inverse else v) for v in (before.target, before.base))
    if n is None or n_base is None or n == n_base:
        return f"{before.target:g}", f"{after.target:g}"
    spelled = {
        f"sqrt({n_base})": math.sqrt(n_base),
        f"1/sqrt({n_base})": 1 / math.sqrt(n_base),
        f"sqrt({n_base})/{n}": math.sqrt(n_base) / n,
        f"{n}/sqrt({n_base})": n / math.sqrt(n_base),
    }
    found = [text for text, value in spelled.items() if same(value, after.target)]
    return f"{'1/' * inverse}sqrt({n})", found[0] if found else f"{after.target:g}"


def _square(value: float) -> int | None:
    """n, if the value is sqrt(n)."""
    n = round(value * value) if 0 < value < 1e6 else 0
    return n if n > 1 and same(math.sqrt(n), value) else None


def _because(site: Site) -> str:
    if site.kind is SiteKind.NUMBER:
        return "keeps the size it has at base width"
    return "multiplier relative to base width"
