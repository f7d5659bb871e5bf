"""The abc-symmetry: any form of the same training is clean, and any number off it is found."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import mufx
from mufx.auditing.records import AuditReport
from mufx.diagnostics import Severity

BASE = 16
NAMES = ("first", "hidden", "last")
INIT = {"first": 0.0, "hidden": -0.5, "last": -1.0}  # Table 3, powers of the width
RATE = {"first": 0.0, "hidden": -1.0, "last": -1.0}

Powers = dict[str, float]


class Net(nn.Module):
    """Each weight with a multiplier; all numbers are powers of the width."""

    def __init__(self, width: int, multipliers: Powers, inits: Powers) -> None:
        super().__init__()
        m = width / BASE
        self.factors = {name: m**power for name, power in multipliers.items()}
        self.first = nn.Parameter(torch.empty(width, 6))
        self.hidden = nn.Parameter(torch.empty(width, width))
        self.last = nn.Parameter(torch.empty(3, width))
        for name, power in inits.items():
            nn.init.normal_(self.get_parameter(name), std=0.1 * m**power)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(F.linear(x, self.first) * self.factors["first"])
        x = F.gelu(F.linear(x, self.hidden * self.factors["hidden"]))
        return F.linear(x * self.factors["last"], self.last)


def audited(multipliers: Powers, inits: Powers, rates: Powers) -> AuditReport:
    def build(width: int) -> nn.Module:
        return Net(width, multipliers, inits)

    def optimizer(model: nn.Module) -> torch.optim.Optimizer:
        m = model.get_parameter("last").shape[1] / BASE
        return torch.optim.Adam(
            [{"params": [p], "lr": 1e-3 * m ** rates[n]} for n, p in model.named_parameters()]
        )

    x = torch.zeros(2, 6)
    return mufx.audit(build, (x,), {"width": BASE}, {"width": 64}, optimizer=optimizer)


def shifted(by: Powers) -> tuple[Powers, Powers, Powers]:
    """Table 3 with these multipliers: A theta, B / theta, C / theta."""
    return (
        dict(by),
        {n: INIT[n] - by[n] for n in NAMES},
        {n: RATE[n] - by[n] for n in NAMES},
    )


shifts = st.fixed_dictionaries(
    {name: st.sampled_from([-1.0, -0.5, 0.0, 0.5, 1.0]) for name in NAMES}
)
few = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@few
@given(by=shifts)
def test_every_form_is_clean(by: Powers) -> None:
    report = audited(*shifted(by))
    assert report.failing(Severity.WARNING) == ()
    for name in NAMES:
        found = report.parameters[name].multiplier
        assert abs(found - 4.0 ** by[name]) < 1e-6 * found


@few
@given(
    by=shifts,
    which=st.integers(0, 2),
    name=st.sampled_from(NAMES),
    off=st.sampled_from([-1.0, -0.5, 0.5, 1.0]),
)
def test_one_number_off_is_found(by: Powers, which: int, name: str, off: float) -> None:
    numbers = shifted(by)
    numbers[which][name] += off
    report = audited(*numbers)
    found = [(f.quantity.value, f.parameter) for f in report.failing(Severity.WARNING)]
    wrong = ("multiplier", "init", "lr")[which]
    assert found in ([(wrong, name)], [(wrong, None)])
