"""Fused functions of torch in their single steps, for where a step inside must be changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def multi_head_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
    *,
    weights_are_read: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """`F.multi_head_attention_forward` as projections and one attention with a scale argument.

    Shapes: query (T, B, E), key and value (S, B, E), as the fused function takes them; unbatched
    inputs have no B. The attention weights are returned where `weights_are_read`; attention is
    not one kernel then.

    Raises:
        NotImplementedError: For static keys and values, which no module of torch passes.
    """
    del embed_dim_to_check
    if static_k is not None or static_v is not None:
        raise NotImplementedError("attention with static keys or values")
    batched = query.dim() == 3
    if not batched:
        query, key, value = query.unsqueeze(1), key.unsqueeze(1), value.unsqueeze(1)
    w_q, w_k, w_v = q_proj_weight, k_proj_weight, v_proj_weight
    b_q, b_k, b_v = in_proj_bias.chunk(3) if in_proj_bias is not None else (None, None, None)
    if not use_separate_proj_weight:
        assert in_proj_weight is not None
        w_q, w_k, w_v = in_proj_weight.chunk(3)
    assert w_q is not None
    assert w_k is not None
    assert w_v is not None
    heads = (query.shape[1], num_heads, query.shape[2] // num_heads)
    keys, values = F.linear(key, w_k, b_k), F.linear(value, w_v, b_v)
    added = 0
    if bias_k is not None and bias_v is not None:
        keys = torch.cat([keys, bias_k.repeat(1, keys.shape[1], 1)])
        values = torch.cat([values, bias_v.repeat(1, values.shape[1], 1)])
        added += 1
    # (T, B, E) to (B, heads, T, E/heads)
    q = F.linear(query, w_q, b_q).view(query.shape[0], *heads).permute(1, 2, 0, 3)
    k = keys.view(keys.shape[0], *heads).permute(1, 2, 0, 3)
    v = values.view(values.shape[0], *heads).permute(1, 2, 0, 3)
    if add_zero_attn:
        k, v = F.pad(k, (0, 0, 0, 1)), F.pad(v, (0, 0, 0, 1))
        added += 1
    causal = is_causal and key_padding_mask is None and not need_weights
    mask = None if causal else _mask(attn_mask, key_padding_mask, q, added)
    dropout = dropout_p if training else 0.0
    weights: Tensor | None = None
    if need_weights and weights_are_read:
        logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        weights = F.softmax(logits if mask is None else logits + mask, dim=-1)
        if dropout:
            weights = F.dropout(weights, dropout)
        y = weights @ v
        weights = weights.mean(dim=1) if average_attn_weights else weights
    else:
        y = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=causal
        )
    y = y.permute(2, 0, 1, 3).flatten(2)
    y = F.linear(y, out_proj_weight, out_proj_bias)
    if batched:
        return y, weights
    return y.squeeze(1), None if weights is None else weights.squeeze(0)


def _mask(mask: Tensor | None, padding: Tensor | None, q: Tensor, added: int) -> Tensor | None:
    """Both masks as one; the keys that were added behind the others are seen by all."""
    if mask is not None:
        mask = _added(mask, q)
        if mask.dim() == 3:
            mask = mask.view(q.shape[0], q.shape[1], *mask.shape[1:])
    if padding is not None:
        padding = _added(padding, q)[:, None, None, :]
        mask = padding if mask is None else mask + padding
    return F.pad(mask, (0, added)) if mask is not None and added else mask


def _added(mask: Tensor, q: Tensor) -> Tensor:
    """A mask of truth values (True: hidden) as one that is added."""
    if mask.dtype is not torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=q.dtype).masked_fill(mask, float("-inf"))


SPELLED: Mapping[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "multi_head_attention_forward": (F.multi_head_attention_forward, multi_head_attention),
}
READ: Mapping[str, Callable[..., Any]] = {
    "multi_head_attention_forward": partial(multi_head_attention, weights_are_read=True),
}
"""Where the second result has a reader."""
