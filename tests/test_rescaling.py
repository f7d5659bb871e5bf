"""Readouts whose size a norm takes back: they start like hidden weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mufx
from mufx.passes.prove import findings
from mufx.program import Program

Body = Callable[[Tensor], Tensor]


class Reading(nn.Module):
    """A projection to 8 numbers, something done to them, and a way back to the width."""

    def __init__(self, width: int, body: Body, bias: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, width)
        self.down = nn.Linear(width, 8, bias=bias)
        self.up = nn.Linear(8, width, bias=False)
        self.head = nn.Linear(width, 11, bias=False)
        self.body = body

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.relu(self.up(self.body(self.down(self.embed(tokens))))))
        return logits


def by_hand(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


def converted(body: Body, bias: bool = False, **options: str) -> Program:
    tokens = torch.zeros(2, 5, dtype=torch.long)
    build = partial(Reading, body=body, bias=bias)
    return mufx.convert(build, (tokens,), {"width": 16}, {"width": 64}, **options).program  # type: ignore[arg-type]


LOST: dict[str, Body] = {
    "rms_norm": lambda x: F.rms_norm(x, (8,)),
    "RMSNorm by hand": by_hand,
    "layer_norm behind a view": lambda x: F.layer_norm(x.view(2, 5, 2, 4), (4,)).flatten(-2),
    "unit length": lambda x: F.normalize(x, dim=-1),
    "of half as much": lambda x: by_hand(0.5 * x),
    "of a homogeneous function": lambda x: by_hand(torch.relu(x)),
}
KEPT: dict[str, Body] = {
    "read as it is": lambda x: x,
    "bent first": lambda x: by_hand(torch.tanh(x)),
    "read beside the norm": lambda x: by_hand(x) + x,
    "of a sum with something else": lambda x: by_hand(x + 1),
    "read for its shape": lambda x: x + torch.zeros_like(x),
    "chosen by": lambda x: F.one_hot(x.argmax(-1), 8).float(),
}


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("body", LOST.values(), ids=LOST)
def test_what_only_a_norm_reads_starts_like_a_hidden_weight(body: Body, optimizer: str) -> None:
    """Its update is 1/m_in of what it was, and so is its init to the square root of that."""
    program = converted(body, optimizer=optimizer)

    assert program.labels["down.weight"].role == "output"
    assert program.plan["down.weight"].init == pytest.approx(4**-0.5)
    assert program.plan["down.weight"].lr == pytest.approx(1 / 4)
    assert program.plan["head.weight"].init == pytest.approx(1 / 4)
    assert findings(program) == []


@pytest.mark.parametrize("body", KEPT.values(), ids=KEPT)
def test_what_is_read_otherwise_too_is_a_readout_like_any(body: Body) -> None:
    assert converted(body).plan["down.weight"].init == pytest.approx(1 / 4)


@pytest.mark.parametrize("form", ["table8", "table9"])
def test_no_form_gives_it_a_multiplier(form: str) -> None:
    plan = converted(by_hand, form=form).plan["down.weight"]

    assert (plan.multiplier, plan.init, plan.lr) == pytest.approx((1, 4**-0.5, 1 / 4))


def test_its_bias_keeps_its_scale() -> None:
    plan = converted(by_hand, bias=True).plan

    assert plan["down.weight"].init == pytest.approx(4**-0.5)
    assert (plan["down.bias"].init, plan["down.bias"].lr) == (1, 1)


def change_of_direction(width: int, start: float) -> float:
    """How far one step of Adam, lr 1/m_in, turns what the norm gives; the mean over 50 draws."""
    torch.manual_seed(0)
    found: list[float] = []
    for _ in range(50):
        x, to = torch.randn(1, width), torch.randn(8)
        weight = nn.Parameter(torch.randn(8, width) / width**0.5 * start)
        optimizer = torch.optim.Adam([weight], lr=1e-3 * 16 / width)
        before = by_hand(F.linear(x, weight))
        torch.autograd.backward((before * to).sum())
        optimizer.step()
        found.append(float((by_hand(F.linear(x, weight)) - before).detach().abs().mean()))
    return sum(found) / len(found)


def test_the_rule_keeps_what_is_learned_at_its_size() -> None:
    """Started m_in**-1/2 smaller, as a readout is, it would learn m_in**1/2 times as fast."""
    narrow, wide = change_of_direction(64, 1.0), change_of_direction(4096, 1.0)
    small = change_of_direction(4096, 64**-0.5) / change_of_direction(64, 1.0)

    assert wide / narrow == pytest.approx(1, rel=0.25)
    assert small == pytest.approx(8, rel=0.25)
