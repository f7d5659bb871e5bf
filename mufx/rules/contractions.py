"""Operations that sum products over shared axes: linear maps, matrix products, convolutions.

Each is described like an einsum: a label for every axis of every operand and of the result. A
label that is missing in the result is contracted. Everything else follows from which of these
axes grow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import fx

from mufx.magnitudes import Factor, Magnitude, Rank, Value, Weight, multiplied
from mufx.rules.elementwise import scaled
from mufx.rules.table import Flow, RuleTable, argument
from mufx.rules.views import together
from mufx.sizes import Axis, Slot

CONTRACTIONS = RuleTable()

Labels = Sequence[str]


def contraction(
    flow: Flow, operands: Sequence[tuple[Slot, Labels]], result: Labels, scale: Slot | None = None
) -> Value:
    """The magnitude of a product summed over the labels that `result` lacks.

    Args:
        flow: The node that is being looked at.
        operands: For each operand its slot and one label for each of its axes.
        result: One label for each axis of the result.
        scale: The slot of a literal that multiplies the product, if there is one.
    """
    values = [flow.value(slot) for slot, _ in operands]
    weights = [i for i, v in enumerate(values) if isinstance(v, Weight)]
    if not weights:
        return _activations(flow, operands, result, scale)
    if len(weights) == 1:
        (w,) = weights
        value = _one_weight(flow, operands[w], [*operands[:w], *operands[w + 1 :]], result)
        return scaled(flow, value, scale, 1) if scale is not None else value
    if len(weights) == len(operands) == 2:
        product = _product_of_weights(flow, operands, result)
        if product is not None:
            return product
    if len(weights) == len(operands) and not _sums_what_grows(flow, operands, result):
        return Weight.bent(*(v for v in values if isinstance(v, Weight)))
    flow.refuse(
        "several parameters are multiplied with each other before an activation meets them",
        "apply them to the activation one after the other",
    )
    return Magnitude()


def _one_weight(
    flow: Flow,
    held: tuple[Slot, Labels],
    others: Sequence[tuple[Slot, Labels]],
    result: Labels,
) -> Value:
    """A weight meets activations: they are multiplied first, and what comes out meets it."""
    slot, labels = held
    weight = flow.value(slot)
    assert isinstance(weight, Weight)
    contracted = _contracted([held, *others], result)
    axes = tuple(i for i, label in enumerate(labels) if label in contracted)
    if not others:
        return replace(weight, factors=()) if not axes else Weight.bent(weight)
    met = set[str]().union(*(_grown(flow, other) for other in others))
    shared = tuple(i for i, label in enumerate(labels) if label in met - contracted)
    if len(others) == 1:
        return flow.contract(weight, slot, axes, others[0][0], shared)
    grown = {labels[i] for i in axes if flow.axes_of(slot)[i].grows}
    if not any(grown <= set(row) for _, row in others):
        _refuse_joint(flow)
        return Magnitude()
    joint, m = _multiplied(flow, others, [*result, *sorted(contracted & set(labels))])
    found = flow.moved(joint, m)
    ways = dict(found.known_ways())
    ways.pop(Rank.RESULT, None)  # the result of this node is what the weight makes of it
    joint = replace(found, ways=ways or None)
    return flow.contract(weight, slot, axes, others[0][0], shared, joint)


def _sums_what_grows(flow: Flow, operands: Sequence[tuple[Slot, Labels]], result: Labels) -> bool:
    grown = set[str]().union(*(_grown(flow, operand) for operand in operands))
    return bool(grown & _contracted(operands, result))


def _contracted(operands: Sequence[tuple[Slot, Labels]], result: Labels) -> set[str]:
    return {label for _, labels in operands for label in labels} - set(result)


def _grown(flow: Flow, operand: tuple[Slot, Labels]) -> set[str]:
    slot, labels = operand
    return {label for label, axis in zip(labels, flow.axes_of(slot), strict=True) if axis.grows}


def _refuse_joint(flow: Flow) -> None:
    flow.refuse(
        "a bilinear weight with two contracted axes that grow has no μP rule",
        "keep the size of one of its inputs fixed",
    )


def _product_of_weights(
    flow: Flow, operands: Sequence[tuple[Slot, Labels]], result: Labels
) -> Weight | None:
    """`B @ A` of two parameters: an activation will meet them one after the other."""
    factors: list[Factor] = []
    for slot, labels in operands:
        weight = flow.value(slot)
        assert isinstance(weight, Weight)
        if len(weight.names) != 1 or not weight.linear or weight.factors or weight.ratio != 1:
            return None
        places = tuple(list(result).index(x) if x in result else None for x in labels)
        (name,) = weight.names
        factors.append(Factor(name, flow.axes_of(slot), places))
    names = frozenset(factor.name for factor in factors)
    return Weight(names, linear=False, factors=tuple(factors))


def _activations(
    flow: Flow,
    operands: Sequence[tuple[Slot, Labels]],
    result: Labels,
    scale: Slot | None,
) -> Value:
    joint, m = _multiplied(flow, operands, result)
    value = flow.moved(joint, m)
    if scale is None:
        return value
    whole = scaled(flow, value, scale, 1)
    assert isinstance(whole, Magnitude)
    ways = dict(whole.known_ways())
    if Rank.AFTER in ways:
        ways[Rank.KERNEL] = ways.pop(Rank.AFTER)
    return Magnitude(whole.ratio, ways or None)


def _multiplied(
    flow: Flow, operands: Sequence[tuple[Slot, Labels]], result: Labels
) -> tuple[Magnitude, float]:
    """One product of activations, and how many times more of them are summed."""
    flow.summed(operands, result)
    sizes: dict[str, Axis] = {}
    for slot, labels in operands:
        for label, axis in zip(labels, flow.axes_of(slot), strict=True):
            if label not in sizes or axis.grows:
                sizes[label] = axis
    contracted = _contracted(operands, result)
    m = math.prod(sizes[label].m for label in contracted if sizes[label].grows)
    factors = [flow.magnitude(slot) for slot, _ in operands]
    if m != 1:
        factors = [f.demoted() for f in factors]
    return multiplied(*factors), m


@CONTRACTIONS.rule("linear")
def linear(flow: Flow, node: fx.Node) -> Value:
    """`x[..., i] w[o, i] + b[o]`."""
    x_slot, w_slot, b_slot = (
        argument(node, i, n)[0] for i, n in enumerate(("input", "weight", "bias"))
    )
    batch = _batch(len(flow.axes_of(x_slot)) - 1)
    vector = len(flow.axes_of(w_slot)) == 1
    out = [] if vector else ["o"]
    weight = flow.value(w_slot)
    if isinstance(weight, Weight) and _is_learned_input(flow, x_slot):
        value = flow.contract(weight, w_slot, (len(out),), x_slot)
    else:
        value = contraction(flow, [(x_slot, [*batch, "i"]), (w_slot, [*out, "i"])], [*batch, *out])
    return _with_bias(flow, node, value, b_slot)


def _is_learned_input(flow: Flow, slot: Slot) -> bool:
    """Learned queries or position vectors in the place of an activation: rows of features."""
    value, axes = flow.value(slot), flow.axes_of(slot)
    whole = isinstance(value, Weight) and not value.factors
    return whole and not any(axis.grows for axis in axes[:-1])


def _with_bias(flow: Flow, node: fx.Node, value: Value, slot: Slot) -> Value:
    bias = argument(node, slot, "bias")[1] if isinstance(slot, int) else node.kwargs.get(slot)
    if bias is None or not isinstance(value, Magnitude):
        return value
    return together(flow, [value, flow.magnitude(slot)])


def _batch(count: int) -> list[str]:
    """Labels of leading axes, counted from the right so that they broadcast."""
    return [f"b{count - i}" for i in range(count)]


@CONTRACTIONS.rule("matmul", "bmm", "mm", "mv", "dot", "vdot")
def matmul(flow: Flow, node: fx.Node) -> Value:
    """`a[..., i, k] b[..., k, j]`, vectors and broadcast batches included."""
    second: Slot = argument(node, 1, "other")[0]
    return _product(flow, 0, second)


def _product(flow: Flow, a: Slot, b: Slot, scale: Slot | None = None) -> Value:
    left, right = len(flow.axes_of(a)), len(flow.axes_of(b))
    a_labels = [*_batch(left - 2), "i", "k"] if left > 1 else ["k"]
    b_labels = [*_batch(right - 2), "k", "j"] if right > 1 else ["k"]
    batch = _batch(max(left, right) - 2) if max(left, right) > 2 else []
    out = [*batch, *(["i"] if left > 1 else []), *(["j"] if right > 1 else [])]
    return contraction(flow, [(a, a_labels), (b, b_labels)], out, scale)


@CONTRACTIONS.rule("addmm", "baddbmm", "addmv", "addbmm")
def addmm(flow: Flow, node: fx.Node) -> Value:
    """`beta * c + alpha * (a @ b)`; alpha is a kernel argument."""
    alpha = "alpha" if "alpha" in node.kwargs else None
    value = _product(flow, 1, 2, alpha)
    if node.kwargs.get("beta") == 0 or not isinstance(value, Magnitude):
        return value
    return together(flow, [value, flow.magnitude(0)])


@CONTRACTIONS.rule("linalg_solve_triangular", "linalg_solve")
def solve(flow: Flow, node: fx.Node) -> Value:
    """`A^-1 B`: linear in B and not in A, of as many equations as A has, which may not grow."""
    if any(axis.grows for axis in flow.axes_of(0)[-2:]):
        flow.refuse(
            "a system of equations is solved of which there are more at target",
            "keep the number of equations fixed",
        )
    flow.need(flow.magnitude(0), 0)
    return flow.magnitude(argument(node, 1, "B")[0])


@CONTRACTIONS.rule("outer", "ger")
def outer(flow: Flow, node: fx.Node) -> Value:
    """`a[i] b[j]`."""
    return contraction(flow, [(0, ["i"]), (1, ["j"])], ["i", "j"])


@CONTRACTIONS.rule("einsum")
def einsum(flow: Flow, node: fx.Node) -> Value:
    """As its equation says; an ellipsis stands for batch axes."""
    equation = str(node.args[0]).replace(" ", "")
    inputs, _, output = equation.partition("->")
    terms = inputs.split(",")
    if "->" not in equation:
        letters = sorted(c for c in set(inputs) if c.isalpha() and inputs.count(c) == 1)
        output = ("..." if "..." in inputs else "") + "".join(letters)
    ranks = [len(flow.axes_of(i + 1)) for i in range(len(terms))]
    labels = [_spell(term, rank) for term, rank in zip(terms, ranks, strict=True)]
    rank = max(r - len(t.replace("...", "")) for r, t in zip(ranks, terms, strict=True))
    out = _spell(output, rank + len(output.replace("...", "")))
    return contraction(flow, [(i + 1, row) for i, row in enumerate(labels)], out)


def _spell(term: str, rank: int) -> list[str]:
    before, dots, after = term.partition("...")
    if not dots:
        return list(term)
    return [*before, *_batch(rank - len(before) - len(after)), *after]


@CONTRACTIONS.rule("tensordot")
def tensordot(flow: Flow, node: fx.Node) -> Value:
    """The last axes of `a` against the first of `b`, or the named pairs."""
    chosen = argument(node, 2, "dims")[1]
    left, right = len(flow.axes_of(0)), len(flow.axes_of(1))
    count = 2 if chosen is None else chosen
    if isinstance(count, int):
        mine, its = [left - count + i for i in range(count)], list(range(count))
    else:
        mine, its = [d % left for d in count[0]], [d % right for d in count[1]]
    a = [f"k{mine.index(i)}" if i in mine else f"a{i}" for i in range(left)]
    b = [f"k{its.index(i)}" if i in its else f"c{i}" for i in range(right)]
    out = [label for label in (*a, *b) if label[0] != "k"]
    return contraction(flow, [(0, a), (1, b)], out)


@CONTRACTIONS.rule("bilinear")
def bilinear(flow: Flow, node: fx.Node) -> Value:
    """`x1[..., i] w[o, i, j] x2[..., j] + b[o]`: two activations meet one weight."""
    weight = flow.value(2)
    if isinstance(weight, Weight):
        axes = flow.axes_of(2)
        if axes[1].grows and axes[2].grows:
            _refuse_joint(flow)
        joint = multiplied(flow.magnitude(0), flow.magnitude(1))
        flow.need(joint, 0)
        flow.inside(node.args[2], "contraction", (1, 2))
        return _with_bias(flow, node, Magnitude(), argument(node, 3, "bias")[0])
    batch = _batch(len(flow.axes_of(0)) - 1)
    rows = [(0, [*batch, "i"]), (2, ["o", "i", "j"]), (1, [*batch, "j"])]
    return contraction(flow, rows, [*batch, "o"])


@CONTRACTIONS.rule("conv1d", "conv2d", "conv3d")
def conv(flow: Flow, node: fx.Node) -> Value:
    """`x[n, c, *] w[o, c/groups, *]`: axis 1 of the weight is contracted, taps are finite."""
    return _convolve(flow, node, contracted=(1,))


@CONTRACTIONS.rule("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def conv_transpose(flow: Flow, node: fx.Node) -> Value:
    """`x[n, c, *] w[c, o/groups, *]`: axis 0 of the weight is contracted, up to the groups."""
    groups_slot, groups = argument(node, 6, "groups")
    axes = flow.axes_of(1)
    if groups not in (None, 1) and axes[0].grows and flow.ratio(groups_slot) != 1:
        if abs(axes[0].m - flow.ratio(groups_slot)) > 1e-6:
            flow.refuse(
                "a transposed convolution whose groups and whose channels per group both grow",
                "keep one of the two fixed",
            )
        return _convolve(flow, node, contracted=())
    return _convolve(flow, node, contracted=(0,))


def _convolve(flow: Flow, node: fx.Node, contracted: tuple[int, ...]) -> Value:
    w_slot, _ = argument(node, 1, "weight")
    weight = flow.value(w_slot)
    if isinstance(weight, Weight):
        value = flow.contract(weight, w_slot, contracted, 0)
    else:
        axes = flow.axes_of(w_slot)
        taps = [f"t{i}" for i in range(len(axes) - 2)]
        batch = _batch(len(flow.axes_of(0)) - len(axes) + 1)
        made = ["o", "i"] if contracted == (1,) else ["i", "o"]
        x, kept = [*batch, "i", *taps], [] if contracted else ["i"]
        flow.summed([(0, x), (w_slot, [*made, *taps])], [*batch, "o", *taps, *kept])
        m = math.prod(axes[i].m for i in contracted if axes[i].grows)
        value = flow.moved(multiplied(flow.magnitude(0), flow.magnitude(w_slot)), m)
    return _with_bias(flow, node, value, argument(node, 2, "bias")[0])


@CONTRACTIONS.rule("embedding")
def embedding(flow: Flow, node: fx.Node) -> Value:
    """Rows of a table: nothing is contracted."""
    return flow.magnitude(argument(node, 1, "weight")[0])


@CONTRACTIONS.rule("embedding_bag")
def embedding_bag(flow: Flow, node: fx.Node) -> Value:
    """Sums or means of a few rows of a table, weighted or not: nothing that grows is contracted."""
    rows = flow.magnitude(argument(node, 1, "weight")[0])
    slot, shares = argument(node, 8, "per_sample_weights")
    return rows if shares is None else multiplied(rows, flow.magnitude(slot))


@CONTRACTIONS.rule("_grouped_mm", "grouped_mm")
def grouped_mm(flow: Flow, node: fx.Node) -> Value:
    """Each row with the matrix of its own group: `x[t, k] w[e, k, o]`, or stacks of matrices."""
    left, right = _GROUPED[len(flow.axes_of(0)), len(flow.axes_of(1))]
    return contraction(flow, [(0, left), (1, right)], ["e", "t", "o"])


_GROUPED: Mapping[tuple[int, int], tuple[Labels, Labels]] = {
    (2, 3): (["t", "k"], ["e", "k", "o"]),
    (3, 2): (["e", "t", "k"], ["k", "o"]),
    (3, 3): (["e", "t", "k"], ["e", "k", "o"]),
    (2, 2): (["t", "k"], ["k", "o"]),
}
