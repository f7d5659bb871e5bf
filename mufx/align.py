"""Lays the recordings of one model at several sizes side by side.

What differs between them is the width dependence: an axis that grows, a number such as
`1/sqrt(d)`. No operation needs a rule for that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import fx

from mufx.diagnostics import MufxError, error
from mufx.recording import InputDevice, Recording, Size
from mufx.sizes import Axis, Number, Slot


@dataclass(frozen=True, slots=True)
class TakenType:
    """An argument that follows the type of the value of `node`."""

    node: str
    is_minimum: bool
    """The argument is the smallest number of that type, not the type itself."""


@dataclass(frozen=True)
class Trace:
    """One mode of a model: the graph at target width, and what is known from the other sizes.

    `recording.graph` is the graph that the passes rewrite; all facts are keyed by node name.
    """

    training: bool
    recording: Recording
    base: Recording
    axes: Mapping[str, tuple[Axis, ...]]
    numbers: Mapping[tuple[str, Slot], Number]
    """The numbers among a node's arguments that are not the same at every size."""
    base_nodes: Mapping[str, fx.Node] = field(repr=False, default_factory=dict)
    taken_types: Mapping[tuple[str, Slot], TakenType] = field(default_factory=dict)
    """The arguments that follow the type of a tensor, where the model runs in several."""

    @property
    def graph(self) -> fx.Graph:
        """The graph at target width."""
        return self.recording.graph


def align(base: Recording, target: Recording, along: Recording, training: bool) -> Trace:
    """The trace of recordings at base, target and a third size.

    Raises:
        MufxError: `MUF106`, at the first node that is not the same operation on the same inputs.
    """
    sizes: dict[str, list[_Sizes]] = {}
    numbers: dict[tuple[str, Slot], Number] = {}
    base_nodes: dict[str, fx.Node] = {}
    others: dict[fx.Node, tuple[fx.Node, fx.Node]] = {}
    for b, t, a in _rows(base, target, along):
        others[t] = (b, a)
        base_nodes[t.name] = b
        for slot in (*range(len(t.args)), *t.kwargs):
            found = _compare(_argument(t, slot), _argument(b, slot), _argument(a, slot), others)
            if found is False:
                raise _differs(target, t, b)
            if isinstance(found, Number):
                numbers[t.name, slot] = found
        values = (base.values.get(b.name), target.values.get(t.name), along.values.get(a.name))
        known = [v.sizes for v in values if v is not None]
        if len(known) == 3:
            sizes[t.name] = list(zip(*known, strict=True))
    return Trace(training, target, base, _axes(sizes), numbers, base_nodes)


_Sizes = tuple[int, ...]


def _axes(sizes: Mapping[str, list[_Sizes]]) -> dict[str, tuple[Axis, ...]]:
    """By node: its axes. What a floor keeps at target as at base, `max(8, d // 8)`, stays fixed.

    Where base and target are the same, it is the third size that says what would grow.
    """
    widened = any(base != target for rows in sizes.values() for base, target, _ in rows)

    def axis(base: int, target: int, along: int) -> Axis:
        return Axis(base, target, target if widened and base == target else along)

    return {name: tuple(axis(*row) for row in rows) for name, rows in sizes.items()}


def _rows(
    base: Recording, target: Recording, along: Recording
) -> Iterator[tuple[fx.Node, fx.Node, fx.Node]]:
    graphs = [list(r.graph.nodes) for r in (base, target, along)]
    lengths = [len(g) for g in graphs]
    for b, t, a in zip(*graphs, strict=False):
        if len({_key(b), _key(t), _key(a)}) > 1:
            raise _differs(target, t, b if _key(b) != _key(t) else a, lengths)
        yield b, t, a
    assert len(set(lengths)) == 1, "graphs end with their output"


def _key(node: fx.Node) -> tuple[str, object]:
    return (node.op, node.target)


def _argument(node: fx.Node, slot: Slot) -> Any:
    if isinstance(slot, int):
        return node.args[slot] if slot < len(node.args) else None
    return node.kwargs.get(slot)


def _compare(
    target: Any, base: Any, along: Any, others: Mapping[fx.Node, tuple[fx.Node, fx.Node]]
) -> Number | bool:
    """`True` if the arguments agree, a `Number` if only their value differs, else `False`."""
    if isinstance(target, fx.Node):
        return others[target] == (base, along)
    if isinstance(target, Size):
        target = target.hint
    base = base.hint if isinstance(base, Size) else base
    along = along.hint if isinstance(along, Size) else along
    if _is_number(target) and _is_number(base) and _is_number(along):
        return True if target == base == along else Number(base, target, along)
    if isinstance(target, (tuple, list)):
        if not (type(target) is type(base) is type(along)) or not (
            len(target) == len(base) == len(along)
        ):
            return False
        rows = zip(target, base, along, strict=True)
        return all(_compare(t, b, a, others) is not False for t, b, a in rows)
    if isinstance(target, Mapping):
        keys = target.keys()
        return keys == base.keys() == along.keys() and all(
            _compare(target[k], base[k], along[k], others) is not False for k in keys
        )
    if isinstance(target, slice):
        parts = [(s.start, s.stop, s.step) for s in (target, base, along)]
        rows = zip(*parts, strict=True)
        return all(_compare(t, b, a, others) is not False for t, b, a in rows)
    if isinstance(target, InputDevice):
        return True
    return bool(target == base == along)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _differs(
    recording: Recording, node: fx.Node, other: fx.Node, lengths: list[int] | None = None
) -> MufxError:
    origin = recording.origins.get(node.name)
    many = lengths is not None and lengths[0] != lengths[1]
    sizes = f" ({lengths[0]} and {lengths[1]} operations)" if many and lengths else ""
    return MufxError(
        error(
            "MUF106",
            f"base and target record different graphs{sizes}: the first difference is "
            f"{_text(other)} against {_text(node)}",
            hint="change only widths between base and target; depth and structure must stay",
            place=origin.place if origin is not None else None,
        )
    )


def _text(node: fx.Node) -> str:
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "?")
    return f"{name}({', '.join(str(a) for a in node.args)})"
