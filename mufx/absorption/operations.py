"""How operations pass on a positive factor on their operands, exactly.

The scale of a result follows from those of its operands by an identity in the values, such as
`relu(a x) = a relu(x)` for a > 0. What is not in the table needs operands without a factor, so a
missing entry costs an absorption, and never makes a wrong one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

from torch import fx

from mufx.absorption.equations import ONE, Scale, power, product
from mufx.absorption.walk import Passing, Scaling, kept, needs_one
from mufx.rules.table import argument
from mufx.sizes import Slot


def _multiplied(scaling: Scaling, node: fx.Node) -> Scale:
    second: Slot = 1 if len(node.args) > 1 else next(iter(node.kwargs), 1)
    return product(scaling.scale(0), scaling.scale(second))


def _divided(scaling: Scaling, node: fx.Node) -> Scale:
    if node.kwargs.get("rounding_mode") is not None:
        return needs_one(scaling, node)
    return product(scaling.scale(0), power(scaling.scale(argument(node, 1, "other")[0]), -1))


def _together(scaling: Scaling, *operands: tuple[Slot, Any]) -> Scale:
    """Operands of a sum: all of one scale, but for literals that a factor does not change."""
    return _equal(
        scaling, [scaling.scale(slot) for slot, held in operands if not _is_neutral(held)]
    )


def _equal(scaling: Scaling, scales: list[Scale]) -> Scale:
    for other in scales[1:]:
        scaling.demand(other, scales[0])
    return scales[0] if scales else ONE


def _is_neutral(literal: object) -> bool:
    return isinstance(literal, (int, float)) and (literal == 0 or math.isinf(literal))


def _added(scaling: Scaling, node: fx.Node) -> Scale:
    return _together(scaling, (0, node.args[0]), argument(node, 1, "other"))


def _chosen(scaling: Scaling, node: fx.Node) -> Scale:
    if len(node.args) != 3:
        return needs_one(scaling, node)
    return _together(scaling, (1, node.args[1]), (2, node.args[2]))


def _overwritten(scaling: Scaling, node: fx.Node) -> Scale:
    first, *rest = node.args
    last: tuple[Slot, Any] = (len(rest), rest[-1]) if rest else ("value", node.kwargs.get("value"))
    return _together(scaling, (0, first), last)


def _side_by_side(scaling: Scaling, node: fx.Node) -> Scale:
    parts = argument(node, 0, "tensors")[1]
    return _equal(scaling, [scaling.of(part) for part in parts if not scaling.is_empty(part)])


def _raised(scaling: Scaling, node: fx.Node) -> Scale:
    exponent = argument(node, 1, "exponent")[1]
    if not isinstance(exponent, (int, float)):
        return needs_one(scaling, node)
    return power(scaling.scale(0), Fraction(exponent))


def _fixed_power(exponent: Fraction) -> Passing:
    return lambda scaling, node: power(kept(scaling, node), exponent)


def _padded(scaling: Scaling, node: fx.Node) -> Scale:
    value = argument(node, 3, "value")[1]
    return kept(scaling, node) if value is None or _is_neutral(value) else needs_one(scaling, node)


def _affine(scaling: Scaling, node: fx.Node) -> Scale:
    """`x W + b`, linear layers and convolutions."""
    result = product(
        scaling.scale(argument(node, 0, "input")[0]), scaling.scale(argument(node, 1, "weight")[0])
    )
    return _with_bias(scaling, result, argument(node, 2, "bias"))


def _with_bias(scaling: Scaling, result: Scale, bias: tuple[Slot, Any]) -> Scale:
    slot, held = bias
    if isinstance(held, fx.Node):
        scaling.demand(scaling.scale(slot), result)
    return result


def _sum_and_product(scaling: Scaling, node: fx.Node) -> Scale:
    """`beta * added + alpha * (a @ b)`."""
    result = product(scaling.scale(1), scaling.scale(2), scaling.scale("alpha"))
    if not _is_neutral(node.kwargs.get("beta")):
        scaling.demand(product(scaling.scale(0), scaling.scale("beta")), result)
    return result


def _einsum(scaling: Scaling, node: fx.Node) -> Scale:
    return product(*(scaling.scale(i) for i in range(1, len(node.args))))


def _looked_up(scaling: Scaling, node: fx.Node) -> Scale:
    return scaling.scale(argument(node, 1, "weight")[0])


def _normalised(weight: int, bias: int) -> Passing:
    """Gain and bias of a norm; its eps keeps the operand from being rescaled."""

    def passing(scaling: Scaling, node: fx.Node) -> Scale:
        slot, held = argument(node, weight, "weight")
        gain = scaling.scale(slot) if isinstance(held, fx.Node) else ONE
        rest = [n for n in node.all_input_nodes if n not in (held, argument(node, bias, "bias")[1])]
        for operand in rest:
            scaling.demand(scaling.of(operand), ONE)
        return _with_bias(scaling, gain, argument(node, bias, "bias"))

    return passing


def _weight_normed(scaling: Scaling, node: fx.Node) -> Scale:
    """`g * v / |v|`."""
    scaling.demand(scaling.scale(0), ONE)
    return scaling.scale(1)


def _attention(scaling: Scaling, node: fx.Node) -> Scale:
    """`softmax(scale * q k^T + mask) v`."""
    q, k, v, mask = (
        argument(node, i, name)[0] for i, name in enumerate(("query", "key", "value", "attn_mask"))
    )
    scaling.demand(product(scaling.scale(q), scaling.scale(k), scaling.scale("scale")), ONE)
    scaling.demand(scaling.scale(mask), ONE)
    return scaling.scale(v)


def _by_name(names: str, rule: Passing) -> Iterator[tuple[str, Passing]]:
    return ((name, rule) for name in names.split())


_KEPT = """
    view reshape flatten unflatten squeeze unsqueeze transpose swapaxes swapdims movedim moveaxis
    permute t adjoint contiguous clone detach view_as view_as_real view_as_complex
    expand expand_as repeat repeat_interleave tile broadcast_to narrow select
    diagonal tril triu roll flip fliplr flipud rot90 unfold
    to type type_as float double half bfloat16
    dropout dropout1d dropout2d dropout3d
    split chunk unbind tensor_split split_with_sizes hsplit dsplit
    getitem index_select gather take_along_dim topk sort
    sum mean cumsum amax amin max min neg positive relu leaky_relu abs
    avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
    max_pool1d max_pool2d max_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d
    pixel_shuffle pixel_unshuffle channel_shuffle
