"""Elementwise arithmetic and nonlinearities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from torch import fx

from mufx.magnitudes import Magnitude, Rank, Several, Value, Weight, multiplied, powered
from mufx.rules.table import Flow, RuleTable, argument, operation
from mufx.rules.views import together
from mufx.rules.weight_norms import centred, over_its_size, raised
from mufx.sizes import Slot

ELEMENTWISE = RuleTable()

_LARGE = 1e4
_SMALL = 1e-3


def _is_literal(value: object) -> bool:
    return not isinstance(value, fx.Node)


def scaled(flow: Flow, value: Value, slot: Slot, power: float, neutral: bool = False) -> Value:
    """`value` times the literal in `slot` to a power; the literal is a site."""
    if isinstance(value, Several) or (isinstance(value, Magnitude) and value.zero):
        return value
    literal = flow.number(slot)
    grows = not literal.is_one and Rank.GROWING in literal.known_ways()
    site = {s: d * power for s, d in next(iter(literal.known_ways().values()), {}).items()}
    ratio = value.ratio * literal.ratio**power
    if isinstance(value, Weight):
        ways = {Rank.GROWING: site} if grows and site else value.ways
        return replace(value, ratio=ratio, ways=ways)
    ways = dict(value.known_ways())
    if grows:
        ways[Rank.GROWING] = site
        ways.pop(Rank.AFTER, None)
    elif site and value.is_one:
        ways = {Rank.BEFORE: site}
    elif site:
        ways.setdefault(Rank.AFTER, site)
    return Magnitude(ratio, ways or None, neutral)


def _stands_for_infinity(node: fx.Node, slot: Slot) -> bool:
    literal = node.args[slot] if isinstance(slot, int) else node.kwargs.get(slot)
    return isinstance(literal, (int, float)) and abs(literal) >= _LARGE


@ELEMENTWISE.rule("mul")
def mul(flow: Flow, node: fx.Node) -> Value:
    """A product: ratios multiply. A literal is a place for a correction."""
    first: Slot = 0
    a, (second, b) = node.args[0], argument(node, 1, "other")
    if _is_literal(b):
        return scaled(flow, flow.value(first), second, 1, _stands_for_infinity(node, second))
    if _is_literal(a):
        return scaled(flow, flow.value(second), first, 1)
    return product(flow, first, second, 1)


@ELEMENTWISE.rule("div")
def div(flow: Flow, node: fx.Node) -> Value:
    """A quotient: ratios divide."""
    if node.kwargs.get("rounding_mode") is not None:
        return Magnitude()
    if _is_literal(node.args[1]):
        return scaled(flow, flow.value(0), 1, -1)
    if _is_literal(node.args[0]):
        return scaled(flow, powered(flow.magnitude(1), -1), 0, 1)
    return product(flow, 0, 1, -1)


def product(flow: Flow, first: Slot, second: Slot, power: float) -> Value:
    """The product of two tensors, or with `power` -1 their quotient."""
    a, b = flow.value(first), flow.value(second)
    if isinstance(a, Weight) and isinstance(b, Weight):
        normed = over_its_size(a, b, power) or (over_its_size(b, a, 1) if power == 1 else None)
        return normed or _weights(flow, a, b, first, second)
    if isinstance(a, Weight) and flow.is_constant(second):
        return replace(a, ratio=a.ratio * flow.magnitude(second).ratio ** power)
    if isinstance(b, Weight) and flow.is_constant(first) and power == 1:
        return replace(b, ratio=b.ratio * flow.magnitude(first).ratio)
    return multiplied(flow.magnitude(first), powered(flow.magnitude(second), power))


def _weights(flow: Flow, a: Weight, b: Weight, first: Slot, second: Slot) -> Value:
    """A weight times a gain of fewer growing axes; two full matrices have no rule."""
    if a.power is not None or b.power is not None or a.names & b.names:
        return Weight.bent(a, b)
    grown = [sum(x.grows for x in flow.axes_of(slot)) for slot in (first, second)]
    main, gain = (a, b) if grown[0] >= grown[1] else (b, a)
    return replace(
        main,
        gains=main.gains | gain.names | gain.gains,
        ratio=a.ratio * b.ratio,
        linear=main.linear and min(grown) < 2,
        factors=(),
    )


@ELEMENTWISE.rule("add", "sub", "rsub", "logaddexp")
def add(flow: Flow, node: fx.Node) -> Value:
    """A sum: equal ratios stay, unequal ones are each corrected; an eps or a mask adds nothing."""
    second: Slot = 1 if len(node.args) > 1 else "other"
    values = [flow.value(0), flow.value(second)]
    weights = [v for v in values if isinstance(v, Weight)]
    whole = centred(*values) if operation(node) == "sub" else None
    whole = whole or _with_eps(flow, node, values)
    if whole is not None:
        return whole
    literal_or_constant = any(
        _is_literal(argument(node, i, "other")[1]) or flow.is_constant(s)
        for i, s in ((0, 0), (1, second))
    )
    if weights and (len(weights) == 2 or literal_or_constant):
        return Weight.bent(*weights)
    terms = [flow.magnitude(0), flow.magnitude(second)]
    if any(_is_literal(a) and not t.is_one for a, t in zip(node.args, terms, strict=False)):
        flow.refuse(
            "a number that changes with width is added",
            "add a constant, or scale the number's term by a factor of its own",
        )
        return Magnitude()
    alpha = node.kwargs.get("alpha")
    if alpha is not None:
        term = scaled(flow, terms[1], "alpha", 1)
        assert isinstance(term, Magnitude)
        terms[1] = term
    return together(flow, terms)


def _with_eps(flow: Flow, node: fx.Node, values: Sequence[Value]) -> Weight | None:
    """The size of a weight, with a number beside it that only keeps a quotient finite."""
    operands = (node.args[0], argument(node, 1, "other")[1])
    sizes = [v for v in values if isinstance(v, Weight) and v.power is not None and v.power.axes]
    eps = any(_is_literal(o) and _is_small(o) for o in operands)
    if len(sizes) != 1 or not eps:
        return None
    term = scaled(flow, sizes[0], "alpha", 1) if node.kwargs.get("alpha") is not None else sizes[0]
    assert isinstance(term, Weight)
    return term


def _is_small(value: object) -> bool:
    return isinstance(value, int | float) and abs(value) < _SMALL


@ELEMENTWISE.rule("lerp")
def lerp(flow: Flow, node: fx.Node) -> Value:
    """`a + share * (b - a)`."""
    share = argument(node, 2, "weight")[0]
    ends: tuple[Slot, Slot] = (0, argument(node, 1, "end")[0])
    weights = [v for v in (flow.value(0), flow.value(ends[1])) if isinstance(v, Weight)]
    if len(weights) == len(ends) and not flow.has(share):
        return Weight.bent(*weights)
    if flow.has(share):
        flow.need(flow.magnitude(share), share)
    return together(flow, [flow.magnitude(end) for end in ends])


@ELEMENTWISE.rule("addcmul", "addcdiv")
def addcmul(flow: Flow, node: fx.Node) -> Value:
    """`a + value * b * c`."""
    power = 1 if "mul" in str(getattr(node.target, "__name__", node.target)) else -1
    term = multiplied(flow.magnitude(1), powered(flow.magnitude(2), power))
    return together(flow, [flow.magnitude(0), term])


@ELEMENTWISE.rule("pow")
def pow_(flow: Flow, node: fx.Node) -> Value:
    """A power: the ratio is raised to it."""
    exponent = argument(node, 1, "exponent")[1]
    if isinstance(exponent, (int, float)):
        return _raise(flow, 0, exponent)
    if _is_literal(node.args[0]):
        return nonlinear(flow, node)
    for slot in (0, 1):
        flow.need(flow.magnitude(slot), slot)
    return Magnitude()


@ELEMENTWISE.rule("sqrt", "rsqrt", "reciprocal", "square")
def root(flow: Flow, node: fx.Node) -> Value:
    """A fixed power."""
    name = str(getattr(node.target, "__name__", node.target)).rstrip("_")
    return _raise(flow, 0, {"sqrt": 0.5, "rsqrt": -0.5, "reciprocal": -1, "square": 2}[name])


def _raise(flow: Flow, slot: Slot, power: float) -> Value:
    value = flow.value(slot)
    if isinstance(value, Weight):
        return raised(value, power) or Weight.bent(value)
    assert isinstance(value, Magnitude)
    return powered(value, power)


@ELEMENTWISE.rule("neg")
def neg(flow: Flow, node: fx.Node) -> Value:
    """The sign changes, the size does not."""
    return flow.value(0)


_NONLINEAR = """
    gelu silu mish tanh sigmoid logsigmoid log_sigmoid softplus softsign elu selu celu hardtanh
    hardswish hardsigmoid relu6 glu exp expm1 exp2 log log1p log2 log10 sin cos tan atan atan2 sinh
    cosh asinh acosh atanh asin acos erf erfc erfinv clamp_max tanhshrink
    softshrink hardshrink threshold _threshold rpow logit lgamma digamma floor ceil round trunc frac
    fmod remainder sign sgn heaviside angle hypot logsumexp prod rrelu
    special_i0 local_response_norm
