"""Sums, means and norms over axes, and normalisations."""

from __future__ import annotations

import math
from dataclasses import replace

from torch import fx

from mufx.magnitudes import Magnitude, Several, Value, Weight, powered
from mufx.rules.elementwise import nonlinear
from mufx.rules.table import Flow, RuleTable, argument, dims, operation
from mufx.rules.views import keep, together
from mufx.rules.weight_norms import averaged, directed, entries, longer, standardized
from mufx.sizes import Axis, Slot, same

REDUCTIONS = RuleTable()


def growth(axes: tuple[Axis, ...], chosen: tuple[int, ...]) -> float:
    """The width multiplier of the chosen axes together."""
    return math.prod(axes[d].m for d in chosen if axes[d].grows)


def _chosen(flow: Flow, node: fx.Node, position: int = 1) -> tuple[Axis, ...]:
    """The axes that are reduced."""
    axes = flow.axes_of(0)
    dim = argument(node, position, "dim")[1]
    if isinstance(dim, float):
        dim = None
    return tuple(axes[d] for d in dims(dim, len(axes)))


@REDUCTIONS.rule("amax", "amin", "aminmax", "median", "nanmedian")
def middle(flow: Flow, node: fx.Node) -> Value:
    """The size of one term."""
    return flow.magnitude(0)


@REDUCTIONS.rule("mean", "nanmean")
def mean(flow: Flow, node: fx.Node) -> Value:
    """The size of one term."""
    size = averaged(flow.value(0), _chosen(flow, node))
    if size is not None:
        return size
    _note_products(flow, node)
    return flow.magnitude(0)


@REDUCTIONS.rule("max", "min")
def extremum(flow: Flow, node: fx.Node) -> Value:
    """The size of one term; with a dimension also its place."""
    if len(node.args) > 1 and isinstance(node.args[1], fx.Node):
        return together(flow, [flow.magnitude(0), flow.magnitude(1)])
    value = flow.magnitude(0)
    dim = argument(node, 1, "dim")[1]
    if dim is None:
        return value
    axes = flow.axes_of(0)
    grows = any(axes[d].grows for d in dims(dim, len(axes)))
    return Several((value.chosen(node.name) if grows else value, Magnitude()))


@REDUCTIONS.rule("sum", "nansum")
def sum_(flow: Flow, node: fx.Node) -> Value:
    """After training the terms add up: the width multiplier of the axes."""
    axes = _chosen(flow, node)
    size = averaged(flow.value(0), axes)
    if size is not None:
        return longer(size, entries(axes))
    _note_products(flow, node)
    return flow.moved(flow.magnitude(0), entries(axes))


def _note_products(flow: Flow, node: fx.Node) -> None:
    """The sum of the products of two tensors is a contraction that is spelled out."""
    terms = node.all_input_nodes[0]
    if operation(terms) != "mul" or len(terms.all_input_nodes) != 2:
        return
    rank, dim = len(flow.axes(terms)), argument(node, 1, "dim")[1]
    labels = [str(i) for i in range(rank)]
    operands = [(n, labels[rank - len(flow.axes(n)) :]) for n in terms.all_input_nodes]
    flow.summed(operands, [labels[i] for i in range(rank) if i not in dims(dim, rank)])


@REDUCTIONS.rule("norm", "vector_norm", "linalg_norm", "linalg_vector_norm")
def norm(flow: Flow, node: fx.Node) -> Value:
    """The root of the sum of squares, or of another power."""
    axes, value = _chosen(flow, node, 2), flow.value(0)
    p = argument(node, 1, "p" if operation(node) == "norm" else "ord")[1]
    size = averaged(value, axes) if _is_euclidean(p) else None
    if size is not None:
        return longer(size, math.sqrt(entries(axes)))
    return flow.moved(flow.magnitude(0), _length(entries(axes), p))


def _is_euclidean(p: object) -> bool:
    return p in (None, 2, "fro")


def _length(m: float, p: object) -> float:
    """The length of a vector of m times as many entries; a name stands for a matrix's root."""
    power = float(p) if isinstance(p, int | float) else 2.0
    return m ** (1 / power) if power else m


