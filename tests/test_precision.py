"""The emitted module runs in every precision that the model runs in, with the same bits."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mufx
from mufx.api import Conversion

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from transformers import GptOssConfig, GptOssForCausalLM, MistralConfig, MistralForCausalLM


class Norm(nn.Module):
    """Takes the type of what comes in, as the norms of transformers do."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        given = x.dtype
        x = x.to(torch.float32)
        x = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)
        return self.weight * x.to(given)


class Net(nn.Module):
    """A layer, a body that is given, a readout."""

    def __init__(self, body: Callable[[Net, Tensor], Tensor], width: int) -> None:
        super().__init__()
        self.up = nn.Linear(8, width)
        self.norm = Norm(width)
        self.down = nn.Linear(width, 8)
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down(self.body(self, self.up(x)))
        return out


def normed(net: Net, x: Tensor) -> Tensor:
    out: Tensor = net.norm(x)
    return out


def soft_masked(net: Net, x: Tensor) -> Tensor:
    """Scores masked with the smallest number of their type, and a softmax in float32."""
    hidden = torch.ones(x.shape[0], x.shape[0], dtype=torch.bool).triu(1)
    scores = (x @ x.mT).masked_fill(hidden, torch.finfo(x.dtype).min)
    return scores.softmax(-1, dtype=torch.float32).to(x.dtype) @ x


def by_type(net: Net, x: Tensor) -> Tensor:
    """Another computation for another type: no recording of one holds for the other."""
    wide = x.to(torch.float32)
    return wide.relu() if x.dtype is torch.float32 else wide.relu().to(x.dtype)


def by_autocast(net: Net, x: Tensor) -> Tensor:
    """Casts where the layer before it gave another type than the weight has, as T5 does."""
    if x.dtype != net.down.weight.dtype:
        x = x.to(net.down.weight.dtype)
    out: Tensor = net.norm(x) + torch.zeros(8, dtype=x.dtype).sum()
    return out


def of_nothing(net: Net, x: Tensor) -> Tensor:
    """A type that no tensor has: float16 in bfloat16's place."""
    other = torch.float32 if x.dtype is torch.float32 else torch.float16
    return x + torch.ones_like(x, dtype=other).to(x.dtype)


def net(body: Callable[[Net, Tensor], Tensor]) -> Conversion:
    def build(width: int) -> nn.Module:
        return Net(body, width)

    given = (torch.randn(4, 8),)
    return mufx.convert(build, given, base={"width": 16}, target={"width": 16}, vary=["width"])


def run(model: nn.Module, x: Tensor, precision: str) -> Tensor:
    region = torch.autocast("cpu", torch.bfloat16) if precision == "autocast" else nullcontext()
    if precision == "bfloat16":
        model = model.bfloat16()
        x = x.bfloat16() if x.is_floating_point() else x
    with region, torch.no_grad():
        made: Any = model(x)
    return made if isinstance(made, Tensor) else made.logits


PRECISIONS = ("float32", "bfloat16", "autocast")


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("body", [normed, soft_masked, by_autocast])
def test_types_follow_the_tensors_they_were_taken_from(
    body: Callable[[Net, Tensor], Tensor], precision: str
) -> None:
    original, emitted, x = Net(body, 16), net(body).module(), torch.randn(4, 8)
    emitted.load_state_dict(original.state_dict())
    assert torch.equal(run(emitted, x, precision), run(original, x, precision))


def test_what_is_written() -> None:
    text = net(soft_masked).text
    assert "scores.masked_fill(hidden, torch.finfo(scores.dtype).min)" in text
    assert "scores.softmax(-1, dtype=torch.float32).to(scores.dtype)" in text


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (by_type, "in bfloat16 the model runs other operations"),
        (of_nothing, "no tensor has it"),
        (by_autocast, "under autocast the model runs other operations"),
    ],
)
def test_a_type_that_cannot_follow_is_told(body: Callable[[Net, Tensor], Tensor], why: str) -> None:
    found = [d for d in net(body).program.diagnostics if d.code == "MUF111"]
    assert why in found[0].message


SMALL: dict[str, Any] = {
    "vocab_size": 50,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 48,
    "use_cache": False,
}


def mistral(**size: Any) -> nn.Module:
    config: Any = MistralConfig(**SMALL, **size)
    model: nn.Module = MistralForCausalLM(config)
    return model


def gpt_oss(**size: Any) -> nn.Module:
    experts: dict[str, Any] = {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 16}
    config: Any = GptOssConfig(**SMALL, **experts, **size)
    model: nn.Module = GptOssForCausalLM(config)
    return model


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("build", [mistral, gpt_oss])
def test_models_of_transformers(build: Callable[..., nn.Module], precision: str) -> None:
    ids = torch.randint(50, (2, 8))
    size = {"hidden_size": 32}
    conversion = mufx.convert(build, (ids,), base=size, target=size, vary=["hidden_size"])
    original, emitted = build(**size), conversion.module()
    emitted.load_state_dict(original.state_dict())
    assert torch.equal(run(emitted, ids, precision), run(original, ids, precision))
