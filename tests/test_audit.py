"""The audit: real bugs of μP implementations, each beside the same one without it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mup
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mufx
from mufx.auditing.groups import read
from mufx.auditing.records import AuditReport
from mufx.diagnostics import Severity
from mufx.loading import import_file

GPT = import_file(Path(__file__).parent / "models" / "mup_gpt.py")
BASE, WIDTH = 16, 64  # m = 4
SIZES = ({"width": BASE}, {"width": WIDTH})

Powers = Mapping[str, float]
Deviation = tuple[str, str | None, float, float]


def deviations(report: AuditReport) -> set[Deviation]:
    """Quantity, parameter, expected and found of what fails."""
    return {
        (f.quantity.value, f.parameter, round(f.expected, 6), round(f.found, 6))
        for f in report.failing(Severity.WARNING)
    }


def codes(report: AuditReport) -> set[str]:
    return {f.code for f in report.failing(Severity.WARNING)}


# -- implementations by hand --------------------------------------------------------------------


class Net(nn.Module):
    """An input layer, a hidden and a readout, all of std 0.1."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(6, width)
        self.hidden = nn.Linear(width, width)
        self.last = nn.Linear(width, 3)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(F.relu(self.hidden(F.relu(self.first(x)))))
        return out


class ConvNet(nn.Module):
    """A stem, a hidden convolution and a readout."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3)
        self.conv = nn.Conv2d(width, width, 3, bias=False)
        self.last = nn.Linear(width, 3)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(F.relu(self.stem(x))))
        out: Tensor = self.last(x.mean((2, 3)))
        return out


class Einsum(nn.Module):
    """A hidden weight of three axes: four heads of a quarter of the width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(6, width)
        self.heads = nn.Parameter(torch.empty(4, width // 4, width))
        self.last = nn.Linear(width, 3)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.1)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.einsum("bi,hoi->bho", self.first(x), self.heads).flatten(1)
        out: Tensor = self.last(F.relu(h))
        return out


class Experts(nn.Module):
    """Four experts, mixed by a router."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(6, width)
        self.router = nn.Linear(width, 4, bias=False)
        self.up = nn.Parameter(torch.empty(4, width, width))
        self.last = nn.Linear(width, 3)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        weights = self.router(x).softmax(-1)
        each = torch.einsum("bi,eoi->beo", x, self.up)
        out: Tensor = self.last(F.relu((each * weights.unsqueeze(-1)).sum(1)))
        return out


def rows(batch: int = 2) -> tuple[Tensor]:
    return (torch.randn(batch, 6),)


def images(batch: int = 2) -> tuple[Tensor]:
    return (torch.randn(batch, 3, 8, 8),)


CASES: dict[str, tuple[Callable[[int], nn.Module], Callable[[int], tuple[Tensor]], str]] = {
    "net": (Net, rows, "hidden.weight"),
    "conv": (ConvNet, images, "conv.weight"),
    "einsum": (Einsum, rows, "heads"),
    "experts": (Experts, rows, "up"),
}


def multiplier(model: nn.Module) -> float:
    return model.get_parameter("last.weight").shape[1] / BASE


def audited(
    case: str,
    init: Powers,
    lr: Powers,
    kind: Callable[..., torch.optim.Optimizer] = torch.optim.AdamW,
    decay: Powers | None = None,
) -> AuditReport:
    """An implementation whose inits and learning rates are these powers of the width."""
    make, inputs, _ = CASES[case]

    def build(width: int) -> nn.Module:
        model = make(width)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.mul_((width / BASE) ** init.get(name, 0.0))
        return model

    def optimizer(model: nn.Module) -> torch.optim.Optimizer:
        m = multiplier(model)
        groups: list[dict[str, Any]] = [
            {
                "params": [p],
                "lr": 1e-3 * m ** lr.get(n, 0.0),
                "weight_decay": 0.1
                * m ** (-lr.get(n, 0.0) if decay is None else decay.get(n, 0.0)),
            }
            for n, p in model.named_parameters()
        ]
        return kind(groups, lr=1e-3)

    return mufx.audit(build, inputs, *SIZES, optimizer=optimizer)


def table3(case: str) -> tuple[dict[str, float], dict[str, float]]:
    """The right powers for Adam: hidden and readout."""
    hidden = CASES[case][2]
    readouts = {"last.weight", *(["router.weight"] if case == "experts" else [])}
    init = {hidden: -0.5, **dict.fromkeys(readouts, -1.0)}
    return init, {hidden: -1.0, **dict.fromkeys(readouts, -1.0)}


@pytest.mark.parametrize("case", CASES)
def test_table_3_by_hand_is_clean(case: str) -> None:
    report = audited(case, *table3(case))
    assert deviations(report) == set()
    assert report.ok


def test_table_9_by_hand_is_clean() -> None:
    """Multipliers sqrt(m) after the embedding and 1/sqrt(m) before the readout."""

    class Table9(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.m = width / BASE
            self.embedding = nn.Embedding(11, width)
            self.hidden = nn.Linear(width, width, bias=False)
            self.last = nn.Linear(width, 3, bias=False)
            nn.init.normal_(self.embedding.weight, std=0.1 * self.m**-0.5)
            nn.init.normal_(self.hidden.weight, std=0.1 * self.m**-0.5)
            nn.init.normal_(self.last.weight, std=0.1 * self.m**-0.5)

        def forward(self, tokens: Tensor) -> Tensor:
            x = self.embedding(tokens) * self.m**0.5
            out: Tensor = self.last(F.relu(self.hidden(x)) * self.m**-0.5)
            return out

    def optimizer(model: nn.Module) -> torch.optim.Optimizer:
        m = multiplier(model)
        rates = {"embedding.weight": m**-0.5, "hidden.weight": 1 / m, "last.weight": m**-0.5}
        return torch.optim.AdamW(
            [
                {"params": [p], "lr": 1e-3 * rates[n], "weight_decay": 0.1 / rates[n]}
                for n, p in model.named_parameters()
            ]
        )

    tokens = (torch.zeros(2, 5, dtype=torch.long),)
    report = mufx.audit(Table9, tokens, *SIZES, optimizer=optimizer)
    assert deviations(report) == set()
    multipliers = {n: p.multiplier for n, p in report.parameters.items()}
    assert multipliers == {
        "embedding.weight": pytest.approx(2.0),
        "hidden.weight": 1.0,
        "last.weight": pytest.approx(0.5),
    }


def test_an_input_layer_treated_as_hidden() -> None:
    init, lr = table3("net")
    report = audited("net", {**init, "first.weight": -0.5}, {**lr, "first.weight": -1.0}, decay={})
    assert ("init", "first.weight", 1.0, 0.5) in deviations(report)
    assert ("lr", "first.weight", 1.0, 0.25) in deviations(report)
    (finding,) = (f for f in report.findings if f.code == "MUF611")
    assert "the rule for hidden does not fit" in finding.hint
    assert finding.place is not None
    assert Path(finding.place.file) == Path(__file__)


@pytest.mark.parametrize("case", ["conv", "einsum"])
def test_a_hidden_weight_treated_as_input(case: str) -> None:
    init, lr = table3(case)
    hidden = CASES[case][2]
    report = audited(case, init, {k: v for k, v in lr.items() if k != hidden}, decay={})
    assert ("lr", hidden, 0.25, 1.0) in deviations(report)
    assert {p for q, p, *_ in deviations(report) if q == "lr"} == {hidden}


def test_a_router_treated_as_hidden() -> None:
    init, lr = table3("experts")
    report = audited("experts", {**init, "router.weight": -0.5}, lr)
    assert deviations(report) == {("init", "router.weight", 0.25, 0.5)}
    assert "is the rule for hidden, and this one reads out" in report.findings[0].hint


SGD = {"first.weight": 1.0, "first.bias": 1.0, "hidden.bias": 1.0, "last.weight": -1.0}


def test_sgd_by_hand_is_clean() -> None:
    assert deviations(audited("net", table3("net")[0], SGD, torch.optim.SGD)) == set()


def test_adam_rules_applied_to_sgd() -> None:
    report = audited("net", *table3("net"), torch.optim.SGD, decay={})
    rates = {d for d in deviations(report) if d[0] == "lr"}
    assert rates == {
        ("lr", "first.weight", 4.0, 1.0),
        ("lr", "first.bias", 4.0, 1.0),
        ("lr", "hidden.weight", 1.0, 0.25),
        ("lr", "hidden.bias", 4.0, 1.0),
    }
    assert any("is the rule for Adam" in f.hint for f in report.findings)


def test_sgd_rules_applied_to_adam() -> None:
    report = audited("net", table3("net")[0], SGD, decay={})
    rates = {d for d in deviations(report) if d[0] == "lr"}
    assert rates == {
        ("lr", "first.weight", 1.0, 4.0),
        ("lr", "first.bias", 1.0, 4.0),
        ("lr", "hidden.weight", 0.25, 1.0),
        ("lr", "hidden.bias", 1.0, 4.0),
    }
    assert any("is the rule for SGD" in f.hint for f in report.findings)


def test_sgd_of_table_8_without_its_multiplier() -> None:
    """Init 1 and rate m of the readout go together: what is missing is the factor 1/m."""
    init = {"hidden.weight": -0.5}
    report = audited("net", init, {**SGD, "last.weight": 1.0}, torch.optim.SGD)
    assert deviations(report) == {("multiplier", "last.weight", 0.25, 1.0)}


# -- a transformer in the form of Table 8 -------------------------------------------------------


def gpt(make_optimizer: Callable[..., object] = GPT.optimizer, **wrong: object) -> AuditReport:
    def build(width: int, heads: int) -> nn.Module:
        model: nn.Module = GPT.GPT(width, heads, depth=1, **wrong)
        return model

    return mufx.audit(build, GPT.example_inputs, GPT.base, GPT.target, optimizer=make_optimizer)


@pytest.mark.parametrize("tied", [False, True])
def test_a_gpt_in_table_8_is_clean(tied: bool) -> None:
    report = gpt(tied=tied)
    assert report.ok
    assert codes(report) == set()
    assert [f.code for f in report.findings] == ["MUF614"]  # a note: eps is constant


def test_table_8_multiplier_with_table_3_learning_rate() -> None:
    def optimizer(model: Any) -> torch.optim.Optimizer:
        groups = GPT.groups(model)
        groups[1]["params"] = [p for p in groups[1]["params"] if p is not model.head.weight]
        lr = groups[0]["lr"]
        return torch.optim.AdamW(
            [*groups, {"params": [model.head.weight], "lr": lr, "weight_decay": 0.1}]
        )

    report = gpt(optimizer)
    assert deviations(report) == {("lr", "head.weight", 1.0, 0.25)}
    assert "goes with Table 3" in report.findings[0].hint


def test_a_multiplier_that_is_missing() -> None:
    report = gpt(readout=0.0)
    assert deviations(report) == {("multiplier", "head.weight", 0.25, 1.0)}
    assert report.findings[0].where == "readout"
    assert report.findings[0].ratio == pytest.approx(4.0)


def test_one_over_sqrt_d_left_in_place() -> None:
    report = gpt(attention=-0.5, constant=1.0)
    assert codes(report) == {"MUF612"}
    first = report.findings[0]
    assert first.where == "attention logits"
    assert first.ratio == pytest.approx(2**0.5)
    assert first.expected_value == pytest.approx(GPT.BASE_HEAD**0.5 / 32)
    assert first.found_value == pytest.approx(32**-0.5)
    assert first.place is not None
    assert first.place.file.endswith("mup_gpt.py")


def test_one_over_d_without_the_constant_of_base_width() -> None:
    report = gpt(constant=1.0)
    assert codes(report) == {"MUF615"}
    assert report.findings[0].severity is Severity.WARNING
    assert report.findings[0].expected_value == pytest.approx(GPT.BASE_HEAD**0.5 / 32)


def test_a_rescaled_tied_embedding() -> None:
    """What mup's shared readout does to the embedding: it multiplies it by sqrt(m)."""
    report = gpt(tied=True, embedding_std=0.5)
    assert deviations(report) == {("init", "token.weight", 1.0, 2.0)}
    assert "do not rescale it as a readout" in report.findings[0].hint


class Tied(nn.Module):
    """A table that reads out as well, with a bias."""

    def __init__(self, width: int, std: float) -> None:
        super().__init__()
        self.table = nn.Embedding(10, width)
        self.norm = nn.LayerNorm(width)
        self.last = nn.Linear(width, 10)
        self.last.weight = self.table.weight
        nn.init.normal_(self.table.weight, std=0.02)
        nn.init.normal_(self.last.bias, std=std)

    def forward(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.last(self.norm(self.table(tokens)))
        return out


@pytest.mark.parametrize("std", [0.0, 0.1])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_the_factor_of_a_tied_readout_belongs_to_its_weight(std: float, optimizer: str) -> None:
    def build(width: int) -> nn.Module:
        return Tied(width, std)

    report = mufx.audit(build, GPT.example_inputs, *SIZES, optimizer=optimizer)
    (finding,) = [f for f in report.findings if f.code == "MUF612"]
    assert (finding.parameter, finding.role) == ("table.weight", "input")
    assert (finding.expected, finding.found, finding.where) == (0.25, 1.0, "readout")
    assert "what table.weight makes" in finding.hint
    assert finding.place is not None
    assert finding.place.module == "last"


def test_a_factor_that_only_a_bias_lacks_belongs_to_the_bias() -> None:
    init, lr = table3("net")
    report = audited("net", {**init, "last.bias": 1.0}, {**lr, "last.bias": 1.0})
    assert ("multiplier", "last.bias", 0.25, 1.0) in deviations(report)


def test_inactive() -> None:
    def optimizer(model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.AdamW(model.parameters(), weight_decay=0.0)

    report = gpt(optimizer)
    assert report.findings[0].code == "MUF616"
    assert {d for d in deviations(report) if d[0] == "lr"} == {
        ("lr", name, 0.25, 1.0) for name, _ in GPT.hidden(GPT.GPT(depth=1))
    }
    assert report.sizes == {"activation": pytest.approx(4.0)}


def test_weight_decay_that_is_not_compensated() -> None:
    report = gpt(lambda model: torch.optim.AdamW(GPT.groups(model, compensated=False)))
    assert deviations(report) == {
        ("weight decay", name, 4.0, 1.0) for name, _ in GPT.hidden(GPT.GPT(depth=1))
    }


def test_a_scheduler_that_flattens_the_groups() -> None:
    def optimizer(model: Any) -> object:
        made = torch.optim.AdamW(GPT.groups(model, decay=0.0))
        return made, torch.optim.lr_scheduler.OneCycleLR(made, max_lr=1e-2, total_steps=10)

    def each(model: Any) -> object:
        groups = GPT.groups(model)
        made = torch.optim.AdamW(groups)
        rates = [10 * g["lr"] for g in groups]
        return made, torch.optim.lr_scheduler.OneCycleLR(made, max_lr=rates, total_steps=10)

    report = gpt(optimizer)
    assert report.findings[0].code == "MUF617"
    assert "OneCycleLR" in report.findings[0].hint
    assert "were made with learning rates 0.001, 0.00025" in report.findings[0].message
    assert gpt(each).ok


def test_a_tensor_shared_by_the_groups() -> None:
    def shared(model: Any) -> torch.optim.Optimizer:
        rate = torch.tensor(1e-3)
        made = torch.optim.AdamW([{**g, "lr": rate} for g in GPT.groups(model, decay=0.0)])
        made.param_groups[0]["lr"] *= 32 / model.norm.weight.shape[0]
        return made

    def apart(model: Any) -> torch.optim.Optimizer:
        groups = GPT.groups(model)
        return torch.optim.AdamW([{**g, "lr": torch.tensor(g["lr"])} for g in groups])

    report = gpt(shared)
    assert report.findings[0].code == "MUF617"
    assert "one and the same tensor" in report.findings[0].message
    assert ("lr", "token.weight", 1.0, 0.25) in deviations(report)
    assert gpt(apart).ok


def test_a_floor_of_the_schedule_that_is_not_scaled() -> None:
    def floor(at: float) -> Callable[[Any], object]:
        def optimizer(model: Any) -> object:
            made = torch.optim.AdamW(GPT.groups(model))
            return torch.optim.lr_scheduler.CosineAnnealingLR(made, 100, eta_min=at)

        return optimizer

    assert codes(gpt(floor(1e-4))) == {"MUF618"}
    assert gpt(floor(0.0)).ok


def scaled_eps(power: float) -> Callable[[nn.Module], torch.optim.Optimizer]:
    """Table 3 for `Net`; eps is a power of the width for all that keeps an axis that grows."""

    def optimizer(model: nn.Module) -> torch.optim.Optimizer:
        m = multiplier(model)
        lr = table3("net")[1]
        return torch.optim.Adam(
            {
                "params": [p],
                "lr": 1e-3 * m ** lr.get(n, 0.0),
                "eps": 1e-8 * (1.0 if n.startswith("last") else m**power),
            }
            for n, p in model.named_parameters()
        )

    return optimizer


def right_net(width: int) -> nn.Module:
    model = Net(width)
    with torch.no_grad():
        for name, power in table3("net")[0].items():
            model.get_parameter(name).mul_((width / BASE) ** power)
    return model


def test_an_eps_that_follows_the_gradients() -> None:
    assert mufx.audit(right_net, rows, *SIZES, optimizer=scaled_eps(-1.0)).findings == ()
    report = mufx.audit(right_net, rows, *SIZES, optimizer=scaled_eps(1.0))
    assert codes(report) == {"MUF614"}
    assert ("eps", "hidden.weight", 0.25, 4.0) in deviations(report)
    assert {f.severity for f in report.findings} == {Severity.WARNING}


def test_decay_that_adam_adds_to_the_gradient() -> None:
    def optimizer(model: nn.Module) -> torch.optim.Optimizer:
        made = scaled_eps(-1.0)(model)
        rates = table3("net")[1]
        for group, (name, _) in zip(made.param_groups, model.named_parameters(), strict=True):
            group["weight_decay"] = 0.1 * multiplier(model) ** -rates.get(name, 0.0)
        return made

    report = mufx.audit(right_net, rows, *SIZES, optimizer=optimizer)
    assert [f.code for f in report.findings] == ["MUF613"]
    assert "no scale of the decay is right" in report.findings[0].message


def test_what_has_no_consistent_rule_is_one_finding_among_others() -> None:
    class Uncentred(Net):
        def __init__(self, width: int) -> None:
            super().__init__(width)
            nn.init.uniform_(self.hidden.weight)
            self.width = width

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = super().forward(x) * (self.width + 3)
            return out

    report = mufx.audit(Uncentred, rows, *SIZES)
    assert {"MUF204", "MUF107", "MUF611"} <= codes(report)


KINDS: list[tuple[Callable[..., torch.optim.Optimizer], str]] = [
    (torch.optim.SGD, "sgd"),
    (torch.optim.Adam, "adam"),
    (torch.optim.AdamW, "adamw"),
    (lambda p: torch.optim.NAdam(p, decoupled_weight_decay=True), "adamw"),
    (torch.optim.RAdam, "adam"),
    (torch.optim.RMSprop, "adam"),
]


@pytest.mark.parametrize(("make", "kind"), KINDS)
def test_update_rules(make: Callable[..., torch.optim.Optimizer], kind: str) -> None:
    with torch.device("meta"):
        model = nn.Linear(2, 3)
    assert read(lambda m: make(m.parameters()), model).kind == kind


# -- microsoft/mup ------------------------------------------------------------------------------


class MuMLP(nn.Module):
    """Written here, as the readme of mup tells to; with the inits of torch."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(6, width)
        self.hidden = nn.Linear(width, width)
        self.last = mup.MuReadout(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(F.relu(self.hidden(F.relu(self.first(x)))))
        return out


def with_mup(width: int, std: float | None = None) -> nn.Module:
    """As its README says; with `std` the hidden weight is drawn by torch, not by `mup.init`."""
    model = MuMLP(width)
    mup.set_base_shapes(model, MuMLP(BASE), delta=MuMLP(2 * BASE))
    if std is not None:
        nn.init.normal_(model.hidden.weight, std=std)
    return model


@pytest.mark.parametrize("optimizer", [mup.MuAdam, mup.MuAdamW, mup.MuSGD])
def test_an_mlp_with_the_readout_and_the_optimizer_of_mup_is_clean(optimizer: Any) -> None:
    report = mufx.audit(
        with_mup, rows, *SIZES, optimizer=lambda model: optimizer(model.parameters(), lr=1e-3)
    )
    assert deviations(report) == set()


def test_an_init_of_torch_after_mup() -> None:
    report = mufx.audit(
        lambda width: with_mup(width, std=0.1),
        rows,
        *SIZES,
        optimizer=lambda model: mup.MuAdamW(model.parameters(), lr=1e-3),
    )
    assert deviations(report) == {("init", "hidden.weight", 0.5, 1.0)}


def test_mups_mlp_with_an_optimizer_of_torch_is_inactive() -> None:
    report = mufx.audit(
        with_mup, rows, *SIZES, optimizer=lambda model: torch.optim.Adam(model.parameters())
    )
    assert codes(report) == {"MUF616", "MUF611"}
    assert ("lr", "hidden.weight", 0.25, 1.0) in deviations(report)


# -- models in standard parametrization ---------------------------------------------------------


def test_a_model_in_standard_parametrization() -> None:
    report = mufx.audit(Net, rows, *SIZES, optimizer="adam")
    assert deviations(report) == {
        ("init", "hidden.weight", 0.5, 1.0),
        ("lr", "hidden.weight", 0.25, 1.0),
        ("init", "last.weight", 0.25, 1.0),
        ("lr", "last.weight", 0.25, 1.0),
    }
    assert report.sizes == {"activation": pytest.approx(4.0), "readout": pytest.approx(4.0)}
    roles = {n: p.role for n, p in report.parameters.items() if n.endswith("weight")}
    assert roles == {"first.weight": "input", "hidden.weight": "hidden", "last.weight": "output"}


def test_sgd_asks_for_other_rates() -> None:
    report = mufx.audit(Net, rows, *SIZES, optimizer="sgd")
    assert {d for d in deviations(report) if d[0] == "lr"} == {
        ("lr", "first.weight", 4.0, 1.0),
        ("lr", "first.bias", 4.0, 1.0),
        ("lr", "hidden.bias", 4.0, 1.0),
        ("lr", "last.weight", 0.25, 1.0),
    }


def test_a_weight_that_starts_at_zero_at_base_width_only() -> None:
    class Growing(Net):
        def __init__(self, width: int) -> None:
            super().__init__(width)
            if width == BASE:
                nn.init.zeros_(self.hidden.weight)

    report = mufx.audit(Growing, rows, *SIZES)
    (finding,) = (
        f for f in report.findings if (f.code, f.parameter) == ("MUF610", "hidden.weight")
    )
    assert finding.found == float("inf")
    json.dumps(report.document(), allow_nan=False)


def test_values_that_are_computed_keep_their_size_as_a_conversion_leaves_it() -> None:
    """One decay for every channel, spread from 1 to the width: values, not a draw."""

    class Decaying(Net):
        def __init__(self, width: int) -> None:
            super().__init__(width)
            self.decay = nn.Parameter(torch.log(torch.arange(1.0, width + 1)))

        def forward(self, x: Tensor) -> Tensor:
            h = F.relu(self.first(x)) * torch.exp(-torch.exp(self.decay))
            out: Tensor = self.last(F.relu(self.hidden(h)))
            return out

    report = mufx.audit(Decaying, rows, *SIZES)

    assert not [f for f in report.findings if f.parameter == "decay" and f.code == "MUF610"]
    assert [d.code for d in report.diagnostics if "decay" in d.message] == ["MUF204"]


def test_keys_that_stay_while_queries_grow_are_told() -> None:
    class Attention(Net):
        def __init__(self, width: int) -> None:
            super().__init__(width)
            self.queries, self.keys = nn.Linear(width, width), nn.Linear(width, 8)

        def forward(self, x: Tensor) -> Tensor:
            h = self.first(x)
            q, k = self.queries(h).unflatten(-1, (-1, 8)), self.keys(h).unflatten(-1, (-1, 8))
            h = F.scaled_dot_product_attention(q, k, k).flatten(1)
            out: Tensor = self.last(F.relu(self.hidden(h)))
            return out

    report = mufx.audit(Attention, rows, *SIZES)

    assert [(d.code, str(d.severity)) for d in report.diagnostics] == [("MUF207", "note")]
    assert report.parameters["keys.weight"].role == "output"
