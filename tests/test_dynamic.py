"""The dynamic coordinate check of the converted examples, and that it sees what is broken.

Measured, as largest slope and median size, then the largest slope of the original at the same lr:

    mlp      lr 1e-2   0.02  0.016   0.77
    llama    lr 3e-3   0.02  0.079   2.70
    gpt      lr 3e-3   0.03  0.106   3.07    the median misses its bound
    encoder  lr 1e-3   0.15  0.070           0.154: the first attention misses its bound

Not explained yet. GPT at lr 5e-3 has a median of 0.178, at 1e-2 of 0.206; at 2e-2 it is 0.046, but
one projection grows by 0.25. Everything else that leaves 0 falls with width. Its `ln_f` falls by 1
by design: its gain holds the 1/m of the tied head. The encoder's first attention grows by 0.37 at
lr 3e-3. The ResNet was not measured. Of the corrections left out of the GPT (at lr 5e-3) only the
multiplier was seen: the init of one projection and the attention's scale were not.
"""

from __future__ import annotations

import importlib.util
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
from tests.coordinates import Sizes, Slopes, fit, train_and_record

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


def text(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Bytes of which each follows from the last one, but for some noise: (8, 32) and the next."""
    tokens = [torch.randint(256, (8,), generator=generator)]
    for _ in range(32):
        noise = torch.randint(4, (8,), generator=generator)
        tokens.append((5 * tokens[-1] + noise) % 256)
    stacked = torch.stack(tokens, dim=1)
    return stacked[:, :-1].contiguous(), stacked[:, 1:].contiguous()


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
        Case("gpt", lambda w: {"n_embd": w, "n_head": 2}, gpt, text, 3e-3),
        Case(
            "llama",
            lambda w: {"dim": w, "n_heads": 4, "n_kv_heads": 2, "hidden_dim": 5 * w // 2},
            llama,
            text,
            3e-3,
        ),
        Case("resnet", lambda w: {"width": w // 4}, plain("resnet", "ResNet"), images, 1e-2),
        Case(
            "encoder",
            lambda w: {"d_model": w, "nhead": 4, "dim_feedforward": 2 * w},
            plain("encoder", "Encoder"),
            text,
            1e-3,
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
    sizes: dict[int, list[Sizes]] = {}
    for width in widths:
        for seed in seeds:
            model, groups = make(width, seed)
            generator = torch.Generator().manual_seed(1000 + seed)
            batches = [case.batch(generator) for _ in range(STEPS)]
            probe = case.batch(generator)[:-1]
            optimizer = torch.optim.AdamW(groups, lr=case.lr, weight_decay=0.0)
            moved = train_and_record(model, optimizer, loss_of, batches, probe)
            sizes.setdefault(width, []).append(moved)
    return fit(sizes)


def standard(case: Case) -> Slopes:
    """The original, in standard parametrization."""

    def make(width: int, seed: int) -> tuple[nn.Module, list[dict[str, object]]]:
        torch.manual_seed(seed)
        model = case.build(**case.knobs(width))
        return model, [{"params": list(model.parameters())}]

    return measure(case, make)


def maximal_update(
    case: Case,
    edit: Callable[[mufx.Conversion], mufx.Conversion] = lambda conversion: conversion,
    rate: Callable[[str], float | None] = lambda _: None,
) -> Slopes:
    """The emitted model with its groups, or with `edit` done to it and `rate` as some scales."""
    conversions = {width: edit(converted(case, width)) for width in WIDTHS}

    def make(width: int, seed: int) -> tuple[nn.Module, list[dict[str, object]]]:
        conversion = conversions[width]
        model = conversion.module(seed=seed)
        groups: list[dict[str, object]] = [
            {"params": [p], "lr": case.lr * (conversion.manifest.parameters[name].lr_scale)}
            if rate(name) is None
            else {"params": [p], "lr": case.lr * (rate(name) or 0.0)}
            for name, p in model.named_parameters()
        ]
        return model, groups

    return measure(case, make)


def without(pattern: str, text: str = "") -> Callable[[mufx.Conversion], mufx.Conversion]:
    """Takes lines or arguments out of the emitted text, where it is wider than the base."""

    def edit(conversion: mufx.Conversion) -> mufx.Conversion:
        return replace(conversion, text=re.sub(pattern, text, conversion.text))

    return edit


def test_the_changes_of_the_mlp_keep_their_size() -> None:
    slopes = maximal_update(CASES["mlp"])

    assert slopes.above(GROWS) == {}
    assert slopes.median_size <= MEDIAN


@pytest.mark.zoo
@pytest.mark.parametrize("name", CASES)
def test_no_change_grows_with_width(name: str) -> None:
    assert maximal_update(CASES[name]).above(GROWS) == {}


@pytest.mark.zoo
@pytest.mark.parametrize("name", CASES)
def test_most_changes_keep_their_size(name: str) -> None:
    assert maximal_update(CASES[name]).median_size <= MEDIAN


@pytest.mark.zoo
@pytest.mark.parametrize("name", CASES)
def test_in_standard_parametrization_something_grows(name: str) -> None:
    assert standard(CASES[name]).largest >= BLOWS_UP


@pytest.mark.zoo
def test_a_wrong_learning_rate_group_is_seen() -> None:
    broken = maximal_update(CASES["mlp"], rate=lambda name: 1.0 if name == "fc2.weight" else None)

    assert broken.above(GROWS) != {}


@pytest.mark.zoo
@pytest.mark.parametrize(
    "pattern",
    [
        pytest.param(r"\n *block\.attn\.c_proj\.weight\.mul_.*", id="init"),
        pytest.param(r", scale=[0-9.e-]+", id="attention scale"),
        pytest.param(r"\n *self\.ln_f\.weight\.mul_.*", id="multiplier"),
    ],
)
def test_a_correction_left_out_is_seen(pattern: str) -> None:
    broken = maximal_update(CASES["gpt"], edit=without(pattern))

    assert broken.above(GROWS) != {}
