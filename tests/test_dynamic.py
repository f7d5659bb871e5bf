"""The dynamic coordinate check of the converted examples, and that it sees what is broken.

A slope is that of the size of a change over width, in log-log coordinates, less what the static
calculation predicts: 0 everywhere, but -1 for a final norm whose gain holds a tied readout's 1/m.

Learning rates and batches were chosen after looking at results, so that what is measured is the
limit of large width and not the way to it:

- The encoder's first attention moves by 0.125 (1 - 2.9/sqrt(width)) at lr 1e-3, a fit to four
  widths: a slope of 0.15 that falls as width grows. Its embeddings, of size 0.02, have then moved
  by 0.75 of their size. At 5e-4 the largest slope of all nodes is 0.07.
- Updates of many different tokens are nearly orthogonal in a narrow model. Their incoherent part
  falls as 1/sqrt(width) and hides the coherent part that stays: of the GPT, 256 tokens a batch
  give a median slope of 0.11, 32 tokens one of 0.06.
"""

from __future__ import annotations

import importlib.util
import math
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mufx
from mufx.passes.prove import sizes
from tests.coordinates import Sizes, Slopes, fit, sizes_at_start, train_and_record

EXAMPLES = Path(__file__).parent.parent / "examples"
WIDTHS = (64, 128, 256, 512)
STEPS = 15
SEEDS = (0, 1, 2)

GROWS = 0.15  # a slope that no activation may exceed
MEDIAN = 0.1  # of the absolute slopes
BLOWS_UP = 0.5  # a slope that standard parametrization reaches somewhere


@dataclass(frozen=True)
class Case:
    """An example, how it is widened, and what it learns from.

    Attributes:
        name: The file of the example.
        knobs: The knobs at a width.
        build: The example's class, called with the knobs.
        batch: One batch of a seed's task, labels last.
        lr: The learning rate at base width.
    """

    name: str
    knobs: Callable[[int], Mapping[str, int]]
    build: Callable[..., nn.Module]
    batch: Callable[[torch.Generator], tuple[Tensor, ...]]
    lr: float


@cache
def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"dynamic_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def gpt(**knobs: int) -> nn.Module:
    module = example("gpt")
    made: nn.Module = module.GPT(module.GPTConfig(n_layer=2, **knobs))
    return made


def llama(**knobs: int) -> nn.Module:
    module = example("llama")
    made: nn.Module = module.Llama(module.LlamaConfig(n_layers=2, **knobs))
    return made


def plain(name: str, root: str) -> Callable[..., nn.Module]:
    def build(**knobs: int) -> nn.Module:
        made: nn.Module = getattr(example(name), root)(**knobs)
        return made

    return build