"""

PASSED_ON: Mapping[str, Passing] = {
    **dict(_by_name(_KEPT, kept)),
    **dict(_by_name("mul matmul bmm mm mv dot outer ger", _multiplied)),
    **dict(_by_name("_grouped_mm grouped_mm tensordot", _multiplied)),
    **dict(_by_name("add sub rsub", _added)),
    **dict(_by_name("maximum minimum", _added)),
    **dict(_by_name("masked_fill index_fill index_copy index_add copy", _overwritten)),
    **dict(_by_name("cat concat concatenate stack hstack vstack dstack", _side_by_side)),
    **dict(_by_name("linear conv1d conv2d conv3d", _affine)),
    **dict(_by_name("conv_transpose1d conv_transpose2d conv_transpose3d", _affine)),
    **dict(_by_name("addmm baddbmm addmv addbmm", _sum_and_product)),
    "div": _divided,
    "where": _chosen,
    "pow": _raised,
    "square": _fixed_power(Fraction(2)),
    "sqrt": _fixed_power(Fraction(1, 2)),
    "rsqrt": _fixed_power(Fraction(-1, 2)),
    "reciprocal": _fixed_power(Fraction(-1)),
    "pad": _padded,
    "einsum": _einsum,
    "embedding": _looked_up,
    "layer_norm": _normalised(2, 3),
    "group_norm": _normalised(2, 3),
    "rms_norm": _normalised(2, 4),
    "batch_norm": _normalised(3, 4),
    "_weight_norm": _weight_normed,
    "scaled_dot_product_attention": _attention,
}
