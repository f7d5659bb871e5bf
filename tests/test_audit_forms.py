"""The audit sees through the form: what mufx emits is clean in each, and multipliers are named."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mufx
from mufx.api import Conversion
from mufx.auditing.records import AuditReport
from mufx.diagnostics import Severity
from mufx.factory import factory_of
from mufx.loading import import_file
from mufx.manifest import Manifest

EXAMPLES = Path(__file__).parent.parent / "examples"
PLAIN: dict[str, Any] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}
ROOTS = {"mlp": "MLP", "gpt": "GPT", "llama": "Llama", "resnet": "ResNet", "encoder": "Encoder"}

Knobs = tuple[tuple[str, int], ...]


# -- what mufx emits ----------------------------------------------------------------------------


@cache
def converted(example: str, knobs: Knobs, form: str, optimizer: str) -> Conversion:
    source: Any = import_file(EXAMPLES / f"{example}.py")
    root = getattr(source, ROOTS[example])
    return mufx.convert(
        root, source.example_inputs, source.base, dict(knobs), form=form, optimizer=optimizer
    )


def larger(example: str) -> list[Knobs]:
    """Target, and the two sizes beyond it that an audit from there looks at."""
    source: Any = import_file(EXAMPLES / f"{example}.py")
    steps = {k: source.target[k] / source.base[k] for k in source.base}
    return [
        tuple(sorted((k, round(source.base[k] * step**power)) for k, step in steps.items()))
        for power in (1, 2, 3)
    ]


def emitted(example: str, form: str, optimizer: str) -> AuditReport:
    """The audit of the emitted modules, with the groups of their manifests, from target on."""
    sizes = larger(example)
    classes: dict[Knobs, Callable[..., nn.Module]] = {}
    manifests: dict[object, Manifest] = {}
    for size in sizes:
        conversion = converted(example, size, form, optimizer)
        classes[size] = type(conversion.module(device="meta"))
        manifests[classes[size]] = conversion.manifest

    def build(**knobs: int) -> nn.Module:
        return classes[tuple(sorted(knobs.items()))](device="meta")

    def make(model: nn.Module) -> torch.optim.Optimizer:
        decay = 0.0 if optimizer == "adam" else 0.1
        groups = mufx.param_groups(model, manifests[type(model)], lr=1e-3, weight_decay=decay)
        made: torch.optim.Optimizer = PLAIN[optimizer](groups)
        return made

    source: Any = import_file(EXAMPLES / f"{example}.py")
    base, target = (dict(size) for size in sizes[:2])
    return mufx.audit(build, source.example_inputs, base, target, optimizer=make)


@pytest.mark.parametrize("optimizer", PLAIN)
@pytest.mark.parametrize("form", ["table3", "table8", "table9"])
def test_an_emitted_mlp_is_clean_in_every_form(form: str, optimizer: str) -> None:
    assert emitted("mlp", form, optimizer).findings == ()


@pytest.mark.zoo
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("form", ["table3", "table8", "table9"])
@pytest.mark.parametrize("example", ["gpt", "llama", "resnet", "encoder"])
def test_emitted_examples_are_clean_in_every_form(example: str, form: str, optimizer: str) -> None:
    assert emitted(example, form, optimizer).findings == ()


@pytest.mark.parametrize(
    "example",
    ["mlp", "gpt", *(pytest.param(n, marks=pytest.mark.zoo) for n in ("llama", "resnet"))],
)
def test_what_an_audit_asks_for_is_what_a_conversion_does(example: str) -> None:
    """The numbers of the findings are those of the manifest, in the form without multipliers."""
    source: Any = import_file(EXAMPLES / f"{example}.py")
    root = getattr(source, ROOTS[example])
    report = mufx.audit(root, source.example_inputs, source.base, source.target)
    target = tuple(sorted(source.target.items()))
    manifest = converted(example, target, "table3", "adamw").manifest
    folded = {n for n, e in manifest.parameters.items() if e.group.startswith("input-")}
    for name, entry in manifest.parameters.items():
        if name in folded:
            continue
        asked = {f.quantity.value: f for f in report.findings if f.parameter == name}
        for quantity, scale in (("lr", entry.lr_scale), ("weight decay", entry.weight_decay_scale)):
            assert scale == pytest.approx(asked[quantity].expected if quantity in asked else 1.0)
        if "init" in asked:
            found = asked["init"]
            assert found.expected_value / found.found_value == pytest.approx(entry.init_correction)
        else:
            assert entry.init_correction == pytest.approx(1.0)


# -- multipliers that a model carries -----------------------------------------------------------


def carried(report: AuditReport) -> set[tuple[str, float, float, float | None]]:
    """Kind, value at base and target, and the width at which it is 1."""
    return {
        (m.kind, round(m.base, 6), round(m.target, 6), m.implied_base and round(m.implied_base, 4))
        for m in report.multipliers
    }


def granite(logits: Callable[[int], float]) -> AuditReport:
    transformers = pytest.importorskip("transformers")

    def build(width: int, heads: int) -> nn.Module:
        config = transformers.GraniteConfig(
            vocab_size=64,
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=1,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            embedding_multiplier=12.0,
            residual_multiplier=0.22,
            attention_multiplier=math.sqrt(8) / (width // heads),
            logits_scaling=logits(width),
            tie_word_embeddings=False,
        )
        made: nn.Module = transformers.GraniteForCausalLM(config)
        return made

    inputs = {"input_ids": torch.zeros(2, 8, dtype=torch.long), "use_cache": False}
    return mufx.audit(build, inputs, {"width": 64, "heads": 4}, {"width": 256, "heads": 4})


def test_multipliers_of_granite_and_the_base_width_that_they_imply() -> None:
    report = granite(lambda width: width / 32)
    assert carried(report) == {
        ("embedding", 12.0, 12.0, None),
        ("residual", 0.22, 0.22, None),
        ("attention", round(8**0.5 / 16, 6), round(8**0.5 / 64, 6), 8.0),
        ("logit", 0.5, 0.125, 32.0),
    }
    assert report.parameters["lm_head.weight"].multiplier == pytest.approx(0.25)
    assert not [f for f in report.findings if f.parameter == "lm_head.weight"]


def test_a_logit_multiplier_that_stays_implies_another_base_width() -> None:
    report = granite(lambda _: 8.0)
    assert ("logit", 0.125, 0.125, 32.0) in carried(report)
    asked = {
        f.quantity.value: f.expected for f in report.findings if f.parameter == "lm_head.weight"
    }
    assert asked == {"init": 0.25, "lr": 0.25, "weight decay": 4.0}


class Embedder(nn.Module):
    """An embedding times sqrt(d), as in T5 and Gemma, and attention by hand."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.scale = math.sqrt(width)
        self.head = nn.Linear(width, 3, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens) * self.scale
        q, k, v = self.qkv(x).chunk(3, -1)
        scores = (q * 0.5) @ k.transpose(-2, -1) / self.scale**2
        out: Tensor = self.head(scores.softmax(-1) @ v)
        return out


