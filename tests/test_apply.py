"""`mufx.apply`: the user's own class trains as the emitted module does, to the last digits."""

from __future__ import annotations

import copy

import pytest
import torch

import mufx
from tests.applying import BASE, apart, converted, factors, own, pair, train

ATTENTIONS = {
    "separate": {"q.weight": 0.5**0.5, "q.bias": 0.5**0.5},
    "spelled": {"q.weight": 0.5**0.5, "q.bias": 0.5**0.5},
    "normed": {"q_norm.weight": 0.5**0.5},
    "fused": {"qkv.weight": 0.5**0.25, "qkv.bias": 0.5**0.25, "out.weight": 2**0.25},
}


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_attention_factor_goes_to_queries(attention: str) -> None:
    manifest = converted(attention=attention).manifest
    wanted = {f"blocks.0.{name}": factor for name, factor in ATTENTIONS[attention].items()}
    assert factors(manifest) == pytest.approx(wanted)
    assert manifest.unabsorbed == ()


def test_tied_readout_goes_to_the_gain_before_it() -> None:
    manifest = converted(attention="separate").manifest
    assert "norm.weight" not in factors(manifest)  # the emitted module's is folded already
    assert mufx.applied(manifest).parameters["norm.weight"].init_correction == 0.25


@pytest.mark.parametrize(
    ("attention", "optimizer"),
    [*((attention, "adamw") for attention in ATTENTIONS), ("fused", "sgd"), ("normed", "adam")],
)
def test_trains_as_the_emitted_module_does(attention: str, optimizer: str) -> None:
    conversion = converted(optimizer, attention=attention)
    model, emitted, plan = pair(conversion, attention=attention)
    before = copy.deepcopy(model)
    train(model, plan, optimizer)
    train(emitted, conversion.manifest, optimizer)
    assert apart(model, emitted, conversion.manifest) < 1e-12
    moved = (p - q for p, q in zip(model.parameters(), before.parameters(), strict=True))
    assert max(float(m.detach().abs().max()) for m in moved) > 1e-3


@pytest.mark.parametrize("form", ["table8", "table9"])
def test_any_form_becomes_the_same_model_without_multipliers(form: str) -> None:
    conversion = converted(form=form)
    model, emitted, plan = pair(conversion)
    assert all(entry.multiplier == 1.0 for entry in plan.parameters.values())
    train(model, plan)
    train(emitted, conversion.manifest)
    assert apart(model, emitted, conversion.manifest) < 1e-12


def test_at_base_nothing_changes_at_all() -> None:
    manifest = converted(wide=False).manifest
    model, untouched = own(sizes=BASE), own(sizes=BASE)
    plan = mufx.apply(model, manifest)
    assert all(map(torch.equal, model.state_dict().values(), untouched.state_dict().values()))
    (group,) = mufx.param_groups(model, plan, lr=0.1, weight_decay=0.2, eps=0.3)
    assert (group["lr"], group["weight_decay"], group["eps"]) == (0.1, 0.2, 0.3)
