"""The three forms are one parametrization: they train alike, to the last digits of float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mufx
from mufx.api import Conversion

FORMS = ("table3", "table8", "table9")
STEPS = 5


class Net(nn.Module):
    """Unequal widths, a norm, attention with growing heads' size, biases, a readout."""

    def __init__(self, width: int, inner: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.first = nn.Linear(6, width)
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.up = nn.Linear(width, inner)
        self.down = nn.Linear(inner, width)
        self.last = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        parts = self.qkv(self.norm(x)).chunk(3, -1)
        q, k, v = (p.unflatten(-1, (self.heads, -1)).transpose(1, 2) for p in parts)
        x = x + F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + self.down(F.gelu(self.up(x)))
        out: Tensor = self.last(x)
        return out


class Tied(nn.Module):
    """A tied embedding, with a norm before the readout."""

    def __init__(self, width: int, inner: int, heads: int) -> None:
        super().__init__()
        del heads
        self.embedding = nn.Embedding(11, width)
        self.up = nn.Linear(width, inner)
        self.down = nn.Linear(inner, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embedding((x[..., 0] > 0).long() + 3)
        h = h + self.down(F.gelu(self.up(h)))
        return F.linear(self.norm(h), self.embedding.weight)


class Listed(nn.Module):
    """Parameters in lists: of a recurrent layer, and a token that is concatenated."""

    def __init__(self, width: int, inner: int, heads: int) -> None:
        super().__init__()
        del heads
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.first = nn.Linear(6, width)
        self.fixed = nn.LSTM(6, inner, batch_first=True)
        self.recurrent = nn.GRU(width, inner, batch_first=True, bias=False)
        self.last = nn.Linear(inner, 3)

    def forward(self, x: Tensor) -> Tensor:
        fixed, _ = self.fixed(x)
        token = self.token.expand(x.shape[0], -1, -1)
        grown, _ = self.recurrent(torch.cat([token, self.first(x)], 1))
        out: Tensor = self.last(fixed + grown[:, 1:])
        return out


OPTIMIZERS: dict[str, tuple[str, Callable[[Any], torch.optim.Optimizer], dict[str, Any]]] = {
    "sgd": (
        "sgd",
        lambda groups: torch.optim.SGD(groups, momentum=0.9, nesterov=True),
        {"lr": 0.02, "weight_decay": 0.1},
    ),
    "adam": ("adam", torch.optim.Adam, {"lr": 0.01, "eps": 1e-3}),
    "adamw": ("adamw", torch.optim.AdamW, {"lr": 0.01, "eps": 1e-3, "weight_decay": 0.1}),
}


def converted(model: type[nn.Module], form: str, optimizer: str) -> Conversion:
    return mufx.convert(
        model,
        (torch.zeros(2, 5, 6),),
        {"width": 8, "inner": 12, "heads": 2},
        {"width": 16, "inner": 60, "heads": 2},
        form=form,
        optimizer=optimizer,
    )


def outputs(model: type[nn.Module], form: str, optimizer: str) -> Tensor:
    name, make, values = OPTIMIZERS[optimizer]
    conversion = converted(model, form, name)
    module = conversion.module(seed=3).double()
    # The draws are in float32: start all forms from the same weights, exactly.
    reference = converted(model, "table3", name)
    start = reference.module(seed=3).double()
    for (key, parameter), first in zip(module.named_parameters(), start.parameters(), strict=True):
        mine, its = (c.manifest.parameters[key].clip_scale for c in (conversion, reference))
        parameter.data.copy_(first.data * (mine / its))
    opt = make(mufx.param_groups(module, conversion.manifest, **values))
    generator = torch.Generator().manual_seed(0)
    seen: list[Tensor] = []
    for _ in range(STEPS):
        x = torch.randn(4, 5, 6, generator=generator, dtype=torch.float64)
        out = module(x)
        seen.append(out.detach())
        opt.zero_grad()
        torch.autograd.backward((out - x.mean()).pow(2).mean())
        opt.step()
    return torch.stack(seen)


@pytest.mark.parametrize("form", FORMS[1:])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("model", [Net, Tied, Listed])
def test_forms_train_alike(model: type[nn.Module], optimizer: str, form: str) -> None:
    wanted = outputs(model, "table3", optimizer)
    assert (outputs(model, form, optimizer) - wanted).abs().max() < 1e-12
    assert (wanted[-1] - wanted[0]).abs().max() > 1e-2  # it did learn


def test_what_stands_in_a_list_has_the_numbers_of_table3() -> None:
    plain, other = (converted(Listed, form, "adamw").manifest for form in ("table3", "table9"))

    listed = {
        name: entry
        for name, entry in other.parameters.items()
        if name == "token" or name.startswith(("fixed.", "recurrent."))
    }
    assert len(listed) == 7
    for name, entry in listed.items():
        said = any("in a list" in reason for reason in entry.because)
        assert (entry.multiplier, entry.lr_scale) == (1.0, plain.parameters[name].lr_scale)
        assert said == (entry.role == "input")
    assert other.parameters["first.weight"].multiplier != 1.0
