"""Types that a forward pass takes from a tensor: `x.to(y.dtype)`, `torch.finfo(x.dtype).min`.

A recording holds the type itself. The model is recorded again in bfloat16, and under autocast;
an argument that is not the same in all three is taken from a tensor whose type agrees with it in
all three, so that the emitted module runs in any precision that the model runs in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import fx

from mufx.align import TakenType, Trace
from mufx.diagnostics import Diagnostic, MufxError, note
from mufx.recording import Precision, Recording, moved
from mufx.sizes import Slot

Types = tuple[torch.dtype, ...]
"""The type of one thing in each of the recordings."""


def taken_types(trace: Trace, record: Callable[[Precision], Recording]) -> Trace:
    """The trace, with the arguments that follow a tensor's type.

    `record` runs the same model in another precision. Nothing is run where no argument is a type.
    """
    if not any(_is_typed(v) for node in trace.graph.nodes for _, v in _arguments(node)):
        return trace
    remarks: list[Diagnostic] = []
    others: list[Recording] = []
    for precision in (Precision.BFLOAT16, Precision.FLOAT64, Precision.AUTOCAST):
        if precision is Precision.FLOAT64 and others:
            continue  # it only stands in where bfloat16 is another program
        try:
            found = record(precision)
        except MufxError as problem:
            remarks.append(_fixed(precision, f"fails: {problem.diagnostics[0].message}"))
            continue
        if _rows(trace, [found]) is None:
            remarks.append(_fixed(precision, "runs other operations"))
        else:
            others.append(found)
    rows = _rows(trace, others)
    assert rows is not None
    types = {row[0].name: t for row in rows if (t := _types_of(row, trace, others)) is not None}
    taken: dict[tuple[str, Slot], TakenType] = {}
    for position, row in enumerate(rows):
        for slot, wanted, is_minimum in _followed(row):
            carrier = _carrier(position, rows, types, wanted, trace.recording)
            if carrier is None:
                remarks.append(_lost(trace, row[0]))
                continue
            taken[row[0].name, slot] = TakenType(carrier.name, is_minimum)
    recording = replace(trace.recording, diagnostics=(*trace.recording.diagnostics, *remarks))
    return replace(trace, recording=recording, taken_types=taken)


def with_taken_types(trace: Trace) -> Recording:
    """The recording, with a node `x.dtype` in the place of each type that is taken from a tensor.

    x.to(torch.float32)  ->  x.to(hidden_states.dtype)
    """
    recording = trace.recording
    if not trace.taken_types:
        return recording
    graph = fx.Graph()
    nodes: dict[str, fx.Node] = {}
    origins, values = dict(recording.origins), dict(recording.values)
    for node in recording.graph.nodes:
        nodes[node.name] = graph.node_copy(node, lambda n: nodes[n.name])
    for (name, slot), taken in trace.taken_types.items():
        user = nodes[name]
        with graph.inserting_before(user):
            made = _type_nodes(graph, nodes[taken.node], taken.is_minimum)
        for part in made:
            origins[part.name], values[part.name] = origins[name], None
        if isinstance(slot, int):
            user.update_arg(slot, made[-1])
        else:
            user.update_kwarg(slot, made[-1])
    return replace(
        recording,
        graph=graph,
        origins=origins,
        values=values,
        arguments={k: moved(v, nodes) for k, v in recording.arguments.items()},
        results={k: moved(v, nodes) for k, v in recording.results.items()},
    )


def _type_nodes(graph: fx.Graph, carrier: fx.Node, is_minimum: bool) -> list[fx.Node]:
    """`carrier.dtype`, or `torch.finfo(carrier.dtype).min`."""
    found = graph.call_function(getattr, (carrier, "dtype"))
    if not is_minimum:
        return [found]
    limits = graph.call_function(torch.finfo, (found,))
    return [found, limits, graph.call_function(getattr, (limits, "min"))]


# -- what follows, and what ---------------------------------------------------------------------


def _rows(trace: Trace, others: list[Recording]) -> list[tuple[fx.Node, ...]] | None:
    """The nodes side by side; `None` where the graphs are not the same."""
    graphs = [list(r.graph.nodes) for r in (trace.recording, *others)]
    if len({len(graph) for graph in graphs}) > 1:
        return None
    rows = list(zip(*graphs, strict=True))
    same = all((n.op, n.target) == (row[0].op, row[0].target) for row in rows for n in row)
    return rows if same else None


def _types_of(row: tuple[fx.Node, ...], trace: Trace, others: list[Recording]) -> Types | None:
    recordings = (trace.recording, *others)
    values = [r.values.get(n.name) for r, n in zip(recordings, row, strict=True)]
    types = tuple(v.dtype for v in values if v is not None)
    return types if len(types) == len(row) else None


def _arguments(node: fx.Node) -> Iterator[tuple[Slot, Any]]:
    yield from enumerate(node.args)
    yield from node.kwargs.items()


def _is_typed(value: object) -> bool:
    return isinstance(value, torch.dtype) or _type_of_minimum(value) is not None


def _type_of_minimum(value: object) -> torch.dtype | None:
    """The type whose smallest number this is."""
    return _MINIMA.get(value) if isinstance(value, float) else None


_MINIMA = {torch.finfo(d).min: d for d in (torch.float32, torch.bfloat16, torch.float16)}


def _followed(row: tuple[fx.Node, ...]) -> Iterator[tuple[Slot, Types, bool]]:
    """The arguments that are not the same type, or the minimum of it, in all recordings."""
    for slot, value in _arguments(row[0]):
        if not _is_typed(value):
            continue
        values = [dict(_arguments(node)).get(slot) for node in row]
        is_minimum = isinstance(value, float)
        types = [_type_of_minimum(v) if is_minimum else v for v in values]
        if len(set(types)) > 1 and all(isinstance(t, torch.dtype) for t in types):
            yield slot, tuple(t for t in types if t is not None), is_minimum


def _carrier(
    position: int,
    rows: list[tuple[fx.Node, ...]],
    types: Mapping[str, Types],
    wanted: Types,
    recording: Recording,
) -> fx.Node | None:
    """A tensor with these types: what the module was called with, else the nearest before.

    Within the module call first, so that no type needs to be passed in.
    """
    node = rows[position][0]
    call = recording.origins[node.name].call
    before = [row[0] for row in rows[:position]]
    passed = recording.arguments.get(call.key, {}) if call is not None else {}
    assert isinstance(passed, dict)
    given = [v for v in passed.values() if isinstance(v, fx.Node)]
    inside = [n for n in reversed(before) if n.op != "get_attr" and _call_of(recording, n) == call]
    parameters = [n for n in before if n.op == "get_attr"]
    for candidate in (*given, *inside, *parameters, *reversed(before)):
        if types.get(candidate.name) == wanted:
            return candidate
    return None


def _call_of(recording: Recording, node: fx.Node) -> object:
    return recording.origins[node.name].call if node.op.startswith("call_") else None


def _fixed(precision: Precision, why: str) -> Diagnostic:
    where = "under autocast" if precision is Precision.AUTOCAST else f"in {precision.value}"
    return note(
        "MUF111",
        f"{where} the model {why}; the emitted forward pass is the one that was recorded",
        hint="train the emitted module in another type, or compare a step with the original's",
    )


def _lost(trace: Trace, node: fx.Node) -> Diagnostic:
    return note(
        "MUF111",
        "a type follows the model's precision, and no tensor has it: it stays as recorded",
        hint="take the type from a tensor that comes into the module: x.to(y.dtype)",
        place=trace.recording.origins[node.name].place,
    )