def test_multipliers_that_are_spelled_out() -> None:
    tokens = (torch.zeros(2, 5, dtype=torch.long),)
    report = mufx.audit(Embedder, tokens, {"width": 16}, {"width": 64})
    assert carried(report) == {
        ("embedding", 4.0, 8.0, 1.0),
        ("attention", 0.5, 0.5, None),
        ("attention", 0.0625, 0.015625, 1.0),
    }
    wrong = [f for f in report.failing(Severity.ERROR) if f.quantity.value == "multiplier"]
    assert [(f.parameter, f.expected, f.found) for f in wrong] == [("embedding.weight", 1.0, 2.0)]


# -- a live model that mufx has put into μP -----------------------------------------------------


@pytest.mark.parametrize(
    "example",
    ["mlp", *(pytest.param(name, marks=pytest.mark.zoo) for name in ("gpt", "llama", "encoder"))],
)
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_an_applied_plan_is_clean(example: str, optimizer: str) -> None:
    """No number of the forward pass changes: attention's factor is in the weights before it."""
    source: Any = import_file(EXAMPLES / f"{example}.py")
    made = factory_of(getattr(source, ROOTS[example])).build
    sizes = larger(example)[:2]
    found = {size: converted(example, size, "table3", optimizer).manifest for size in sizes}
    plans = {size: mufx.applied(manifest) for size, manifest in found.items()}
    rates: dict[nn.Module, list[dict[str, Any]]] = {}

    def build(**knobs: int) -> nn.Module:
        model = made(**knobs)
        plan = plans.get(tuple(sorted(knobs.items())))
        rates[model] = [{"params": list(model.parameters())}]
        if plan is not None:
            with torch.no_grad():
                for name, entry in plan.parameters.items():
                    model.get_parameter(name).mul_(entry.init_correction)
            rates[model] = mufx.param_groups(model, plan, lr=1e-3, weight_decay=0.1)
        return model

    def make(model: nn.Module) -> torch.optim.Optimizer:
        kind: torch.optim.Optimizer = PLAIN[optimizer](rates[model], lr=1e-3, weight_decay=0.1)
        return kind

    report = mufx.audit(build, source.example_inputs, source.base, source.target, optimizer=make)
    assert report.findings == ()


