"""Fused attention and recurrent layers: whole small programs in one node."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from torch import fx

from mufx.magnitudes import Magnitude, Rank, Several, Value, Weight, multiplied
from mufx.rules.table import Flow, RuleTable, argument, dims, operation
from mufx.sizes import Number

FUSED = RuleTable()


@FUSED.rule("scaled_dot_product_attention")
def scaled_dot_product_attention(flow: Flow, node: fx.Node) -> Value:
    """`softmax(scale * q k^T) v`: the logits contract the head dimension.

    Its default scale is `1/sqrt(d_head)`, which is right at initialisation; after training the
    products are correlated and the logits grow with `d_head` (Tensor Programs V, Definition 4.1).
    """
    head = flow.axes_of(0)[-1]
    slot, scale = "scale", node.kwargs.get("scale")
    default = Number(head.base**-0.5, head.target**-0.5, head.along**-0.5)
    factor = flow.number(slot, default if scale is None else None)
    m = head.m if head.grows else 1.0
    logits = multiplied(flow.magnitude(0), flow.magnitude(1))
    powers = next(iter(factor.known_ways().values()), None)
    ways = {Rank.KERNEL: powers} if powers else None
    flow.need(Magnitude(logits.ratio * factor.ratio * m, ways), slot)
    mask = argument(node, 3, "attn_mask")
    if isinstance(mask[1], fx.Node):
        added = flow.magnitude(mask[0])
        if not added.neutral:
            flow.need(added, mask[0])
    return flow.magnitude(2)


@FUSED.rule("multi_head_attention_forward")
def multi_head_attention_forward(flow: Flow, node: fx.Node) -> Value:
    """Projections and attention in one call; it has no argument for the scale.

    Where the head dimension grows the recorder spells it out, so here it does not.
    """
    for slot in (0, 1, 2):
        flow.need(flow.magnitude(slot), slot)
    matrices = ((5, "in_proj_weight"), (11, "out_proj_weight"))
    named = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
    vectors = ((6, "in_proj_bias"), (7, "bias_k"), (8, "bias_v"), (12, "out_proj_bias"))
    for position, name in matrices:
        _use(flow, argument(node, position, name)[1], "contraction", (1,))
    for name in named:
        _use(flow, node.kwargs.get(name), "contraction", (1,))
    for position, name in vectors:
        _use(flow, argument(node, position, name)[1], "elementwise", ())
    return Several((Magnitude(), Magnitude()))


def _use(flow: Flow, operand: object, kind: str, contracted: tuple[int, ...]) -> None:
    if isinstance(operand, fx.Node) and isinstance(flow.item(operand), Weight):
        flow.inside(operand, kind, contracted)


@FUSED.rule("lstm", "gru", "rnn_tanh", "rnn_relu")
def recurrent(flow: Flow, node: fx.Node) -> Value:
    """A recurrent layer: matrices contract their second axis, biases are added.

    All inner nonlinearities need a size of 1, so the input and the first state do. A state that
    is learned has three axes.
    """
    for slot in range(len(node.args)):
        _taken(flow, node, slot, matrices=True)
    return Several((Magnitude(), Magnitude(), Magnitude()))


@FUSED.rule("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell")
def recurrent_cell(flow: Flow, node: fx.Node) -> Value:
    """One step of a recurrent layer. A state that is learned has two axes and is no matrix."""
    for slot in range(len(node.args)):
        _taken(flow, node, slot, matrices=slot > 1)
    return Several((Magnitude(),) * 2) if operation(node) == "lstm_cell" else Magnitude()


def _taken(flow: Flow, node: fx.Node, slot: int, *, matrices: bool) -> None:
    """What is in an argument of a recurrent layer: its parameters, and activations of size 1."""
    for operand in _nodes(node.args[slot]):
        value = flow.item(operand)
        if isinstance(value, Magnitude):
            flow.need(value, slot)
        elif matrices and len(flow.axes(operand)) == 2:
            _use(flow, operand, "contraction", (1,))
        else:
            _use(flow, operand, "elementwise", ())


def _nodes(value: object) -> Iterator[fx.Node]:
    if isinstance(value, fx.Node):
        yield value
    elif isinstance(value, (tuple, list)):
        items: Iterable[object] = value
        for item in items:
            yield from _nodes(item)


@FUSED.rule("_weight_norm")
def weight_norm(flow: Flow, node: fx.Node) -> Value:
    """`g * v / |v|`: v gives the direction of the weight and learns like it, g is a gain.

    The length is taken over all axes but one. What it does to the size of the weight depends on
    the init of v, so it is counted where the weight is used.
    """
    direction, gain = flow.value(0), flow.magnitude(1)
    assert isinstance(direction, Weight)
    axes, dim = flow.axes_of(0), argument(node, 2, "dim")[1]
    kept = dims(0 if dim is None else dim, len(axes)) if dim != -1 else ()
    normed = tuple(axis for i, axis in enumerate(axes) if i not in kept)
    return replace(direction, ratio=direction.ratio * gain.ratio, ways=gain.ways, normed=normed)
