"""The dynamic check of the converted examples, and that it sees what is broken."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mufx
from mufx.api import Conversion, convert_source
from mufx.check.designing import by_design
from mufx.check.request import Variant
from mufx.check.result import Checked
from mufx.program import Program
from mufx.source import Source, from_callable
from tests.checks import CASES, Case, Convert

GROWS = 0.15  # a slope over its prediction that no change may exceed
MEDIAN = 0.1  # of the absolute slopes
BLOWS_UP = 0.5  # a slope that standard parametrization reaches somewhere

each = pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=name, marks=[] if name == "mlp" else [pytest.mark.zoo])
        for name, case in CASES.items()
    ],
)


@each
def test_mup_keeps_every_change_and_standard_parametrization_does_not(case: Case) -> None:
    found = case.check(*Variant)

    assert found.passes
    assert found.largest(Variant.MUP) <= GROWS
    assert found.median(Variant.MUP) <= MEDIAN
    assert found.largest(Variant.SP) >= BLOWS_UP


def test_the_prediction_of_a_tied_model_is_its_folded_readout() -> None:
    program = convert_source(CASES["gpt"].source()).program

    found = by_design(program, 8)

    assert {node: power for node, power in found.items() if power} == {"ln_f:layer_norm#1": -1}


class Decays(nn.Module):
    """A decay for every channel, -(1 ... dim), as Mamba 2 has one for every head."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.steps = nn.Linear(8, dim)
        self.log_decay = nn.Parameter(torch.log(torch.arange(1.0, dim + 1)))
        self.out = nn.Linear(dim, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(torch.exp(-self.log_decay.exp() * F.softplus(self.steps(x))))
        return out


def test_computed_values_that_are_kept_are_part_of_the_design() -> None:
    knobs = {"dim": 64}, {"dim": 512}
    source = from_callable(Decays, lambda n, dim: torch.randn(n, 8), *knobs)
    program = convert_source(source).program

    found = by_design(program, 8)

    assert {d.code for d in program.diagnostics} == {"MUF204"}
    (product,) = {node for node, power in found.items() if power}
    assert product == ":mul#1"
    assert found[product] == pytest.approx(1.0, abs=0.01)  # sqrt(mean of h**2) over 1 ... dim


# -- broken on purpose --------------------------------------------------------------------------


def departing(found: Checked) -> list[str]:
    """The nodes of the emitted module that depart, in the order of the graph."""
    return [row.node for row in found.departures if row.variant is Variant.MUP]


def passing(*broken: Callable[[Program], Program]) -> Convert:
    """A conversion in which something goes wrong after the proof."""
    return partial(convert_source, passes=(*mufx.PASSES, *broken))


def written(pattern: str, by: str | Callable[[re.Match[str]], str]) -> Convert:
    """A conversion in whose text something is replaced."""

    def convert(source: Source, optimizer: str, form: str) -> Conversion:
        made = convert_source(source, optimizer=optimizer, form=form)
        return replace(made, text=re.sub(pattern, by, made.text))

    return convert


def rate(program: Program) -> Program:
    """One learning rate as if the weight were no hidden one."""
    plan = program.plan
    return replace(program, plan={**plan, "fc2.weight": replace(plan["fc2.weight"], lr=1.0)})


def init(program: Program) -> Program:
    """One hidden weight that keeps the entries' size of base width."""
    factor = math.sqrt(program.labels["fc2.weight"].m_in)
    return replace(program, init_corrections={**program.init_corrections, "fc2.weight": factor})


multiplier = written(r" \* [0-9.]+(?=  # μP)", "")
attention = written(r", scale=[0-9.]+", "")
"""1/sqrt(d), torch's own scale, in the place of sqrt(d at base)/d."""


@pytest.mark.parametrize("broken", [rate, init])
def test_a_broken_rate_or_init_is_seen_at_its_weight(
    broken: Callable[[Program], Program],
) -> None:
    found = CASES["mlp"].check(Variant.MUP, Variant.APPLIED, convert=passing(broken))

    assert not found.passes
    assert departing(found)[0] == "fc2:linear#1"
    assert {row.variant for row in found.departures} == {Variant.MUP, Variant.APPLIED}


def test_a_missing_multiplier_is_seen_at_its_layer() -> None:
    case = CASES["mlp"]

    found = case.check(Variant.MUP, form="table8", convert=multiplier)

    assert departing(found) == ["out:linear#1"]
    assert case.check(Variant.MUP, form="table8").passes


# -- too small ----------------------------------------------------------------------------------


def slow(program: Program) -> Program:
    """One hidden weight that learns sqrt(m) too little."""
    own = program.plan["fc2.weight"]
    less = replace(own, lr=own.lr * program.labels["fc2.weight"].m_in ** -0.5)
    return replace(program, plan={**program.plan, "fc2.weight": less})


def small(program: Program) -> Program:
    """One hidden weight that starts sqrt(m) too small."""
    own = program.init_corrections["fc2.weight"]
    less = own * program.labels["fc2.weight"].m_in ** -0.5
    return replace(program, init_corrections={**program.init_corrections, "fc2.weight": less})


def squared(number: re.Match[str]) -> str:
    """A multiplier of 1/m as 1/m**2."""
    return f" * {float(number[1]) ** 2}"


def halved(number: re.Match[str]) -> str:
    """A scale of sqrt(d at base)/d, with d = head_dim at base * m, as one that falls further."""
    d_base = 32
    m = math.sqrt(d_base) / d_base / float(number[1])
    return f", scale={float(number[1]) * m**-0.5}"


def test_a_rate_too_small_is_seen_in_what_its_weight_alone_can_change() -> None:
    found = CASES["mlp"].check(Variant.MUP, convert=passing(slow))

    (row,) = found.departures
    assert row.node == "fc2:linear#1"
    assert row.learns_less is not None
    assert row.learns_less.parameter == "fc2.weight"
    assert row.learns_less.slope.value == pytest.approx(-0.5, abs=0.05)


def test_an_init_too_small_is_seen_at_its_weight() -> None:
    found = CASES["mlp"].check(Variant.MUP, convert=passing(small))

    assert departing(found)[0] == "fc2:linear#1"
    assert found.departures[0].starts_smaller


def test_a_multiplier_too_small_is_seen_at_its_layer() -> None:
    convert = written(r" \* ([0-9.]+)(?=  # μP)", squared)

    found = CASES["mlp"].check(Variant.MUP, form="table8", convert=convert)

    assert [row.node for row in found.departures if row.learns_less] == ["out:linear#1"]


def test_an_attention_scale_too_small_is_seen_in_the_logits() -> None:
    """A single step: how large logits start says it."""
    case = CASES["gpt"]
    convert = written(r", scale=([0-9.]+)", halved)

    found = case.check(Variant.MUP, convert=convert, seeds=1, steps=1)

    logits = [f"h.{i}.attn:scaled_dot_product_attention#1/logits" for i in range(2)]
    assert [row.node for row in found.departures if row.starts_smaller] == logits


@pytest.mark.zoo
def test_a_standard_attention_scale_is_seen_in_the_logits() -> None:
    """At three times the rate: queries and keys have to learn before their products grow."""
    case = replace(CASES["gpt"], lr=3e-3)
    logits = {f"h.{i}.attn:scaled_dot_product_attention#1/logits" for i in range(2)}

    found = departing(case.check(Variant.MUP, convert=attention))

    assert found  # of the first block it is too noisy to say
    assert set(found) <= logits
    assert case.check(Variant.MUP).passes
