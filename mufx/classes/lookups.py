"""Rows chosen by integer tensors, and values written to them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mufx.classes.axes import Var
from mufx.classes.table import Answer, Axes, AxisRules, Call, broadcast

LOOKUPS = AxisRules()


@LOOKUPS.rule("embedding")
def embedding(call: Call) -> Answer:
    """Rows of a table."""
    call.space.rows.append(call.axes(call["weight"])[0])
    return (*call.axes(call["indices"]), *call.axes(call["weight"])[1:])


@LOOKUPS.rule("_embedding_bag", "embedding_bag", "_embedding_bag_forward_only")
def embedding_bag(call: Call) -> Answer:
    """Sums of rows of a table."""
    call.space.rows.append(call.axes(call["weight"])[0])
    bags = call.fresh(call.result[0])
    rows = (bags[0], *call.axes(call["weight"])[1:])
    return [rows, *(None for _ in call.result[1:])]


@LOOKUPS.rule("index", "_unsafe_index")
def index(call: Call) -> Answer:
    """`x[i, :, j]`: the axes of the index tensors stand where the first of them stood."""
    axes = call.own
    return _indexed(call, axes, call["indices"])


def _indexed(call: Call, axes: Axes, indices: Sequence[torch.Tensor | None]) -> Axes:
    masks = [i for i in indices if i is not None and i.dtype in (torch.bool, torch.uint8)]
    if masks:
        return _masked(call, axes, masks)
    places = [d for d, i in enumerate(indices) if i is not None]
    rows = [call.axes(i) for i in indices if i is not None]
    chosen = broadcast(call, rows)
    rest = [v for d, v in enumerate(axes) if d not in places]
    together = places == list(range(places[0], places[-1] + 1))
    start = places[0] if together else 0
    return (*rest[:start], *chosen, *rest[start:])


def _masked(call: Call, axes: Axes, masks: Sequence[torch.Tensor]) -> Axes:
    """A mask takes as many axes as it has and leaves one of unknown length."""
    count = sum(m.dim() for m in masks)
    call.lost += axes[:count]
    return (call.space.new(int(call.result.shape[0])), *axes[count:])


@LOOKUPS.rule("index_put", "_index_put_impl", "_unsafe_index_put")
def index_put(call: Call) -> Answer:
    """`x[i, j] = values`."""
    axes, indices = call.own, call["indices"]
    if all(i is None or i.dtype not in (torch.bool, torch.uint8) for i in indices):
        broadcast(call, [_indexed(call, axes, indices), call.axes(call["values"])])
    return axes


@LOOKUPS.rule("index_select", "repeat_interleave")
def index_select(call: Call) -> Answer:
    """Entries along one axis."""
    if "self" not in call.arguments or call.arguments.get("index") is None:
        return call.fresh()
    axes, d = list(call.own), call.dim()
    axes[d] = call.axes(call["index"])[0]
    return tuple(axes)


@LOOKUPS.rule("gather", "take_along_dim")
def gather(call: Call) -> Answer:
    """Entries along one axis, place by place: the other axes are those of the operand."""
    axes, index = call.own, call.axes(call["index"])
    _same_places(call, axes, index, call.dim())
    return index


def _same_places(call: Call, axes: Axes, others: Axes, d: int) -> None:
    """Two tensors are walked together along all axes but one; a shorter one only in part."""
    for i, (x, y) in enumerate(zip(axes, others, strict=True)):
        if i != d and call.space.size(x) == call.space.size(y):
            call.space.unify(x, y)


_SCATTERED = "scatter scatter_add scatter_reduce".split()


@LOOKUPS.rule(*_SCATTERED)
def scatter(call: Call) -> Answer:
    """Values are written along one axis, place by place."""
    axes, index = call.own, call.axes(call["index"])
    if not axes:
        return axes
    _same_places(call, axes, index, call.dim())
    source = call.arguments.get("src")
    if isinstance(source, torch.Tensor) and source.shape == call["index"].shape:
        call.equal(index, call.axes(source))
    return axes


@LOOKUPS.rule("index_add", "index_copy", "index_reduce")
def index_add(call: Call) -> Answer:
    """Rows are written along one axis."""
    axes, d = call.own, call.dim()
    rows = list(call.axes(call["source"]))
    for i, (x, y) in enumerate(zip(axes, rows, strict=True)):
        if i != d:
            call.space.unify(x, y)
    call.space.unify(rows[d], call.axes(call["index"])[0])
    return axes


@LOOKUPS.rule("index_fill", "masked_scatter")
def overwrite(call: Call) -> Answer:
    """Some entries get another value."""
    return call.own


@LOOKUPS.rule("topk")
def topk(call: Call) -> Answer:
    """The k largest along one axis, and their places."""
    axes, d = list(call.own), call.dim()
    axes[d] = call.space.new(int(call.result[0].shape[d]))
    return [tuple(axes)] * 2


@LOOKUPS.rule("select_scatter")
def select_scatter(call: Call) -> Answer:
    """A tensor is written to one place of an axis."""
    axes, d = call.own, call.dim()
    call.equal(call.axes(call["src"]), (*axes[:d], *axes[d + 1 :]))
    return axes


@LOOKUPS.rule("masked_select")
def masked_select(call: Call) -> Answer:
    """The entries that a mask picks, in one row."""
    lost: Sequence[Var] = broadcast(call, [call.axes(x) for x in call.tensors])
    call.lost += lost
    return call.fresh()
