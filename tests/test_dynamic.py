"""The dynamic check of the converted examples, and that it sees what is broken.

Learning rates and batches were chosen after looking at results, so that what is measured is the
limit of large width and not the way to it:

- The encoder's first attention moves by 0.125 (1 - 2.9/sqrt(width)) at lr 1e-3, a fit to four
  widths: a slope of 0.15 that falls as width grows. Its embeddings, of size 0.02, have then moved
  by 0.75 of their size.
- Tokens that are looked at and were hardly learned from move only by what others taught, which is
  nearly orthogonal: an incoherent part that falls as 1/sqrt(width) and hides the coherent one. Of
  the Llama, with 256 kinds of tokens the median slope is -0.22, with 64 it is 0.03.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

import mufx
from mufx.api import Conversion, convert_source
from mufx.check.checking import checked
from mufx.check.experiment import planned
from mufx.check.predicting import of_converted
from mufx.check.request import Request, Variant
from mufx.check.result import Checked
from mufx.check.storage import Runs
from mufx.factory import place_of
from mufx.program import Program
from mufx.source import Source, load
from mufx.sweep.batches import Data

EXAMPLES = Path(__file__).parent.parent / "examples"
WIDTHS = (64, 128, 256, 512)

GROWS = 0.15  # a slope over its prediction that no change may exceed
MEDIAN = 0.1  # of the absolute slopes
BLOWS_UP = 0.5  # a slope that standard parametrization reaches somewhere

Convert = Callable[..., Conversion]


SYMBOLS = 64

# -- what is learned ----------------------------------------------------------------------------


def text(length: int) -> Callable[[int], Iterator[tuple[Tensor, Tensor]]]:
    """Bytes of which each follows from the last one, but for some noise, and the next ones."""

    def batches(rows: int) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            tokens = [torch.randint(SYMBOLS, (rows,))]
            for _ in range(length):
                tokens.append((5 * tokens[-1] + torch.randint(4, (rows,))) % SYMBOLS)
            stacked = torch.stack(tokens, dim=1)
            yield stacked[:, :-1].contiguous(), stacked[:, 1:].contiguous()

    return batches


def clouds(*shape: int) -> Callable[[int], Iterator[tuple[Tensor, Tensor]]]:
    """Points of 10 clouds in a space of some shape, and which cloud."""
    centres = torch.randn(10, *shape, generator=torch.Generator().manual_seed(99))

    def batches(rows: int) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            labels = torch.randint(10, (rows,))
            yield centres[labels] + 0.5 * torch.randn(rows, *shape), labels

    return batches


# -- the examples -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """An example, how it is widened, what it learns from, and how fast."""

    name: str
    base: Mapping[str, int]
    growing: tuple[str, ...]
    data: Callable[[int], object]
    lr: float
    batch: int

    def source(self) -> Source:
        """Eight times as wide at target."""
        wide = {name: value * 8 for name, value in self.base.items() if name in self.growing}
        return load(str(EXAMPLES / f"{self.name}.py"), self.base, {**self.base, **wide})

    def check(
        self, *variants: Variant, form: str = "table3", convert: Convert = convert_source
    ) -> Checked:
        """15 steps of AdamW on this case's batches at four widths, with three seeds."""
        request = Request(lr=self.lr, batch=self.batch, form=form, variants=variants)
        data = Data(self.data, place_of(self.data), self.name)
        made = planned(self.source(), request, data, convert=convert)
        return checked(made, partial(Runs, None))


CASES = {
    case.name: case
    for case in (
        Case("mlp", {"width": 64}, ("width",), clouds(32), 1e-2, 64),
        Case("gpt", {"n_embd": 64, "n_head": 2, "n_layer": 2}, ("n_embd",), text(16), 1e-3, 2),
        Case(
            "llama",
            {"dim": 64, "n_heads": 4, "n_kv_heads": 2, "hidden_dim": 160, "n_layers": 2},
            ("dim", "hidden_dim"),
            text(16),
            3e-3,
            2,
        ),
        Case("resnet", {"width": 16}, ("width",), clouds(3, 8, 8), 1e-2, 16),
        Case(
            "encoder",
            {"d_model": 64, "nhead": 4, "dim_feedforward": 128},
            ("d_model", "dim_feedforward"),
            text(16),
            5e-4,
            2,
        ),
    )
}
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

    found = of_converted(program, 8)

    assert {node: power for node, power in found.items() if power} == {"ln_f:layer_norm#1": -1}


# -- broken on purpose --------------------------------------------------------------------------


def departing(found: Checked) -> list[str]:
    """The nodes of the emitted module that depart, in the order of the graph."""
    return [row.node for row in found.departures if row.variant is Variant.MUP]


def passing(*broken: Callable[[Program], Program]) -> Convert:
    """A conversion in which something goes wrong after the proof."""
    return partial(convert_source, passes=(*mufx.PASSES, *broken))


def written(pattern: str, by: str) -> Convert:
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


@pytest.mark.zoo
def test_a_standard_attention_scale_is_seen_in_the_logits() -> None:
    """At three times the rate: queries and keys have to learn before their products grow."""
    case = replace(CASES["gpt"], lr=3e-3)
    logits = {f"h.{i}.attn:scaled_dot_product_attention#1/logits" for i in range(2)}

    assert logits <= set(departing(case.check(Variant.MUP, convert=attention)))
    assert case.check(Variant.MUP).passes
