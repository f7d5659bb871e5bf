"""Operations that are small programs in one ATen call."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mufx.classes.axes import Kind
from mufx.classes.table import Answer, Axes, AxisRules, Call, broadcast

FUSED = AxisRules()


@FUSED.rule("mkldnn_rnn_layer")
def lstm_layer(call: Call) -> Answer:
    """One layer and direction of an LSTM: the rows of its weights are four times the state."""
    into, back, *biases = (call.axes(call[f"weight{i}"]) for i in range(4))
    state = call.axes(call["hx_"])[-1]
    size = call.space.size(state)
    call.space.unify(into[1], call.own[-1])
    call.space.unify(back[1], state)
    call.space.unify(call.axes(call["cx_"])[-1], state)
    for rows in (into, back, *biases):
        for gate in call.space.split(Kind.SUM, rows[0], (size,) * 4):
            call.space.unify(gate, state)
    return [(*call.own[:-1], state), *(_state(call, t) for t in call.result[1:3]), None]


def _state(call: Call, state: torch.Tensor) -> Axes:
    return (*call.fresh(state)[:-1], call.axes(call["hx_"])[-1])


@FUSED.rule("_weight_norm_interface", "_weight_norm")
def weight_norm(call: Call) -> Answer:
    """A direction and its length, which has size 1 along all axes but one."""
    axes = broadcast(call, [call.axes(call["v"]), call.axes(call["g"])])
    return axes if isinstance(call.result, torch.Tensor) else [axes, None]


@FUSED.rule("_trilinear")
def trilinear(call: Call) -> Answer:
    """Three operands, brought to one rank, are multiplied and summed over some axes."""
    rows = [_expanded(call, f"i{i}", call[f"expand{i}"]) for i in (1, 2, 3)]
    axes = broadcast(call, rows)
    return tuple(v for d, v in enumerate(axes) if d not in call["sumdim"])


def _expanded(call: Call, name: str, places: Sequence[int]) -> Axes:
    axes = list(call.axes(call[name]))
    for place in places:
        axes.insert(place, call.space.new(1))
    return tuple(axes)


@FUSED.rule("pixel_shuffle")
def pixel_shuffle(call: Call) -> Answer:
    """(c * r * r, h, w) becomes (c, h * r, w * r)."""
    *batch, channels, height, width = call.own
    r = int(call["upscale_factor"])
    kept, i, j = call.space.split(
        Kind.PRODUCT, channels, (call.space.size(channels) // (r * r), r, r)
    )
    rows, columns = (call.space.whole(Kind.PRODUCT, pair) for pair in ((height, i), (width, j)))
    return (*batch, kept, rows, columns)


@FUSED.rule("pixel_unshuffle")
def pixel_unshuffle(call: Call) -> Answer:
    """(c, h * r, w * r) becomes (c * r * r, h, w)."""
    *batch, channels, height, width = call.own
    r = int(call["downscale_factor"])
    rows, i = call.space.split(Kind.PRODUCT, height, (call.space.size(height) // r, r))
    columns, j = call.space.split(Kind.PRODUCT, width, (call.space.size(width) // r, r))
    return (*batch, call.space.whole(Kind.PRODUCT, (channels, i, j)), rows, columns)