@REDUCTIONS.rule("var")
def var(flow: Flow, node: fx.Node) -> Value:
    """A mean of squares."""
    size = averaged(flow.value(0), _chosen(flow, node), 2)
    return size or powered(flow.magnitude(0), 2)


@REDUCTIONS.rule("std")
def std(flow: Flow, node: fx.Node) -> Value:
    """The root of a mean of squares."""
    return averaged(flow.value(0), _chosen(flow, node)) or flow.magnitude(0)


@REDUCTIONS.rule("var_mean", "std_mean")
def var_mean(flow: Flow, node: fx.Node) -> Value:
    """The variance (or its root) and the mean."""
    power = 2 if "var" in str(getattr(node.target, "__name__", node.target)) else 1
    axes = _chosen(flow, node)
    spread, mean = (averaged(flow.value(0), axes, degree) for degree in (power, 1))
    if spread is not None and mean is not None:
        return Several((spread, mean))
    value = flow.magnitude(0)
    return Several((powered(value, power), value))


_RUNNING = "a running sum over"


@REDUCTIONS.rule("cumsum")
def cumsum(flow: Flow, node: fx.Node) -> Value:
    """Running sums over an axis that does not grow."""
    _refuse_order(flow, _RUNNING, argument(node, 1, "dim")[1])
    return flow.magnitude(0)


@REDUCTIONS.rule("cumprod", "logcumsumexp")
def cumprod(flow: Flow, node: fx.Node) -> Value:
    """Running products, or sums of exponentials, over an axis that does not grow."""
    _refuse_order(flow, _RUNNING, argument(node, 1, "dim")[1])
    return nonlinear(flow, node)


@REDUCTIONS.rule("sort", "msort", "mode", "cummax", "cummin")
def ordered(flow: Flow, node: fx.Node) -> Value:
    """Values of the operand in an order along an axis that does not grow, and their places."""
    default = 0 if operation(node) == "msort" else -1
    dim = argument(node, 1, "dim")[1]
    _refuse_order(flow, "an order along", default if dim is None else dim)
    value = flow.magnitude(0)
    return value if operation(node) == "msort" else Several((value, Magnitude()))


def _refuse_order(flow: Flow, what: str, dim: object) -> None:
    """Features come in no order, so what depends on one has no limit at large width."""
    axes = flow.axes_of(0)
    if any(axes[d].grows for d in dims(dim, len(axes))):
        flow.refuse(
            f"{what} an axis that grows with width has no limit at large width",
            "do it along an axis of fixed size",
        )


_LAST = "fft_fft fft_ifft fft_rfft fft_irfft fft_hfft fft_ihfft".split()
_LAST_TWO = "fft_fft2 fft_ifft2 fft_rfft2 fft_irfft2".split()
_ALL = "fft_fftn fft_ifftn fft_rfftn fft_irfftn".split()


@REDUCTIONS.rule(*_LAST, *_LAST_TWO, *_ALL)
def fourier(flow: Flow, node: fx.Node) -> Value:
    """Sums with fixed phases over axes that do not grow."""
    name, dim = operation(node), argument(node, 2, "dim")[1]
    if dim is None and name not in _ALL:
        dim = -1 if name in _LAST else (-2, -1)
    _refuse_order(flow, "a Fourier transform over", dim)
    return keep(flow, node)


@REDUCTIONS.rule("log_softmax")
def log_softmax(flow: Flow, node: fx.Node) -> Value:
    """Needs a size of 1, and keeps it up to the logarithm of how many there are."""
    return nonlinear(flow, node)


@REDUCTIONS.rule("softmax", "softmin")
def softmax(flow: Flow, node: fx.Node) -> Value:
    """Needs a size of 1; over an axis that grows each weight shrinks with its width."""
    return _shares(flow, argument(node, 1, "dim")[1])


@REDUCTIONS.rule("gumbel_softmax")
def gumbel_softmax(flow: Flow, node: fx.Node) -> Value:
    """The same over the last axis, if no other is named; the noise lets a few have most of it."""
    dim = argument(node, 4, "dim")[1]
    shares = _shares(flow, -1 if dim is None else dim)
    return replace(shares, sparse=shares.simplex)