""".split()


@ELEMENTWISE.rule("clamp", "clamp_min", "clip")
def bounded(flow: Flow, node: fx.Node) -> Value:
    """The size of a weight that is kept from 0 is its size; else as any nonlinearity."""
    value, (least, most) = flow.value(0), (argument(node, i, n)[1] for i, n in _BOUNDS)
    is_size = isinstance(value, Weight) and value.power is not None
    return value if is_size and _is_small(least) and most is None else nonlinear(flow, node)


_BOUNDS = ((1, "min"), (2, "max"))


@ELEMENTWISE.rule(*_NONLINEAR)
def nonlinear(flow: Flow, node: fx.Node) -> Value:
    """Keeps a size of 1 and no other: the operands must not change their size with width."""
    slots = [slot for slot in (*range(len(node.args)), *node.kwargs) if flow.has(slot)]
    values = [flow.value(slot) for slot in slots if not flow.is_constant(slot)]
    weights = [value for value in values if isinstance(value, Weight)]
    if weights and len(weights) == len(values):
        return Weight.bent(*weights)
    for slot in slots:
        flow.need(flow.magnitude(slot), slot)
    return Magnitude()


@ELEMENTWISE.rule("prelu")
def prelu(flow: Flow, node: fx.Node) -> Value:
    """Homogeneous, with a learned slope."""
    flow.magnitude(argument(node, 1, "weight")[0])
    return flow.magnitude(0)


_LOSSES = """
    cross_entropy nll_loss mse_loss l1_loss smooth_l1_loss huber_loss binary_cross_entropy
    binary_cross_entropy_with_logits cosine_embedding_loss ctc_loss soft_margin_loss
    poisson_nll_loss gaussian_nll_loss hinge_embedding_loss margin_ranking_loss
    multi_margin_loss multilabel_margin_loss multilabel_soft_margin_loss
