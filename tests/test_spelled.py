"""What is written in single steps computes what the fused function does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mufx
from mufx.spelled import READ, SPELLED

T, S, B, E = 4, 5, 3, 8
FUSED, STEPS = SPELLED["multi_head_attention_forward"]
WITH_WEIGHTS = READ["multi_head_attention_forward"]

MODULES: dict[str, dict[str, Any]] = {
    "plain": {},
    "added keys": {"add_bias_kv": True},
    "a key of zeros": {"add_zero_attn": True},
    "both": {"add_bias_kv": True, "add_zero_attn": True},
    "own sizes": {"kdim": 6, "vdim": 7, "add_bias_kv": True},
    "no biases": {"bias": False},
}
HIDDEN = torch.tensor([[False] * S, [False] * 3 + [True] * 2, [False] * 4 + [True]])
CALLS: dict[str, dict[str, Any]] = {
    "plain": {},
    "per head": {"average_attn_weights": False},
    "mask": {"attn_mask": torch.randn(T, S, generator=torch.Generator().manual_seed(1))},
    "masks": {
        "attn_mask": torch.ones(B * 2, T, S, dtype=torch.bool).triu(2),
        "key_padding_mask": HIDDEN,
    },
    "padding": {"key_padding_mask": HIDDEN},
}


class Replacing(torch.overrides.TorchFunctionMode):
    """Calls one function in the place of the fused one."""

    def __init__(self, steps: Any) -> None:
        super().__init__()
        self.steps = steps

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return (self.steps if func is FUSED else func)(*args, **(kwargs or {}))


def attention(module: str) -> tuple[nn.MultiheadAttention, tuple[Tensor, Tensor, Tensor]]:
    torch.manual_seed(0)
    made = nn.MultiheadAttention(E, 2, **MODULES[module]).eval().double()
    query, key, value = (
        torch.randn(n, B, size, dtype=torch.float64)
        for n, size in ((T, E), (S, made.kdim), (S, made.vdim))
    )
    return made, (query, key, value)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("module", MODULES)
def test_attention(module: str, call: str) -> None:
    made, operands = attention(module)
    options = dict(CALLS[call])
    if options.get("attn_mask") is not None and options["attn_mask"].dtype is torch.float32:
        options["attn_mask"] = options["attn_mask"].double()
    wanted, weights = made(*operands, **options)

    with Replacing(STEPS):
        found, nothing = made(*operands, **options)
    with Replacing(WITH_WEIGHTS):
        again, seen = made(*operands, **options)

    assert nothing is None
    torch.testing.assert_close((found, again, seen), (wanted, wanted, weights))


def test_one_sequence() -> None:
    made, operands = attention("both")
    single = [x[:, 0] for x in operands]

    with Replacing(WITH_WEIGHTS):
        found = made(*single)

    torch.testing.assert_close(found, made(*single))


class Watched(nn.Module):
    """Attention whose weights are an output."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(6, width)
        self.attend = nn.MultiheadAttention(width, 2, add_bias_kv=True, batch_first=True)
        self.last = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.first(x)
        y, weights = self.attend(x, x, x)
        return self.last(y), weights


def test_weights_that_are_read_are_returned() -> None:
    x = torch.randn(2, 5, 6)
    conversion = mufx.convert(Watched, (x,), {"width": 16}, {"width": 64})

    model = conversion.module(seed=3)
    original = Watched(64)
    original.load_state_dict(model.state_dict())
    with torch.no_grad():  # the scale of attention: half of it at four times the head's size
        original.attend.in_proj_weight[:64] /= 2
        original.attend.in_proj_bias[:64] /= 2
    assert [(c.before, c.after) for c in conversion.manifest.changes] == [
        ("1/sqrt(32)", "sqrt(8)/32")
    ]
    torch.testing.assert_close(model(x), original(x))