# -- weights over their own size ----------------------------------------------------------------


class Standardized(nn.Module):
    """A hidden weight whose entries have size 1, with a factor before it or behind it."""

    def __init__(self, width: int, before: float, behind: float) -> None:
        super().__init__()
        m = width / 16
        self.before: float = m**before
        self.behind: float = m**behind
        self.first = nn.Linear(6, width, bias=False)
        self.norm = nn.LayerNorm(width)
        self.hidden = nn.Parameter(torch.randn(width, width) / width**0.5)
        self.last = nn.Parameter(torch.randn(3, width) / (4 * m))
        nn.init.constant_(self.norm.weight, self.before)

    def forward(self, x: Tensor) -> Tensor:
        rows = F.layer_norm(self.hidden, self.hidden.shape[1:])
        x = self.norm(self.first(x))
        return F.linear(F.linear(x, rows).mul(self.behind).relu(), self.last)

    def groups(self) -> list[dict[str, Any]]:
        """Table 3, and a norm that learns as it starts."""
        m = self.norm.weight.shape[0] / 16
        taken = dict.fromkeys(self.norm.parameters(), self.before)
        rates: dict[nn.Parameter, float] = {**taken, self.hidden: 1 / m, self.last: 1 / m}
        return [{"params": [p], "lr": 1e-3 * rates.get(p, 1.0)} for p in self.parameters()]


@pytest.mark.parametrize(
    ("before", "behind", "codes"),
    [
        pytest.param(0.0, -0.5, set(), id="behind it"),
        pytest.param(-0.5, 0.0, set(), id="in the gain before it"),
        pytest.param(0.0, 0.0, {"MUF612"}, id="nowhere"),
    ],
)
def test_a_standardized_weight_lacks_a_factor_that_may_be_before_it(
    before: float, behind: float, codes: set[str]
) -> None:
    def build(width: int) -> Standardized:
        return Standardized(width, before, behind)

    def optimizer(model: nn.Module) -> torch.optim.Optimizer:
        assert isinstance(model, Standardized)
        return torch.optim.Adam(model.groups(), eps=1e-12)

    report = mufx.audit(
        build, (torch.zeros(2, 6),), {"width": 16}, {"width": 64}, optimizer=optimizer
    )
    assert {f.code for f in report.failing(Severity.WARNING)} == codes
