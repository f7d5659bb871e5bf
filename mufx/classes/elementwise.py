"""Operations that keep the axes of their operands, and operations that make tensors."""

from __future__ import annotations

from mufx.classes.axes import Kind
from mufx.classes.table import Answer, AxisRules, Call, broadcast

ELEMENTWISE = AxisRules()

_LIKE = """
    _softmax _safe_softmax _log_softmax softmax log_softmax cumsum cumprod cummax cummin
    logcumsumexp flip roll tril triu sort argsort dropout native_dropout bernoulli
    zeros_like ones_like empty_like rand_like randn_like randint_like full_like _to_copy to
    clone detach alias lift_fresh lift_fresh_copy contiguous positive zero fill uniform
    normal exponential random data _conj resolve_conj resolve_neg real imag rrelu_with_noise
    bucketize searchsorted channel_shuffle geqrf erfinv multinomial _fft_c2c
""".split()


@ELEMENTWISE.rule(*_LIKE)
def like(call: Call) -> Answer:
    """Every result has the axes of the first operand, where it has its shape."""
    own, shape = call.own, tuple(call.tensors[0].shape)
    if not isinstance(call.result, (tuple, list)):
        return own if tuple(call.result.shape) == shape else call.fresh()
    return [own if tuple(r.shape) == shape else None for r in call.result]


_BROADCAST = """
    where masked_fill copy lerp addcmul addcdiv fmod remainder polar complex
    maximum minimum prelu _prelu_kernel isin floor_divide clamp clamp_min clamp_max atan2 type_as
""".split()


@ELEMENTWISE.rule(*_BROADCAST)
def pointwise(call: Call) -> Answer:
    """Operands broadcast; a gain along the second axis is told by its operation."""
    return broadcast(call, [call.axes(x) for x in call.tensors])


@ELEMENTWISE.rule("glu")
def glu(call: Call) -> Answer:
    """The halves of an axis are multiplied, so they are equal."""
    axes, d = list(call.own), call.dim()
    size = int(call.result.shape[d])
    first, second = call.space.split(Kind.SUM, axes[d], (size, size))
    call.space.unify(first, second)
    axes[d] = first
    return tuple(axes)


_MADE = """
    arange empty zeros ones full eye scalar_tensor rand randn randint randperm linspace logspace
    new_zeros new_ones new_empty new_full new_empty_strided empty_strided tril_indices
    triu_indices tensor histc bincount nonzero unique_dim _unique2 unique_consecutive
    hann_window bartlett_window
""".split()


@ELEMENTWISE.rule(*_MADE)
def made(call: Call) -> Answer:
    """New axes: what they are equal to, their use says."""
    if isinstance(call.result, (tuple, list)):
        return [None] * len(call.result)
    return call.fresh()