""".split()


@ELEMENTWISE.rule(*_LOSSES)
def loss(flow: Flow, node: fx.Node) -> Value:
    """Prediction and target must not change their size with width; a sum over them grows."""
    operands: tuple[Slot, ...] = (0, 1, 2, "target", "var")
    for slot in operands:
        if flow.has(slot):
            flow.need(flow.magnitude(slot), slot)
    return flow.moved(Magnitude(), _reduced(flow, node))


@ELEMENTWISE.rule("kl_div")
def divergence(flow: Flow, node: fx.Node) -> Value:
    """The size of the target, whose entries shrink where a softmax has ever more of them."""
    flow.need(flow.magnitude(0), 0)
    target = flow.magnitude(argument(node, 1, "target")[0])
    whole = replace(target, simplex=False, sparse=False)
    return flow.moved(whole, _reduced(flow, node))


def _reduced(flow: Flow, node: fx.Node) -> float:
    """How many times more terms a loss sums."""
    first = {"sum": 0, "batchmean": 1}.get(str(node.kwargs.get("reduction")))
    axes = flow.axes_of(0)[first:] if first is not None else ()
    return math.prod(axis.m for axis in axes if axis.grows)


@ELEMENTWISE.rule("pairwise_distance", "triplet_margin_loss")
def distance(flow: Flow, node: fx.Node) -> Value:
    """The length of a difference over the last axis."""
    name = operation(node)
    p = argument(node, 2 if name == "pairwise_distance" else 4, "p")[1]
    terms = flow.axes_of(0)[-1]
    length = terms.m ** (1 / (2.0 if p is None else p)) if terms.grows else 1.0
    operands = [flow.magnitude(slot) for slot in range(2 if name == "pairwise_distance" else 3)]
    if name == "pairwise_distance":
        return flow.moved(together(flow, operands), length)
    for slot, operand in enumerate(operands):  # the margin is no length: what is learned is
        flow.need(operand, slot, 1 / length)
    return Magnitude()


_SIZELESS = """
    eq ne lt le gt ge isnan isinf isfinite isclose logical argmax argmin argsort nonzero bincount
    searchsorted bucketize histc unique unique_consecutive long int bool short
    floor_divide floordiv rshift lshift isin any all count_nonzero allclose equal numel
    __lshift__ __rshift__ is_nonzero signbit mod
""".split()


@ELEMENTWISE.rule(*_SIZELESS)
def sizeless(flow: Flow, node: fx.Node) -> Value:
    """Truth values, places and counts have no size that scales."""
    return Magnitude()
