"""Sums and means over axes, normalisations, pooling and losses."""

from __future__ import annotations

import torch

from mufx.classes.table import Answer, Axes, AxisRules, Call, broadcast

REDUCTIONS = AxisRules()

_REDUCED = """
    sum nansum mean nanmean amax amin aminmax var std var_mean std_mean prod any all argmax argmin
    max min logsumexp norm linalg_vector_norm median nanmedian mode count_nonzero kthvalue
""".split()


@REDUCTIONS.rule(*_REDUCED)
def reduce(call: Call) -> Answer:
    """The reduced axes go, or stay with size 1."""
    if len(call.tensors) > 1:  # max(a, b) is elementwise
        return broadcast(call, [call.axes(x) for x in call.tensors])
    axes, dim = call.own, call.arguments.get("dim")
    rank = len(axes)
    chosen = [dim] if isinstance(dim, int) else dim or range(rank)
    gone = {int(d) % max(rank, 1) for d in chosen}
    keep = bool(call.arguments.get("keepdim"))
    kept = tuple(
        call.space.new(1) if i in gone else v for i, v in enumerate(axes) if keep or i not in gone
    )
    if isinstance(call.result, (tuple, list)):
        return [kept] * len(call.result)
    return kept


@REDUCTIONS.rule("native_layer_norm", "_fused_rms_norm", "rms_norm", "layer_norm")
def layer_norm(call: Call) -> Answer:
    """Gain and bias have the last axes of the operand."""
    axes = call.own
    for gain in call.tensors[1:]:
        call.equal(call.axes(gain), axes[len(axes) - gain.dim() :])
    return _first(call, axes)


_PER_CHANNEL = """
    native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training
    _batch_norm_with_update cudnn_batch_norm batch_norm native_group_norm group_norm instance_norm
    _batch_norm_no_update _batch_norm_with_update_functional
""".split()


@REDUCTIONS.rule(*_PER_CHANNEL)
def channel_norm(call: Call) -> Answer:
    """Gains, biases and running statistics have the second axis of the operand."""
    axes = call.own
    for gain in call.tensors[1:]:
        call.equal(call.axes(gain), axes[1:2])
    return _first(call, axes)


def _first(call: Call, axes: Axes) -> Answer:
    """The first result has these axes, further ones are statistics."""
    if isinstance(call.result, torch.Tensor):
        return axes
    return [axes, *(None for _ in call.result[1:])]


_POOLING = """
    avg_pool max_pool _adaptive_avg_pool adaptive_avg_pool adaptive_max_pool upsample_nearest
    upsample_linear upsample_bilinear upsample_bicubic upsample_trilinear _upsample_nearest_exact
    _upsample_bilinear_aa _upsample_bicubic_aa
""".split()
_RANKED = [f"{name}{rank}d{end}" for name in _POOLING for rank in (1, 2, 3)
           for end in ("", "_with_indices")]  # fmt: skip


@REDUCTIONS.rule(*_RANKED, "max_pool2d_with_indices_default", "grid_sampler_2d", "grid_sampler_3d")
def pool(call: Call) -> Answer:
    """Batch and channels stay; places are new."""
    results = call.result if isinstance(call.result, (tuple, list)) else [call.result]
    spatial = next((int(c) for c in call.name if c.isdigit()), 2)
    axes = call.own[: len(call.own) - spatial]
    call.lost += call.own[len(axes) :]
    answers = [(*axes, *call.fresh(r)[len(axes) :]) for r in results]
    return answers if isinstance(call.result, (tuple, list)) else answers[0]


_LOSSES = """
    nll_loss_forward nll_loss2d_forward mse_loss l1_loss smooth_l1_loss huber_loss
    binary_cross_entropy binary_cross_entropy_with_logits _ctc_loss kl_div
    multilabel_margin_loss_forward multi_margin_loss soft_margin_loss cross_entropy_loss nll_loss
""".split()


@REDUCTIONS.rule(*_LOSSES)
def loss(call: Call) -> Answer:
    """Prediction and target have equal axes, the class axis aside; the result is a number."""
    prediction, *others = (call.axes(x) for x in call.tensors)
    for target in others[:1]:
        if len(target) == len(prediction):
            call.equal(target, prediction)
        elif len(target) == len(prediction) - 1:
            call.equal(target, (prediction[:1] + prediction[2:]))
    if isinstance(call.result, torch.Tensor):
        return call.fresh()
    return [None] * len(call.result)
