"""Operations that move values without changing their size: views, casts, copies, choices."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import fx

from mufx.magnitudes import Magnitude, Several, Value, Weight, joined_ways
from mufx.rules.table import Flow, RuleTable, argument, dims, operation
from mufx.sizes import Axis

VIEWS = RuleTable()

VIEWED = frozenset(
    """
    view reshape flatten unflatten squeeze unsqueeze transpose swapaxes swapdims movedim moveaxis
    permute t expand narrow select slice unbind split split_with_sizes chunk tensor_split getitem
    diagonal
    """.split()
)
"""They give another look at the same memory."""

JOINS = ("cat", "concat", "concatenate")
"""They put values side by side along one of their axes."""

_KEEP = """
    view reshape reshape_as flatten unflatten squeeze unsqueeze transpose swapaxes swapdims movedim
    moveaxis permute t adjoint contiguous clone detach data real imag view_as view_as_real
    view_as_complex expand expand_as repeat repeat_interleave tile broadcast_to narrow select slice
    diagonal diag diag_embed tril triu roll flip fliplr flipud rot90 unfold as_strided
    to type type_as float double half bfloat16 cuda cpu alias atleast_1d atleast_2d
    dropout dropout1d dropout2d dropout3d feature_dropout alpha_dropout feature_alpha_dropout
    pad constant_pad_nd pixel_shuffle pixel_unshuffle channel_shuffle
    interpolate upsample upsample_nearest upsample_bilinear
    avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
    fold max_unpool1d max_unpool2d max_unpool3d
    identity positive requires_grad resolve_conj conj
    view_as_complex_copy nan_to_num masked_select fft_fftshift fft_ifftshift
""".split()


@VIEWS.rule(*_KEEP)
def keep(flow: Flow, node: fx.Node) -> Value:
    """The result has the size of the first operand."""
    value = flow.value(_first(node))
    if isinstance(value, Weight) and value.factors:  # its axes would have to be followed
        return replace(value, factors=())
    return value


@VIEWS.rule("complex")
def complex_(flow: Flow, node: fx.Node) -> Value:
    """Real and imaginary parts of one size."""
    values = [flow.value(0), flow.value(argument(node, 1, "imag")[0])]
    weights = [v for v in values if isinstance(v, Weight)]
    if len(weights) == len(values):
        return Weight.bent(*weights)
    return together(flow, [flow.magnitude(0), flow.magnitude(argument(node, 1, "imag")[0])])


@VIEWS.rule("polar", "grid_sample")
def placed(flow: Flow, node: fx.Node) -> Value:
    """The size of the first operand, at angles or places which must not change with width."""
    slot = argument(node, 1, "angle" if operation(node) == "polar" else "grid")[0]
    flow.need(flow.magnitude(slot), slot)
    return flow.magnitude(_first(node))


_HOMOGENEOUS = """
    relu leaky_relu abs
    max_pool1d max_pool2d max_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d
    lp_pool1d lp_pool2d lp_pool3d
""".split()


@VIEWS.rule(*_HOMOGENEOUS)
def homogeneous(flow: Flow, node: fx.Node) -> Value:
    """The result has the size of the operand, and is not linear in it."""
    value = flow.value(_first(node))
    return Weight.bent(value) if isinstance(value, Weight) else value


_WITH_PLACES = """
    max_pool1d_with_indices max_pool2d_with_indices max_pool3d_with_indices
    adaptive_max_pool1d_with_indices adaptive_max_pool2d_with_indices
    adaptive_max_pool3d_with_indices
