"""Functions whose fake kernel refuses, or fixes, what the real one takes; how their shapes follow.

Only shapes, dtypes and the need of gradients of a result are looked at; the recording still holds
the function that was called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor


def grouped_mm(
    a: Tensor,
    b: Tensor,
    *,
    offs: Tensor | None = None,
    bias: Tensor | None = None,
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    """A result like that of `grouped_mm`, whose fake kernel takes bfloat16 only.

    Groups are a leading axis of an operand of three axes, else parts that `offs` ends: `(s, k)`
    and `(g, k, n)` give `(s, n)`; `(g, m, k)` and `(k, s)` give `(m, s)`; `(g, m, k)` and
    `(g, k, n)` give `(g, m, n)`; `(m, s)` and `(s, n)` give `(g, m, n)`.
    """
    if a.dim() == b.dim() == 2:
        assert offs is not None
        product = (a @ b).repeat(offs.shape[0], 1, 1)
    elif a.dim() == b.dim():
        product = a @ b
    else:
        product = (a if a.dim() == 2 else a[0]) @ (b if b.dim() == 2 else b[0])
    if bias is not None:
        product = product + bias.flatten()[0]
    return product if out_dtype is None else product.to(out_dtype)


Recurrent = Callable[..., tuple[Tensor, ...]]


def recurrent(layer: Recurrent, x: Tensor, state: object, *rest: object) -> tuple[Tensor, ...]:
    """Results like those of a recurrent layer, whose fake kernel takes step by step what is given.

    `rest` are the weights, whether there are biases and, last but one, whether it runs both ways.
    The output has as many steps as `x`, and the entries of a state, or of two. Packed sequences,
    of which the second argument is the lengths, and sizes that are not free are left to the layer.
    """
    sizes: list[object] = list(x.shape)  # annotated as int, but free ones are symbolic
    if not isinstance(rest[1], bool) or all(isinstance(size, int) for size in sizes):
        return layer(x, state, *rest)
    states = (state,) if isinstance(state, Tensor) else tuple(_tensors(state))
    learned = sum(weight.flatten()[0] for weight in _tensors(rest[0]))
    entries = states[0].shape[-1] * (2 if rest[-2] else 1)
    steps = x.sum(-1, keepdim=True) + learned
    output = steps.expand(*x.shape[:-1], entries).clone()
    return output, *(s + learned for s in states)


def _tensors(value: object) -> list[Tensor]:
    return (
        [item for item in value if isinstance(item, Tensor)] if isinstance(value, Sequence) else []
    )


_RECURRENT: tuple[Recurrent, ...] = (
    torch._VF.lstm,
    torch._VF.gru,
    torch._VF.rnn_tanh,
    torch._VF.rnn_relu,
)

STAND_INS: Mapping[Callable[..., object], Callable[..., object]] = {
    torch._VF._grouped_mm: grouped_mm,  # torch._grouped_mm, which torch does not export
    **{layer: partial(recurrent, layer) for layer in _RECURRENT},
}
