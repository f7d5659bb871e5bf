"""Matrix products, attention, convolutions and recurrences: contracted axes are equal."""

from __future__ import annotations

from collections.abc import Callable

import torch

from mufx.classes.axes import Kind, Var
from mufx.classes.table import Answer, Axes, AxisRules, Call, labelled

CONTRACTIONS = AxisRules()

_PRODUCTS = {
    "mm": ("ij jk", "ik"),
    "bmm": ("bij bjk", "bik"),
    "mv": ("ij j", "i"),
    "dot": ("i i", ""),
    "vdot": ("i i", ""),
    "addmm": ("ik ij jk", "ik"),
    "baddbmm": ("bik bij bjk", "bik"),
    "addbmm": ("ik bij bjk", "ik"),
    "addmv": ("i ij j", "i"),
    "addr": ("ij i j", "ij"),
    "outer": ("i j", "ij"),
}


def _product(operands: str, result: str) -> Callable[[Call], Answer]:
    def rule(call: Call) -> Answer:
        pairs = zip(call.tensors, operands.split(), strict=True)
        return labelled(call, [(x, letters[-x.dim() :]) for x, letters in pairs], result)

    return rule


for _name, (_operands, _result) in _PRODUCTS.items():
    CONTRACTIONS.rule(_name)(_product(_operands, _result))


@CONTRACTIONS.rule("linear")
def linear(call: Call) -> Answer:
    """`x[..., i] w[o, i] + b[o]`."""
    x, weight = call.axes(call["input"]), call.axes(call["weight"])
    call.space.unify(x[-1], weight[-1])
    if call["bias"] is not None:
        call.equal(call.axes(call["bias"]), weight[:1])
    return (*x[:-1], *weight[:-1])


_ATTENTION = """
    _scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention
    _scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention
    _scaled_dot_product_attention_math _scaled_dot_product_fused_attention_overrideable
    _scaled_dot_product_attention_math_for_mps scaled_dot_product_attention
""".split()


@CONTRACTIONS.rule(*_ATTENTION)
def attention(call: Call) -> Answer:
    """`q[..., l, e] k[..., s, e] v[..., s, w]`, and a mask over l and s that broadcasts."""
    query, key, value = (call.axes(call[n]) for n in ("query", "key", "value"))
    _same_heads(call, query, key)
    call.equal((*key[:-1],), (*value[:-1],))
    call.space.unify(query[-1], key[-1])
    mask = call.arguments.get("attn_mask")
    if isinstance(mask, torch.Tensor):
        logits = (*query[:-1], key[-2])
        _broadcast_onto(call, call.axes(mask), logits)
    axes = (*query[:-1], value[-1])
    if isinstance(call.result, torch.Tensor):
        return axes
    return [axes, *(None for _ in call.result[1:])]


def _same_heads(call: Call, query: Axes, key: Axes) -> None:
    for q, k in zip(query[:-2], key[:-2], strict=True):
        many, few = call.space.size(q), call.space.size(k)
        groups = [call.space.new(many // few)] if many != few and many % few == 0 else []
        call.space.unify(q, call.space.whole(Kind.PRODUCT, (k, *groups)))


def _broadcast_onto(call: Call, mask: Axes, logits: Axes) -> None:
    for m, v in zip(mask[::-1], logits[::-1], strict=False):
        call.space.unify(m, v)


@CONTRACTIONS.rule("convolution", "_convolution", "mkldnn_convolution", "convolution_overrideable")
def convolution(call: Call) -> Answer:
    """Channels are contracted group by group; places are new."""
    x, weight = call.axes(call["input"]), call.axes(call["weight"])
    groups, transposed = int(call.arguments.get("groups", 1)), bool(call.arguments["transposed"])
    ins, outs = (weight[0], weight[1]) if transposed else (weight[1], weight[0])
    call.space.taps += weight[2:]
    d = len(x) - len(weight) + 1  # there may be no batch
    channels = x[d]
    out = outs
    if groups == 1:
        call.space.unify(channels, ins)
    else:
        out = _grouped(call, channels, (ins, outs), groups, transposed=transposed)
    if call["bias"] is not None:
        call.space.unify(call.axes(call["bias"])[0], out)
    return (*x[:d], out, *call.fresh()[d + 1 :])


def _grouped(
    call: Call, channels: Var, weight: tuple[Var, Var], groups: int, *, transposed: bool
) -> Var:
    """The output channels: both sides are groups of channels, and one side is so in the weight."""
    space, (ins, outs) = call.space, weight
    first = space.new(groups)
    if transposed:
        space.unify(channels, ins)
        space.unify(ins, space.whole(Kind.PRODUCT, (first, space.new(space.size(ins) // groups))))
        return space.whole(Kind.PRODUCT, (first, outs))
    space.unify(channels, space.whole(Kind.PRODUCT, (first, ins)))
    space.unify(outs, space.whole(Kind.PRODUCT, (first, space.new(space.size(outs) // groups))))
    return outs


@CONTRACTIONS.rule("_grouped_mm")
def grouped_mm(call: Call) -> Answer:
    """`x[t, k] w[e, k, o]`, each run of rows with its own matrix."""
    x, weight = call.axes(call["self"]), call.axes(call["mat2"])
    call.space.unify(x[-1], weight[-2])
    if call["offs"] is not None and len(weight) == 3:
        call.space.unify(call.axes(call["offs"])[0], weight[0])
    return (*x[:-1], weight[-1])


@CONTRACTIONS.rule("_cdist_forward", "_euclidean_dist")
def distances(call: Call) -> Answer:
    """`|x[..., i, k] - y[..., j, k]|`."""
    x, y = call.axes(call["x1"]), call.axes(call["x2"])
    call.equal((*x[:-2], x[-1]), (*y[:-2], y[-1]))
    return (*x[:-1], y[-2])
