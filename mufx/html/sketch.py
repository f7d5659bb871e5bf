"""The nodes around one node of a graph, as boxes and arrows.

A run of operations that take one value each is one box: `view, transpose`. So is a weight with what
is made of it alone, its parts say.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from torch import fx

from mufx.align import Trace
from mufx.rules import operation

UP: Final = 3
"""So many boxes before the node are shown, along any way."""
DOWN: Final = 2
ROOM: Final = 26
"""Letters of a name in a box."""
MOST: Final = 14
"""No more boxes than that, the nearest first."""


@dataclass(frozen=True, slots=True)
class Box:
    """One box: what it says, and whether it is a "weight", an "input", an "operation" or "new"."""

    name: str
    lines: tuple[str, ...]
    kind: str


@dataclass(frozen=True)
class Sketch:
    """Boxes in the order of the graph, and arrows between them by name."""

    boxes: tuple[Box, ...]
    arrows: tuple[tuple[str, str], ...]

    @property
    def words(self) -> str:
        """The same for who cannot see it."""
        said = {box.name: " ".join(box.lines) for box in self.boxes}
        return "; ".join(f"{said[a]} goes into {said[b]}" for a, b in self.arrows)


@dataclass(frozen=True)
class _Runs:
    """A graph whose runs are one box each; `skipped` nodes are not there.

    `runs` are the nodes of each box by its last one's name, and `box` is the other way.
    """

    runs: Mapping[str, tuple[fx.Node, ...]]
    box: Mapping[str, str]
    before: Mapping[str, tuple[str, ...]]
    after: Mapping[str, tuple[str, ...]]


def sketched(
    trace: Trace, center: str, number: str, *, new: bool, without: frozenset[str]
) -> Sketch:
    """What is around a node.

    Args:
        trace: With the graph.
        center: The node that is rewritten, or, where it is among `without`, was put in.
        number: What its box says last.
        new: Whether its box is shown as changed.
        without: Multiplications that are not there: their operand takes their place.
    """
    nodes = {node.name: node for node in trace.graph.nodes}
    seen = _real(nodes[center], without)
    runs = _runs(trace.graph, without, frozenset({seen.name}))
    shown = center not in without
    near = _near(runs, runs.box[seen.name], UP if shown else UP - 1)
    boxes = [
        _box(trace, run, number if shown and name == seen.name else "", new)
        for name, run in runs.runs.items()
        if name in near
    ]
    arrows = [(a, b) for b in near for a in runs.before[b] if a in near]
    return Sketch(tuple(boxes), tuple(sorted(arrows)))


def _real(node: fx.Node, without: frozenset[str]) -> fx.Node:
    """The node, or what a multiplication that is not there would have multiplied."""
    while node.name in without:
        node = node.all_input_nodes[0]
    return node


def _runs(graph: fx.Graph, without: frozenset[str], alone: frozenset[str]) -> _Runs:
    """The boxes of a graph; nodes in `alone` have one to themselves."""
    first: dict[str, fx.Node] = {}
    members: dict[str, list[fx.Node]] = {}
    for node in graph.nodes:
        if node.name in without or node.op == "output":
            continue
        inputs = _inputs(node, without)
        last = inputs[0] if len(inputs) == 1 else None
        joins = last is not None and _continues(node, last, first[last.name], alone)
        first[node.name] = first[last.name] if joins and last is not None else node
        members.setdefault(first[node.name].name, []).append(node)
    runs = {run[-1].name: tuple(run) for run in members.values()}
    box = {node.name: name for name, run in runs.items() for node in run}
    before = {n: tuple(_boxes_before(run[0], without, box)) for n, run in runs.items()}
    after: dict[str, list[str]] = {name: [] for name in runs}
    for name, sources in before.items():
        for source in sources:
            after[source].append(name)
    return _Runs(runs, box, before, {name: tuple(found) for name, found in after.items()})


def _inputs(node: fx.Node, without: frozenset[str]) -> list[fx.Node]:
    return list(dict.fromkeys(_real(n, without) for n in node.all_input_nodes))


def _continues(node: fx.Node, last: fx.Node, first: fx.Node, alone: frozenset[str]) -> bool:
    """Whether a node stands in the box of its only operand; what is made of a weight does."""
    if node.name in alone or last.name in alone:
        return False
    of_weight = first.op == "get_attr"
    return of_weight or (last.op.startswith("call_") and len(last.users) == 1)


def _boxes_before(node: fx.Node, without: frozenset[str], box: Mapping[str, str]) -> Iterator[str]:
    return iter(dict.fromkeys(box[n.name] for n in _inputs(node, without)))


def _near(runs: _Runs, center: str, up: int) -> list[str]:
    """The boxes around one, the nearest first, with the weights of each operation."""
    found = {center: None}
    for ways, far in ((runs.before, up), (runs.after, DOWN)):
        front: Iterable[str] = (center,)
        for _ in range(far):
            front = [n for name in front for n in ways[name] if n not in found]
            found.update(dict.fromkeys(front))
    kept = list(found)[:MOST]
    weights = [w for name in kept for w in runs.before[name] if runs.runs[w][0].op == "get_attr"]
    return list(dict.fromkeys((*kept, *weights)))


def _box(trace: Trace, run: tuple[fx.Node, ...], number: str, new: bool) -> Box:
    node = run[0] if run[0].op == "get_attr" else run[-1]
    lines = [_said(run), *_where(trace, node), *_shape(trace, node)]
    if number:
        lines.append(number)
    kinds = {"get_attr": "weight", "placeholder": "input"}
    kind = ("new" if new else "old") if number else kinds.get(node.op, "operation")
    return Box(run[-1].name, tuple(lines), kind)


def _said(run: tuple[fx.Node, ...]) -> str:
    if run[0].op in ("get_attr", "placeholder"):
        return _short(str(run[0].target))
    names = [operation(node) for node in run]
    return ", ".join(names if len(names) <= 3 else [names[0], "…", names[-1]])


def _where(trace: Trace, node: fx.Node) -> list[str]:
    origin = trace.recording.origins.get(node.name) if node.op.startswith("call_") else None
    path = origin.call.path if origin is not None and origin.call is not None else ""
    return [_short(path)] if path else []


def _short(name: str) -> str:
    """The end of a name, as many of its parts as a box has room for."""
    shown = name
    while len(shown) > ROOM and "." in shown:
        shown = shown.partition(".")[2]
    return shown if shown == name else f"…{shown}"


def _shape(trace: Trace, node: fx.Node) -> list[str]:
    value = trace.recording.values.get(node.name)
    return [" × ".join(map(str, value.sizes))] if value is not None and value.shape else []
