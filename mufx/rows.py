"""Where the rows of a weight go: which features each value holds, through views and elementwise.

A view moves features about without looking at them, so it is carried out on their numbers. Those
need no memory: a strided tensor on `meta` says by its offset and its strides which row of the
weight every entry is. Axes along which rows do not change, such as batch and sequence, have
stride 0. Only a view that has to copy, one that joins axes which lie apart, gives numbers that are
written down.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any, Final

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from mufx.align import Trace
from mufx.diagnostics import Place
from mufx.ratios import Use
from mufx.recording import Size
from mufx.rules import operation
from mufx.rules.elementwise import ELEMENTWISE
from mufx.rules.table import argument
from mufx.rules.views import JOINS, VIEWED
from mufx.sizes import Axis, same


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """The rows that one value holds: how many at every size, and where each stands at target.

    `read` is the size of what they are read in: what is joined with others first is one of all.
    """

    node: fx.Node
    place: Place
    size: Axis
    read: Axis
    layout: Tensor = field(repr=False)

    def rows(self) -> frozenset[int]:
        """The rows at target width."""
        return frozenset(_numbers(self.layout).flatten().tolist())


@dataclass(frozen=True)
class Flow:
    """What becomes of the rows of one weight behind one of its uses."""

    held: Mapping[fx.Node, Region] = field(repr=False)
    """Every value that holds some of them, each in its place."""
    ends: tuple[Region, ...]
    """Those that an operation takes which does more than to move or to map them."""


def runs(rows: frozenset[int]) -> tuple[tuple[int, int], ...]:
    """Rows as (start, stop), in order."""
    ordered = sorted(rows)
    breaks = [i for i, (a, b) in enumerate(pairwise(ordered), 1) if b != a + 1]
    bounds = [0, *breaks, len(ordered)] if ordered else []
    return tuple((ordered[i], ordered[j - 1] + 1) for i, j in pairwise(bounds))


class Rows:
    """Follows rows through one trace."""

    def __init__(self, trace: Trace) -> None:
        """Of one mode."""
        self.trace = trace
        self.nodes: dict[str, fx.Node] = {n.name: n for n in trace.graph.nodes}
        self.order = {name: i for i, name in enumerate(self.nodes)}
        self.activations = _activations(trace)

    def of(self, use: Use) -> Flow | None:
        """The flow behind one use of a weight; `None` where its rows cannot be told apart."""
        node = self.nodes.get(use.node)
        grown = [a for a in use.kept if a.grows]
        if node is None or operation(node) != use.operation or not grown:
            return None
        return self.behind(node, grown)

    def behind(self, node: fx.Node, rows: Sequence[Axis]) -> Flow | None:
        """The flow of the axes of a value that have these sizes, which number its rows."""
        axes = self.trace.axes.get(node.name, ())
        if any(axes.count(row) != rows.count(row) for row in rows):
            return None
        places = [_places(axes, row)[rows[:i].count(row)] for i, row in enumerate(rows)]
        return self.flow_from(node, numbered([a.target for a in axes], places))

    def flow_from(self, first: fx.Node, layout: Tensor) -> Flow:
        """The flow of the rows that a value holds."""
        layouts: dict[fx.Node, Any] = {first: layout}
        ends: dict[fx.Node, None] = {}
        waiting = [first]
        while waiting:
            node = waiting.pop()
            for following, made in self.followed(node, layouts[node]):
                if made is None:
                    ends[node] = None
                elif following not in layouts:
                    layouts[following] = made
                    waiting.append(following)
        order = sorted(layouts, key=lambda n: self.order[n.name])
        held = {n: self._region(n, layouts[n]) for n in order if isinstance(layouts[n], Tensor)}
        return Flow(held, tuple(region for n, region in held.items() if n in ends))

    @cached_property
    def read(self) -> Mapping[fx.Node, tuple[Axis, ...]]:
        """The axes of every value as they are read."""
        return _read(self.trace)

    def joins_unlike(self) -> bool:
        """Whether a value is read in a vector that grows unlike itself."""
        sizes = ((self.trace.axes.get(n.name, ()), read) for n, read in self.read.items())
        pairs = (pair for own, read in sizes for pair in zip(own, read, strict=True))
        return any(not same(own.m, read.m) for own, read in pairs)

    def _region(self, node: fx.Node, layout: Tensor) -> Region:
        pairs = zip(layout.shape, layout.stride(), strict=True)
        varying = [i for i, (n, s) in enumerate(pairs) if s and n > 1]
        own, read = self.trace.axes[node.name], self.read[node]
        return Region(
            node,
            self.trace.recording.origins[node.name].place,
            _product(own[i] for i in varying),
            _product(read[i] for i in varying),
            layout,
        )

    def followed(self, node: fx.Node, layout: Any) -> Iterator[tuple[fx.Node, Any]]:
        """What uses a value, and the layout there."""
        for user in node.users:
            yield user, self.passed(user, node, layout)

    def passed(self, node: fx.Node, operand: fx.Node, layout: Any) -> Any:
        """The layout of what an operation makes of its operand; `None` where it does more."""
        others = [n for n in node.all_input_nodes if n is not operand]
        if any(n in self.activations for n in others):
            return None
        return self.moved(node, operand, layout)

    def moved(self, node: fx.Node, operand: fx.Node, layout: Any) -> Any:
        """The same, whatever the other operands are."""
        name = operation(node)
        if name in VIEWED and node.all_input_nodes == [operand]:
            return _viewed(node, operand, layout)
        if name in _IN_PLACE_OF or self._is_depthwise(node, operand):
            return self._mapped(node, layout)
        return None

    def _mapped(self, node: fx.Node, layout: Any) -> Tensor | None:
        """The result of an operation that keeps every feature in its place."""
        axes = self.trace.axes.get(node.name, ())
        if not isinstance(layout, Tensor) or len(axes) < layout.dim():
            return None
        missing = len(axes) - layout.dim()
        sizes = [a.target for a in axes]
        strides = [0] * missing
        for n, own, stride in zip(sizes[missing:], layout.shape, layout.stride(), strict=True):
            if stride and own > 1 and own != n:
                return None
            strides.append(stride if own > 1 else 0)
        whole: Tensor = layout.as_strided(sizes, strides)
        return whole

    def _is_depthwise(self, node: fx.Node, operand: fx.Node) -> bool:
        """A convolution that maps every channel by itself."""
        if operation(node) not in ("conv1d", "conv2d", "conv3d") or node.args[0] is not operand:
            return False
        weight = next((n for n in node.all_input_nodes if n is not operand), None)
        axes = self.trace.axes.get(weight.name, ()) if weight is not None else ()
        channels = self.trace.axes[operand.name][-len(axes) + 1]
        return len(axes) > 2 and axes[0] == channels and axes[1].target == 1


def _activations(trace: Trace) -> set[fx.Node]:
    """The values that depend on an input."""
    found: set[fx.Node] = set()
    for node in trace.graph.nodes:
        if node.op == "placeholder" or any(n in found for n in node.all_input_nodes):
            found.add(node)
    return found


def _product(axes: Iterable[Axis]) -> Axis:
    sizes = [(axis.base, axis.target, axis.along) for axis in axes]
    return Axis(*map(math.prod, zip((1, 1, 1), *sizes, strict=True)))


def _read(trace: Trace) -> dict[fx.Node, tuple[Axis, ...]]:
    """The axes of every value as they are read: those that are joined with others, the whole.

    The gradient of an entry is as much smaller as the vector is longer that it is read in. Of
    several readers the one counts whose vector grows least: its gradient is the largest.

        y = torch.cat([a, b], -1) @ w.T    with a: 64 -> 1024 and b: 64 -> 128
        ->  a and b are read as parts of 128 -> 1152
        turned, rest = q.split((8, 24), -1);  torch.cat([turn(turned), rest], -1) @ k.mT
        ->  turned and rest are read as parts of a head of 32
    """
    read: dict[fx.Node, tuple[Axis, ...]] = {}
    for node in reversed(trace.graph.nodes):
        axes = trace.axes.get(node.name, ())
        readers = [user for user in node.users if operation(user) not in VIEWED]
        found = [_as_read(axes, trace, user, read[user]) for user in readers]
        shortest = (min(sizes, key=lambda axis: axis.m) for sizes in zip(*found, strict=True))
        read[node] = tuple(shortest) or axes
    return read


def _as_read(
    axes: tuple[Axis, ...], trace: Trace, user: fx.Node, read: tuple[Axis, ...]
) -> tuple[Axis, ...]:
    """The axes of a value as one of its users gives them on."""
    name, made = operation(user), trace.axes.get(user.name, ())
    new = len(made) - len(axes)
    if new < 0 or name not in (*JOINS, *_IN_PLACE_OF) or (new and name in JOINS):
        return axes
    joined = int(argument(user, 1, "dim")[1] or 0) % len(axes) if name in JOINS else None
    pairs = enumerate(zip(axes, made[new:], read[new:], strict=True))
    return tuple(whole if own == m or i == joined else own for i, (own, m, whole) in pairs)


def _places(axes: Sequence[Axis], wanted: Axis) -> list[int]:
    return [i for i, axis in enumerate(axes) if axis == wanted]


def numbered(sizes: Sequence[int], along: Sequence[int]) -> Tensor:
    """Rows that run along some axes of a value of these sizes, the last of them fastest."""
    strides = [0] * len(sizes)
    stride = 1
    for i in reversed(along):
        strides[i] = stride
        stride *= sizes[i]
    return torch.empty(0, device="meta").as_strided(sizes, strides)


_IN_PLACE_OF = frozenset(ELEMENTWISE) | frozenset(
    """
    relu leaky_relu identity dropout dropout1d dropout2d dropout3d alpha_dropout contiguous clone
    detach to type type_as float double half bfloat16 pad layer_norm rms_norm group_norm batch_norm
    instance_norm normalize cumsum
    """.split()
)


def _numbers(layout: Tensor) -> Tensor:
    """The row of every entry, once along axes where it does not change."""
    varying = [n if s else 1 for n, s in zip(layout.shape, layout.stride(), strict=True)]
    if not layout.is_meta:
        return layout[tuple(slice(n) for n in varying)]
    found = torch.tensor(layout.storage_offset())
    for n, stride in zip(varying, layout.stride(), strict=True):
        found = found.unsqueeze(-1) + stride * torch.arange(n)
    return found


_LARGEST: Final = 2**24  # entries that are written down


def _written(layout: Any) -> Tensor | None:
    """The same rows as numbers without strides of their own; `None` for several parts."""
    if not isinstance(layout, Tensor) or layout.numel() > _LARGEST:
        return None
    return _numbers(layout).expand(layout.shape).contiguous().view(layout.shape)


def _without_copies(rows: Tensor) -> Tensor:
    """With stride 0 along axes where the rows do not change."""
    for axis in range(rows.dim()):
        first = rows.narrow(axis, 0, min(1, rows.shape[axis]))
        if bool((rows == first).all()):
            rows = first.expand(rows.shape)
    return rows


def _viewed(node: fx.Node, operand: fx.Node, layout: Any) -> Any:
    """The view itself, taken of the layout, or of its numbers where it has to copy."""
    made = _applied(node, operand, layout)
    rows = _written(layout) if made is None else None
    if rows is None:
        return made
    again = _applied(node, operand, rows)
    return pytree.tree_map_only(Tensor, _without_copies, again)


def _applied(node: fx.Node, operand: fx.Node, layout: Any) -> Any:
    args = _literal(node.args, operand, layout)
    if operation(node) == "getitem":
        args = (args[0], _without_lists(args[1]))
    kwargs = _literal(node.kwargs, operand, layout)
    try:
        if node.op == "call_method":
            made = getattr(args[0], str(node.target))(*args[1:], **kwargs)
        else:
            assert callable(node.target)
            made = node.target(*args, **kwargs)
    except RuntimeError:  # a view across strides that do not join
        return None
    return made if len({id(part._base) for part in (*_parts(made), *_parts(layout))}) == 1 else None


def _without_lists(index: Any) -> Any:
    """The same entries without a copy: a list of one index takes a part of size 1."""
    if isinstance(index, tuple):
        return tuple(_without_lists(i) for i in index)
    if isinstance(index, list) and len(index) == 1 and isinstance(index[0], int):
        return slice(index[0], index[0] + 1 or None)
    return index


def _parts(layout: Any) -> Sequence[Tensor]:
    return layout if isinstance(layout, (tuple, list)) else (layout,)


def _literal(value: Any, operand: fx.Node, layout: Any) -> Any:
    if value is operand:
        return layout
    if isinstance(value, Size):
        return value.hint
    if isinstance(value, slice):
        bounds = (value.start, value.stop, value.step)
        return slice(*(_literal(v, operand, layout) for v in bounds))
    if isinstance(value, (tuple, list)):
        return type(value)(_literal(v, operand, layout) for v in value)
    if isinstance(value, Mapping):
        return {k: _literal(v, operand, layout) for k, v in value.items()}
    return value
