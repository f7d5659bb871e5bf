"""Functions whose fake kernel refuses what the real one computes, and how their shapes follow.

Only shapes, dtypes and the need of gradients of a result are looked at; the recording still holds
the function that was called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

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


STAND_INS: Mapping[Callable[..., object], Callable[..., object]] = {
    torch._VF._grouped_mm: grouped_mm,  # torch._grouped_mm, which torch does not export
}