""".split()


@VIEWS.rule(*_WITH_PLACES)
def with_places(flow: Flow, node: fx.Node) -> Value:
    """The same, and where each value was."""
    return Several((homogeneous(flow, node), Magnitude()))


@VIEWS.rule("broadcast_tensors")
def broadcast(flow: Flow, node: fx.Node) -> Value:
    """Every operand keeps its size."""
    return Several(tuple(flow.item(operand) for operand in node.all_input_nodes))


def _first(node: fx.Node) -> Any:
    return 0 if node.args else "input"


@VIEWS.rule("split", "chunk", "unbind", "tensor_split", "split_with_sizes", "hsplit", "dsplit")
def split(flow: Flow, node: fx.Node) -> Value:
    """Every part has the size of the whole."""
    whole = flow.value(_first(node))
    return Several((whole,) * max(1, _parts(node)))


def _parts(node: fx.Node) -> int:
    return 1 + max((int(str(u.args[1])) for u in node.users if _is_item(u)), default=0)


def _is_item(node: fx.Node) -> bool:
    return node.op == "call_function" and getattr(node.target, "__name__", "") == "getitem"


@VIEWS.rule("getitem")
def getitem(flow: Flow, node: fx.Node) -> Value:
    """One of several results, a slice, or a lookup in a table by integer tensors."""
    source, index = flow.value(0), node.args[1]
    if isinstance(source, Several):
        assert isinstance(index, int)
        return source[index % len(source.items)]
    if isinstance(source, Weight) and _has_tensor(index):
        return flow.magnitude(0)
    return source


def _has_tensor(index: object) -> bool:
    if isinstance(index, (tuple, list)):
        return any(_has_tensor(i) for i in index)
    return isinstance(index, fx.Node)


@VIEWS.rule("index_select", "gather", "index")
def lookup(flow: Flow, node: fx.Node) -> Value:
    """Entries of the first operand, chosen by an integer tensor."""
    return _along(flow, node, argument(node, 1, "dim")[1])


@VIEWS.rule("take_along_dim", "take")
def taken(flow: Flow, node: fx.Node) -> Value:
    """The same with the integer tensor before the axis."""
    return _along(flow, node, argument(node, 2, "dim")[1])


def _along(flow: Flow, node: fx.Node, dim: object) -> Magnitude:
    """Some entries of the first operand along an axis, along all for `None`."""
    value, axes = flow.magnitude(_first(node)), flow.axes_of(_first(node))
    grows = isinstance(dim, int | None) and any(axes[d].grows for d in dims(dim, len(axes)))
    return value.chosen(node.name) if grows else value


@VIEWS.rule("topk", "kthvalue")
def choice(flow: Flow, node: fx.Node) -> Value:
    """The largest values of the operand, and their places; how many may not depend on width."""
    slot, _ = argument(node, 1, "k")
    if flow.ratio(slot) != 1:
        flow.refuse(
            "how many values are chosen grows with width",
            "keep their number fixed: where experts and how many of them a token has grow "
            "together, no parametrization is established",
        )
    dim = argument(node, 2, "dim")[1]
    return Several((_along(flow, node, -1 if dim is None else dim), Magnitude()))


@VIEWS.rule(*JOINS, "stack", "hstack", "vstack", "dstack", "block_diag")
def cat(flow: Flow, node: fx.Node) -> Value:
    """Parts side by side: they need one size, or each must keep its own."""
    parts = node.args if operation(node) == "block_diag" else argument(node, 0, "tensors")[1]
    values = [flow.item(p) for p in parts]
    weights = [v for v in values if isinstance(v, Weight)]
    if weights and len(weights) == len(values):
        return Weight.bent(*weights)
    return together(flow, [_as_magnitude(flow, p, v) for p, v in zip(parts, values, strict=True)])


def _as_magnitude(flow: Flow, part: object, value: Value) -> Magnitude:
    if isinstance(value, Magnitude):
        return value
    flow.inside(part, "elementwise")
    return Magnitude()


def together(flow: Flow, values: list[Magnitude]) -> Magnitude:
    """Values that must agree: equal ratios stay, others are each brought back to 1."""
    sized = [v for v in values if not v.neutral] or values
    if all(abs(v.ratio - sized[0].ratio) <= 1e-6 * sized[0].ratio for v in sized):
        ways = sized[0].ways if len(sized) == 1 else joined_ways(sized)
        return Magnitude(sized[0].ratio, ways, neutral=all(v.neutral for v in values))
    for value in sized:
        flow.need(value, 0)
    return Magnitude()


@VIEWS.rule("where")
def where(flow: Flow, node: fx.Node) -> Value:
    """One of two values; the condition has no size."""
    return together(flow, [flow.magnitude(1), flow.magnitude(2)])


_OVERWRITE = """
    masked_fill index_fill masked_scatter index_copy index_put select_scatter slice_scatter copy
    maximum minimum fmax fmin