def _shares(flow: Flow, dim: object) -> Magnitude:
    axes = flow.axes_of(0)
    chosen = dims(dim, len(axes))
    m = growth(axes, chosen)
    if isinstance(flow.value(0), Weight):
        flow.magnitude(0)
        return Magnitude(1 / m)
    flow.need(flow.magnitude(0), 0)
    grows = any(axes[d].grows for d in chosen)
    return replace(flow.moved(Magnitude(), 1 / m), simplex=grows)


@REDUCTIONS.rule("one_hot")
def one_hot(flow: Flow, node: fx.Node) -> Value:
    """One entry of a last axis: of ever more where it grows."""
    last = flow.axes(node)[-1]
    chosen = flow.moved(Magnitude(), 1 / last.m)
    return replace(chosen, simplex=True, sparse=True) if last.grows else chosen


def _affine(flow: Flow, gain: Slot, bias: Slot | None = None) -> Value:
    """What a normalised value becomes: times the gain, plus the bias, where there are any."""
    slots = [s for s in (gain, bias) if s is not None and flow.has(s)]
    return together(flow, [flow.magnitude(s) for s in slots]) if slots else Magnitude()


def _normalised(flow: Flow, axes: tuple[Axis, ...], gain: Slot, bias: Slot | None = None) -> Value:
    """A value over the root mean square along `axes`: of a weight, its direction is left."""
    weight = standardized(flow.value(0), axes)
    if weight is None or (bias is not None and flow.has(bias)):
        flow.magnitude(0)
        return _affine(flow, gain, bias)
    if not flow.has(gain):
        return weight
    times = flow.value(gain)
    names = times.names if isinstance(times, Weight) else frozenset[str]()
    assert isinstance(times, (Weight, Magnitude))
    ways = times.ways if not same(times.ratio, 1.0) else weight.ways
    return replace(weight, gains=names, ratio=weight.ratio * times.ratio, ways=ways)


@REDUCTIONS.rule("layer_norm", "rms_norm")
def layer_norm(flow: Flow, node: fx.Node) -> Value:
    """The result has a size of its own: 1, times the gain, plus the bias."""
    shape = argument(node, 1, "normalized_shape")[1]
    count = len(shape) if isinstance(shape, (tuple, list)) else 1
    bias = argument(node, 3, "bias")[0] if operation(node) == "layer_norm" else None
    return _normalised(flow, flow.axes_of(0)[-count:], argument(node, 2, "weight")[0], bias)


@REDUCTIONS.rule("group_norm")
def group_norm(flow: Flow, node: fx.Node) -> Value:
    """The same for groups of channels."""
    flow.magnitude(0)
    return _affine(flow, argument(node, 2, "weight")[0], argument(node, 3, "bias")[0])


@REDUCTIONS.rule("batch_norm", "instance_norm")
def batch_norm(flow: Flow, node: fx.Node) -> Value:
    """The result has a size of its own; the running statistics follow the operand."""
    axes, kept = flow.axes_of(0), (1,) if operation(node) == "batch_norm" else (0, 1)
    normed = tuple(axis for i, axis in enumerate(axes) if i not in kept)
    gain, bias = argument(node, 3, "weight")[0], argument(node, 4, "bias")[0]
    return _normalised(flow, normed, gain, bias)


@REDUCTIONS.rule("normalize")
def normalize(flow: Flow, node: fx.Node) -> Value:
    """Unit length over an axis of n entries makes each of them n**-1/2, or by another power."""
    axes, dim, p = flow.axes_of(0), argument(node, 2, "dim")[1], argument(node, 1, "p")[1]
    normed = tuple(axes[d] for d in dims(1 if dim is None else dim, len(axes)))
    weight = directed(flow.value(0), normed) if _is_euclidean(p) else None
    if weight is not None:
        return weight
    flow.magnitude(0)
    return flow.moved(Magnitude(), 1 / _length(entries(normed), p))


@REDUCTIONS.rule("cosine_similarity")
def cosine_similarity(flow: Flow, node: fx.Node) -> Value:
    """A number between -1 and 1 at every width."""
    flow.magnitude(0)
    flow.magnitude(1)
    return Magnitude()