def text(rows: int, length: int) -> Callable[[torch.Generator], tuple[Tensor, Tensor]]:
    """Bytes of which each follows from the last one, but for some noise, and the next ones."""

    def batch(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        tokens = [torch.randint(256, (rows,), generator=generator)]
        for _ in range(length):
            noise = torch.randint(4, (rows,), generator=generator)
            tokens.append((5 * tokens[-1] + noise) % 256)
        stacked = torch.stack(tokens, dim=1)
        return stacked[:, :-1].contiguous(), stacked[:, 1:].contiguous()

    return batch


def points(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Points of 10 clouds: (64, 32), and which cloud."""
    labels = torch.randint(10, (64,), generator=generator)
    centres = torch.randn(10, 32, generator=torch.Generator().manual_seed(99))
    return centres[labels] + 0.5 * torch.randn(64, 32, generator=generator), labels


def images(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Noisy pictures of 10 kinds: (16, 3, 8, 8), and which kind."""
    labels = torch.randint(10, (16,), generator=generator)
    kinds = torch.randn(10, 3, 8, 8, generator=torch.Generator().manual_seed(99))
    return kinds[labels] + 0.5 * torch.randn(16, 3, 8, 8, generator=generator), labels


CASES = {
    case.name: case
    for case in (
        Case("mlp", lambda w: {"width": w}, plain("mlp", "MLP"), points, 1e-2),
        Case("gpt", lambda w: {"n_embd": w, "n_head": 2}, gpt, text(2, 16), 1e-3),
        Case(
            "llama",
            lambda w: {"dim": w, "n_heads": 4, "n_kv_heads": 2, "hidden_dim": 5 * w // 2},
            llama,
            text(8, 32),
            3e-3,
        ),
        Case("resnet", lambda w: {"width": w // 4}, plain("resnet", "ResNet"), images, 1e-2),
        Case(
            "encoder",
            lambda w: {"d_model": w, "nhead": 4, "dim_feedforward": 2 * w},
            plain("encoder", "Encoder"),
            text(8, 32),
            5e-4,
        ),
    )
}


def loss_of(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
    """The cross-entropy of the model's logits, its first output."""
    *inputs, labels = batch
    output = model(*inputs)
    logits = output[0] if isinstance(output, tuple) else output
    return F.cross_entropy(logits.flatten(0, -2), labels.flatten())


def converted(case: Case, width: int) -> mufx.Conversion:
    base, target = case.knobs(WIDTHS[0]), case.knobs(width)
    vary = [] if width > WIDTHS[0] else [k for k in base if base[k] != case.knobs(2 * width)[k]]
    inputs = tuple(case.batch(torch.Generator())[:-1])
    return mufx.convert(case.build, inputs, base, target, vary=vary)


def measure(
    case: Case,
    make: Callable[[int, int], tuple[nn.Module, list[dict[str, object]]]],
    seeds: tuple[int, ...] = SEEDS,
    widths: tuple[int, ...] = WIDTHS,
) -> Slopes:
    """Slopes of what `make(width, seed)` returns: a model and the groups of its parameters."""
    moved: dict[int, list[Sizes]] = {}
    for width in widths:
        for seed in seeds:
            model, groups = make(width, seed)
            generator = torch.Generator().manual_seed(1000 + seed)
            batches = [case.batch(generator) for _ in range(STEPS)]
            probe = case.batch(generator)[:-1]
            optimizer = torch.optim.AdamW(groups, lr=case.lr, weight_decay=0.0)
            sizes_of = train_and_record(model, optimizer, loss_of, batches, probe)
            moved.setdefault(width, []).append(sizes_of)
    return fit(moved)


Alter = Callable[[nn.Module, dict[str, float], float], None]
"""Breaks a model or its learning-rate scales, given how many times as wide as the base it is."""


def unaltered(_model: nn.Module, _rates: dict[str, float], _m: float) -> None:
    """Leaves it as it was converted."""


def starts(case: Case, alter: Alter) -> Slopes:
    """Slopes of the activations themselves, as the emitted model is initialised."""
    moved: dict[int, list[Sizes]] = {}
    for width in WIDTHS:
        conversion = converted(case, width)
        for seed in SEEDS:
            model = conversion.module(seed=seed)
            alter(model, {}, width / WIDTHS[0])
            probe = case.batch(torch.Generator().manual_seed(seed))[:-1]
            moved.setdefault(width, []).append(sizes_at_start(model, probe))
    return fit(moved)


def standard(case: Case) -> Slopes:
    """The original, in standard parametrization."""

    def make(width: int, seed: int) -> tuple[nn.Module, list[dict[str, object]]]:
        torch.manual_seed(seed)
        model = case.build(**case.knobs(width))
        return model, [{"params": list(model.parameters())}]

    return measure(case, make)


def maximal_update(
    case: Case,
    alter: Alter = unaltered,
    edit: Callable[[mufx.Conversion], mufx.Conversion] = lambda conversion: conversion,
) -> Slopes:
    """The emitted model with its learning rates, beside what is predicted of it."""
    conversions = {width: edit(converted(case, width)) for width in WIDTHS}

    def make(width: int, seed: int) -> tuple[nn.Module, list[dict[str, object]]]:
        conversion = conversions[width]
        model = conversion.module(seed=seed)
        rates = {n: entry.lr_scale for n, entry in conversion.manifest.parameters.items()}
        alter(model, rates, width / WIDTHS[0])
        return model, [
            {"params": [p], "lr": case.lr * rates[name]} for name, p in model.named_parameters()
        ]

    widest = WIDTHS[-1]
    design = {
        name: math.log(ratio) / math.log(widest / WIDTHS[0])
        for name, ratio in sizes(conversions[widest].program).items()
    }
    return measure(case, make).beside(design)


def test_the_prediction_of_a_tied_model_is_its_folded_readout() -> None:
    found = sizes(converted(CASES["gpt"], 512).program)
    assert {name: ratio for name, ratio in found.items() if ratio != 1} == {
        "ln_f": pytest.approx(1 / 8)
    }


def test_the_changes_of_the_mlp_keep_their_size() -> None:
    slopes = maximal_update(CASES["mlp"])

    assert slopes.above(GROWS) == {}
    assert slopes.median_size <= MEDIAN


@pytest.mark.zoo
@pytest.mark.parametrize("name", CASES)
def test_no_change_grows_with_width_and_most_keep_their_size(name: str) -> None:
    slopes = maximal_update(CASES[name])

    assert slopes.above(GROWS) == {}
    assert slopes.median_size <= MEDIAN


@pytest.mark.zoo
@pytest.mark.parametrize("name", CASES)
def test_no_activation_starts_larger_in_a_wider_model(name: str) -> None:
    assert starts(CASES[name], unaltered).above(GROWS) == {}


@pytest.mark.zoo
@pytest.mark.parametrize("name", CASES)
def test_in_standard_parametrization_something_grows(name: str) -> None:
    assert standard(CASES[name]).largest >= BLOWS_UP


def learning_rate(_model: nn.Module, rates: dict[str, float], _m: float) -> None:
    rates["fc2.weight"] = 1.0


@torch.no_grad()
def init(model: nn.Module, _rates: dict[str, float], m: float) -> None:
    """A hidden weight that keeps the entries' size of base width."""
    model.get_parameter("fc2.weight").mul_(m**0.5)


@torch.no_grad()
def multiplier(model: nn.Module, _rates: dict[str, float], m: float) -> None:
    model.get_parameter("ln_f.weight").mul_(m)


@pytest.mark.zoo
@pytest.mark.parametrize(
    ("name", "alter", "seen"),
    [
        ("mlp", learning_rate, "fc2"),
        ("gpt", multiplier, "lm_head"),
    ],
)
def test_what_is_broken_is_seen_where_it_is(name: str, alter: Alter, seen: str) -> None:
    assert seen in maximal_update(CASES[name], alter).above(GROWS)


def test_a_broken_init_is_seen_before_any_training() -> None:
    assert starts(CASES["mlp"], unaltered).above(GROWS) == {}
    assert set(starts(CASES["mlp"], init).above(GROWS)) == {"fc2"}


def with_standard_attention(conversion: mufx.Conversion) -> mufx.Conversion:
    """1/sqrt(d), torch's own scale, in the place of sqrt(d at base)/d."""
    text, count = re.subn(r", scale=[0-9.]+", "", conversion.text)
    assert count == min(1, len(conversion.program.changes))  # one class for all blocks
    return replace(conversion, text=text)


@pytest.mark.zoo
def test_a_broken_attention_scale_is_seen_in_the_logits() -> None:
    """At three times the rate: queries and keys have to learn before their products grow."""
    case = replace(CASES["gpt"], lr=3e-3)
    logits = {"logits of attention 0", "logits of attention 1"}
    assert logits & maximal_update(case).above(GROWS).keys() == set()
    assert logits <= maximal_update(case, edit=with_standard_attention).above(GROWS).keys()