""".split()


@VIEWS.rule(*_OVERWRITE)
def overwrite(flow: Flow, node: fx.Node) -> Value:
    """Some entries of the first operand are replaced by those of the last."""
    last = len(node.args) - 1
    return together(flow, [flow.magnitude(0), flow.magnitude(last if last else "value")])


@VIEWS.rule("scatter")
def scatter(flow: Flow, node: fx.Node) -> Value:
    """The same; a fixed number of entries among zeros that become more is ever fewer of them."""
    source, index = argument(node, 3, "src")[0], argument(node, 2, "index")[0]
    last = source if flow.has(source) or source == 3 else "value"
    kept, put = flow.magnitude(0), flow.magnitude(last)
    axes, dim = flow.axes_of(0), argument(node, 1, "dim")[1]
    (axis,) = dims(dim, len(axes))
    if kept.zero and axes[axis].grows and not flow.axes_of(index)[axis].grows:
        return replace(put, ratio=put.ratio / axes[axis].m, simplex=True, sparse=True)
    return together(flow, [kept, put])


@VIEWS.rule("setitem")
def setitem(flow: Flow, node: fx.Node) -> Value:
    """Entries are written in place, so later uses of the tensor do not pass through this node."""
    into, content = flow.value(0), flow.magnitude(2)
    if isinstance(into, Weight):
        _refuse_written(flow, node, content)
        return into
    flow.need(content, 2)
    return Magnitude()


def _refuse_written(flow: Flow, node: fx.Node, content: Magnitude) -> None:
    """A weight without some of its entries is one, where most of what grows is left of it."""
    if not content.zero and node.args[2] != 0:
        flow.refuse(
            "numbers are written over entries of a parameter, which then are none",
            "write zeros, and add the numbers in a step of its own",
        )
    elif not _leaves_what_grows(flow.axes_of(0), node.args[1]):
        flow.refuse(
            "zeros are written over entries of a parameter, and what they leave of an axis that "
            "grows may not grow",
            "multiply the parameter with a mask, or give it the size of what is left",
        )


def _leaves_what_grows(axes: tuple[Axis, ...], index: object) -> bool:
    """Whether more is left, by numbers and slices, of each axis that grows than base has of it."""
    parts = list(index) if isinstance(index, tuple) else [index]
    if Ellipsis in parts:
        at = parts.index(Ellipsis)
        parts[at : at + 1] = [slice(None)] * (len(axes) - len(parts) + 1)
    return all(map(_leaves, axes, parts))


def _leaves(axis: Axis, part: object) -> bool:
    if axis.m == 1 or part == slice(None):
        return True
    if isinstance(part, slice):
        return axis.target - len(range(*part.indices(axis.target))) > axis.base
    return isinstance(part, int)


@VIEWS.rule("index_add", "scatter_add", "scatter_reduce", "index_reduce")
def accumulate(flow: Flow, node: fx.Node) -> Value:
    """Entries are added to the first operand, ever more to each if only their number grows."""
    slot, _ = argument(node, 3, "source")
    slot = "src" if slot not in node.kwargs and slot != 3 else slot
    axes, reduction = flow.axes_of(0), argument(node, 4, "reduce")[1]
    (dim,) = dims(argument(node, 1, "dim")[1], len(axes))
    more = 1.0 if reduction not in (None, "sum") else flow.axes_of(slot)[dim].m / axes[dim].m
    kept, added = flow.magnitude(0), flow.magnitude(slot)
    if kept.neutral:
        return flow.moved(added, more)
    if more == 1:
        return together(flow, [kept, added])
    flow.need(added, slot, kept.ratio / more)
    return kept
