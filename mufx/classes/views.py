"""Views, joins and cuts: products, sums and permutations of axes."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mufx.classes.axes import AxisSpace, Kind, Var
from mufx.classes.table import Answer, Axes, AxisRules, Call, broadcast

VIEWS = AxisRules()


@VIEWS.rule("view", "_unsafe_view", "reshape", "_reshape_alias", "view_copy")
def view(call: Call) -> Answer:
    """Runs of axes become runs of axes with as many entries."""
    if call.arguments.get("size") is None and "shape" not in call.arguments:
        return call.own if len(call.own) == call.result.dim() else call.fresh()  # another dtype
    return regrouped(call.space, call.own, [int(n) for n in call.result.shape])


def regrouped(space: AxisSpace, axes: Sequence[Var], sizes: Sequence[int]) -> Axes:
    """The axes of a view: where as many entries have passed on both sides, a run ends.

    (batch, time, width) as (batch, time, heads, head_dim): width = heads * head_dim.
    """
    if 0 in sizes:
        return tuple(space.new(n) for n in sizes)
    made: list[Var] = []
    left = [v for v in axes if space.size(v) != 1][::-1]
    position = 0
    while position < len(sizes):
        if sizes[position] == 1:
            made.append(space.new(1))
            position += 1
            continue
        run, total = [left.pop()], sizes[position]
        taken, have = [position], space.size(run[0])
        while have != total:
            if have < total:
                run.append(left.pop())
                have *= space.size(run[-1])
            else:
                taken.append(taken[-1] + 1)
                total *= sizes[taken[-1]]
        parts = iter(_run(space, run, [sizes[i] for i in taken if sizes[i] != 1]))
        made += [next(parts) if sizes[i] != 1 else space.new(1) for i in taken]
        position = taken[-1] + 1
    return tuple(made)


def _run(space: AxisSpace, run: Sequence[Var], sizes: Sequence[int]) -> Sequence[Var]:
    return space.split(Kind.PRODUCT, space.whole(Kind.PRODUCT, run), sizes)


@VIEWS.rule("t")
def t(call: Call) -> Answer:
    """Both axes change places."""
    return call.own[::-1]


@VIEWS.rule("transpose", "swapaxes")
def transpose(call: Call) -> Answer:
    """Two axes change places."""
    axes, (a, b) = list(call.own), (call.dim("dim0"), call.dim("dim1"))
    if axes:
        axes[a], axes[b] = axes[b], axes[a]
    return tuple(axes)


@VIEWS.rule("permute")
def permute(call: Call) -> Answer:
    """Axes in another order."""
    return tuple(call.own[d] for d in call["dims"])


@VIEWS.rule("unsqueeze")
def unsqueeze(call: Call) -> Answer:
    """A new axis of size 1."""
    axes, d = call.own, call.dim(rank=len(call.own) + 1)
    return (*axes[:d], call.space.new(1), *axes[d:])


@VIEWS.rule("squeeze")
def squeeze(call: Call) -> Answer:
    """Axes of size 1 go."""
    axes = call.own
    dim = call.arguments.get("dim")
    chosen = range(len(axes)) if dim is None else [dim] if isinstance(dim, int) else dim
    gone = {d % max(len(axes), 1) for d in chosen}
    return tuple(v for i, v in enumerate(axes) if i not in gone or call.space.size(v) != 1)


@VIEWS.rule("expand", "broadcast_to")
def expand(call: Call) -> Answer:
    """An axis of size 1, or none, becomes a new one."""
    axes, sizes = call.own, [int(n) for n in call.result.shape]
    old = (*((None,) * (len(sizes) - len(axes))), *axes)
    return tuple(
        v if v is not None and call.space.size(v) == n else call.space.new(n)
        for v, n in zip(old, sizes, strict=True)
    )


@VIEWS.rule("repeat")
def repeat(call: Call) -> Answer:
    """Copies of an axis one after the other: copies * axis."""
    counts = [int(n) for n in call["repeats"]]
    missing = len(counts) - len(call.own)
    axes = (*(call.space.new(1) for _ in range(missing)), *call.own)
    pairs = zip(counts, axes, strict=True)
    return tuple(call.space.whole(Kind.PRODUCT, (call.space.new(n), v)) for n, v in pairs)


@VIEWS.rule("slice", "narrow")
def slice_(call: Call) -> Answer:
    """A segment of an axis, or every n-th entry."""
    axes, d = list(call.own), call.dim()
    size, length = call.space.size(axes[d]), int(call.result.shape[d])
    start = int(call.arguments.get("start") or 0)
    start = max(start + size if start < 0 else start, 0)
    step = int(call.arguments.get("step") or 1)
    axes[d] = segment(call, axes[d], min(start, size), length, step)
    return tuple(axes)


def segment(call: Call, var: Var, start: int, length: int, step: int = 1) -> Var:
    """`length` entries of an axis from `start`."""
    size = call.space.size(var)
    if step != 1:
        if size % step == 0 and length * step == size:
            return call.space.split(Kind.PRODUCT, var, (length, step))[0]
        call.lost.append(var)
        return call.space.new(length)
    sizes = [start, length, size - start - length]
    kept = [n for n in sizes if n]
    if length == 0:
        return call.space.new(0)
    parts = call.space.split(Kind.SUM, var, kept)
    return parts[1 if start else 0]


@VIEWS.rule("split", "split_with_sizes", "chunk", "unsafe_split", "unsafe_chunk")
def split(call: Call) -> Answer:
    """Segments of an axis."""
    axes, d = call.own, call.dim()
    sizes = [int(part.shape[d]) for part in call.result]
    parts = call.space.split(Kind.SUM, axes[d], sizes)
    return [(*axes[:d], part, *axes[d + 1 :]) for part in parts]


@VIEWS.rule("unbind")
def unbind(call: Call) -> Answer:
    """One axis goes; what is left is the same in every result."""
    axes, d = call.own, call.dim()
    return [(*axes[:d], *axes[d + 1 :])] * len(call.result)


@VIEWS.rule("select")
def select(call: Call) -> Answer:
    """One axis goes."""
    axes, d = call.own, call.dim()
    return (*axes[:d], *axes[d + 1 :])


@VIEWS.rule("cat", "concat")
def cat(call: Call) -> Answer:
    """One axis after the other; the rest is equal."""
    given: Sequence[torch.Tensor] = call["tensors"]
    rows = [call.axes(x) for x in given if x.dim() > 1 or x.numel()]
    if not rows:
        return call.fresh()
    d = call.dim(rank=len(rows[0]))
    rest = broadcast(call, [(*row[:d], *row[d + 1 :]) for row in rows])
    whole = call.space.whole(Kind.SUM, [row[d] for row in rows])
    return (*rest[:d], whole, *rest[d:])


@VIEWS.rule("stack")
def stack(call: Call) -> Answer:
    """A new axis over equal ones."""
    rows = [call.axes(x) for x in call["tensors"]]
    same, d = broadcast(call, rows), call.dim(rank=len(rows[0]) + 1)
    return (*same[:d], call.space.new(len(rows)), *same[d:])


@VIEWS.rule("constant_pad_nd", "pad", "reflection_pad1d", "reflection_pad2d", "replication_pad2d")
def pad(call: Call) -> Answer:
    """New entries before and after those of an axis."""
    axes, amounts = list(call.own), [int(n) for n in call.arguments.get("pad") or call["padding"]]
    for back, (before, after) in enumerate(zip(amounts[::2], amounts[1::2], strict=True), 1):
        axes[-back] = _padded(call, axes[-back], before, after)
    return tuple(axes)


def _padded(call: Call, var: Var, before: int, after: int) -> Var:
    cut = max(-before, 0), max(-after, 0)
    var = segment(call, var, cut[0], call.space.size(var) - sum(cut))
    added = [call.space.new(max(n, 0)) for n in (before, after)]
    return call.space.whole(Kind.SUM, (added[0], var, added[1]))


@VIEWS.rule("diagonal")
def diagonal(call: Call) -> Answer:
    """Two axes are walked together."""
    axes, (a, b) = call.own, (call.dim("dim1"), call.dim("dim2"))
    rest = [v for i, v in enumerate(axes) if i not in (a, b)]
    length = int(call.result.shape[-1])
    if call["offset"] == 0 and call.space.size(axes[a]) == call.space.size(axes[b]):
        call.space.unify(axes[a], axes[b])
        return (*rest, axes[a])
    call.lost += [axes[a], axes[b]]
    return (*rest, call.space.new(length))


@VIEWS.rule("view_as_real")
def view_as_real(call: Call) -> Answer:
    """A last axis for the real and the imaginary part."""
    return (*call.own, call.space.new(2))


@VIEWS.rule("view_as_complex")
def view_as_complex(call: Call) -> Answer:
    """The last axis, real and imaginary part, goes."""
    return call.own[:-1]


@VIEWS.rule("as_strided")
def as_strided(call: Call) -> Answer:
    """Other strides of axes of size 1, as torch's pooling sets them; of more nothing is known."""
    found: torch.Tensor = call.result
    strides = [s for n, s in zip(found.shape, found.stride(), strict=True) if n > 1]
    sizes = [call.space.size(v) for v in call.own]
    if sizes == list(found.shape) and strides == sorted(strides, reverse=True):
        return call.own
    call.lost += call.own
    return call.fresh()


@VIEWS.rule("unfold")
def unfold(call: Call) -> Answer:
    """Windows of an axis."""
    axes, d = list(call.own), call.dim("dimension")
    call.lost.append(axes[d])
    shape = [int(n) for n in call.result.shape]
    axes[d] = call.space.new(shape[d])
    return (*axes, call.space.new(shape[-1]))
