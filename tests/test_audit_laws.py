"""Which optimizers follow which rules: the table against the steps that they make."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim

import mufx
from mufx.auditing.laws import law_of, update_law
from mufx.diagnostics import MufxError
from mufx.program import Optimizer

Make = Callable[[list[nn.Parameter]], optim.Optimizer]


class Lion(optim.Optimizer):
    """The sign of a moving average, and decay of lr * weight_decay; no eps."""

    def __init__(self, params: Any, lr: float = 1e-3, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    def step(self, closure: Any = None) -> Any:
        with torch.no_grad():
            for group in self.param_groups:
                for p in group["params"]:
                    if p.grad is not None:
                        p.mul_(1 - group["lr"] * group["weight_decay"])
                        p.add_(p.grad.sign(), alpha=-group["lr"])


class Wider(Lion):
    """A subclass of one that is known."""


@pytest.fixture
def lion() -> Iterator[None]:
    from mufx.auditing import laws

    before = dict(laws._LAWS)
    update_law(Lion, like="adamw")
    yield
    laws._LAWS.clear()
    laws._LAWS.update(before)


def last_step(make: Make, scale: float) -> Tensor:
    """What the last of a few steps adds, for gradients of this scale."""
    parameter = nn.Parameter(torch.zeros(5, dtype=torch.float64))
    optimizer = make([parameter])
    draws = torch.Generator().manual_seed(0)
    before = parameter.detach().clone()
    for _ in range(12):  # RAdam does not divide by the size of the gradient before its sixth
        before = parameter.detach().clone()
        gradient = torch.randn(5, generator=draws, dtype=torch.float64)
        parameter.grad = scale * gradient
        optimizer.step()
    return parameter.detach() - before


ADAPTIVE = (
    optim.Adam,
    optim.AdamW,
    optim.NAdam,
    optim.RAdam,
    optim.Adamax,
    optim.RMSprop,
    optim.Adagrad,
)


@pytest.mark.parametrize("cls", ADAPTIVE)
def test_a_step_like_adam_s_does_not_depend_on_the_size_of_the_gradient(
    cls: type[optim.Optimizer],
) -> None:
    def made(parameters: list[nn.Parameter]) -> optim.Optimizer:
        build: Any = cls
        optimizer: optim.Optimizer = build(parameters, lr=0.1, eps=1e-12)
        return optimizer

    assert law_of(made([nn.Parameter(torch.zeros(1))])) in (Optimizer.ADAM, Optimizer.ADAMW)
    torch.testing.assert_close(last_step(made, 100.0), last_step(made, 1.0), rtol=1e-6, atol=0)


def test_a_step_like_sgd_s_is_proportional_to_the_gradient() -> None:
    def made(parameters: list[nn.Parameter]) -> optim.Optimizer:
        return optim.SGD(parameters, lr=0.1, momentum=0.9)

    assert law_of(made([nn.Parameter(torch.zeros(1))])) is Optimizer.SGD
    torch.testing.assert_close(last_step(made, 100.0), 100 * last_step(made, 1.0))


@pytest.mark.parametrize(
    ("cls", "flag", "kind"),
    [
        (optim.Adam, False, "adam"),
        (optim.AdamW, None, "adamw"),
        (optim.NAdam, True, "adamw"),
        (optim.RAdam, True, "adamw"),
        (optim.RAdam, False, "adam"),
    ],
)
def test_where_decay_is_added_says_the_group(cls: Any, flag: bool | None, kind: str) -> None:
    given = {} if flag is None else {"decoupled_weight_decay": flag}
    assert law_of(cls([nn.Parameter(torch.zeros(1))], **given)) == kind


# -- one of the user's own ----------------------------------------------------------------------


class Net(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(6, width, bias=False)
        self.hidden = nn.Linear(width, width, bias=False)
        self.last = nn.Linear(width, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.hidden(self.first(x).relu()).relu())
        return out


def audited(cls: type[optim.Optimizer]) -> mufx.AuditReport:
    build: Any = cls

    def optimizer(model: nn.Module) -> optim.Optimizer:
        made: optim.Optimizer = build(model.parameters(), lr=1e-3)
        return made

    x = (torch.randn(2, 6),)
    return mufx.audit(Net, x, {"width": 16}, {"width": 64}, optimizer=optimizer)


@pytest.mark.usefixtures("lion")
@pytest.mark.parametrize("cls", [Lion, Wider])
def test_one_s_own_is_judged_by_the_rules_that_it_is_said_to_follow(
    cls: type[optim.Optimizer],
) -> None:
    report = audited(cls)

    rates = {f.parameter: f.expected for f in report.findings if f.quantity.value == "lr"}
    assert report.optimizer == "adamw"
    assert rates == {"hidden.weight": 0.25, "last.weight": 0.25}
    assert "MUF614" not in {f.code for f in report.findings}  # it has no eps


@pytest.mark.parametrize("cls", [Lion, optim.Rprop])
def test_what_nobody_knows_is_refused_with_how_to_say_it(cls: type[optim.Optimizer]) -> None:
    with pytest.raises(MufxError) as caught:
        audited(cls)

    (problem,) = caught.value.diagnostics
    assert problem.code == "MUF603"
    assert problem.place is not None
    assert f'update_law({cls.__name__}, like="adamw")' in problem.hint


def test_rules_that_do_not_exist() -> None:
    with pytest.raises(ValueError, match="muon"):
        update_law(Lion, like="muon")
