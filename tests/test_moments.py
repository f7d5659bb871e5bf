"""Distributions read from the init tape against what the constructor really draws."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mufx.construction import record_construction
from mufx.diagnostics import MufxError
from mufx.moments import Moments, moments, truncated_normal


class Holder(nn.Module):
    """One parameter, made by a function."""

    def __init__(self, make: Callable[[], torch.Tensor]) -> None:
        super().__init__()
        with torch.no_grad():
            value = make()
        self.p = nn.Parameter(value, requires_grad=value.is_floating_point())


def read(make: Callable[[], torch.Tensor]) -> Moments:
    return moments(record_construction(lambda: Holder(make)), "p")


def drawn(make: Callable[[], torch.Tensor]) -> torch.Tensor:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make().double()


def timm_trunc_normal(mean: float, std: float, a: float, b: float) -> torch.Tensor:
    def cdf(x: float) -> float:
        return (1.0 + math.erf(x / math.sqrt(2.0))) / 2.0

    tensor = torch.empty(300, 200)
    low, high = cdf((a - mean) / std), cdf((b - mean) / std)
    tensor.uniform_(2 * low - 1, 2 * high - 1)
    return tensor.erfinv_().mul_(std * math.sqrt(2.0)).add_(mean).clamp_(min=a, max=b)


def empty() -> torch.Tensor:
    return torch.empty(300, 200)


def pieces() -> torch.Tensor:
    """Query, key and value drawn one by one."""
    tensor = empty().normal_(0, 5.0)
    for i, std in enumerate((0.1, 0.2, 0.4)):
        tensor[100 * i : 100 * (i + 1)].normal_(0, std)
    return tensor


RANDOM: dict[str, tuple[Callable[[], torch.Tensor], str]] = {
    "uniform_": (lambda: empty().uniform_(-0.3, 0.5), "uniform"),
    "uniform_ default": (lambda: empty().uniform_(), "uniform"),
    "normal_": (lambda: empty().normal_(0.5, 0.02), "normal"),
    "init.normal_": (lambda: nn.init.normal_(empty(), std=0.3), "normal"),
    "torch.normal": (lambda: torch.normal(0.1, 0.2, (300, 200)), "normal"),
    "xavier_uniform_": (lambda: nn.init.xavier_uniform_(empty(), 2.0), "uniform"),
    "xavier_normal_": (lambda: nn.init.xavier_normal_(empty()), "normal"),
    "kaiming_uniform_": (lambda: nn.init.kaiming_uniform_(empty(), a=5**0.5), "uniform"),
    "kaiming_normal_": (lambda: nn.init.kaiming_normal_(empty(), mode="fan_out"), "normal"),
    "trunc_normal_": (lambda: nn.init.trunc_normal_(empty()), "truncated normal"),
    "trunc_normal_ wide": (lambda: nn.init.trunc_normal_(empty(), std=0.02), "truncated normal"),
    "trunc_normal_ skewed": (
        lambda: nn.init.trunc_normal_(empty(), 0.5, 1.0, -0.5, 3.0),
        "truncated normal",
    ),
    "timm": (lambda: timm_trunc_normal(0.0, 1.0, -2.0, 2.0), "truncated normal"),
    "timm wide": (lambda: timm_trunc_normal(0.0, 0.02, -2.0, 2.0), "truncated normal"),
    "timm middle": (lambda: timm_trunc_normal(0.0, 0.1, -0.3, 0.3), "truncated normal"),
    "orthogonal_": (lambda: nn.init.orthogonal_(empty(), gain=2.0), "orthogonal"),
    "sparse_": (lambda: nn.init.sparse_(empty(), 0.3, std=0.5), "sparse"),
    "randn": (lambda: torch.randn(300, 200) * 0.3, "normal"),
    "randn over": (lambda: -torch.randn(300, 200) / math.sqrt(200), "normal"),
    "rand shifted": (lambda: 2 * torch.rand(300, 200) - 1, "uniform"),
    "rand reflected": (lambda: 1 - torch.rand(300, 200), "uniform"),
    "rand_like": (lambda: torch.rand_like(empty()), "uniform"),
    "by a constant tensor": (lambda: torch.randn(300, 200) * torch.full((200,), 0.1), "normal"),
    "in place": (lambda: torch.randn(300, 200).mul_(0.5).add_(1.0).sub_(0.25), "normal"),
    "views": (lambda: torch.randn(200, 300).T.contiguous().view(100, 600).clone(), "normal"),
    "copy_": (lambda: empty().copy_(torch.randn(300, 200) * 2), "normal"),
    "overwritten": (lambda: nn.init.normal_(empty().uniform_(3, 4), std=0.1), "normal"),
    "pieces": (pieces, "normal"),
    "two randoms": (lambda: torch.randn(300, 200) * torch.rand(300, 200), "measured"),
    "squared": (lambda: torch.randn(300, 200) ** 2, "measured"),
    "cut": (lambda: torch.randn(300, 200).clamp_(-1, 1), "measured"),
    "norms": (lambda: torch.norm_except_dim(torch.randn(6000, 10), 2, 0), "norm"),
}


@pytest.mark.parametrize("case", RANDOM)
def test_random(case: str) -> None:
    make, kind = RANDOM[case]
    found, real = read(make), drawn(make)
    noise = 5 * float(real.std()) / math.sqrt(real.numel())
    assert (found.random, found.kind, found.partial) == (True, kind, False)
    assert found.constant is None
    assert found.mean == pytest.approx(float(real.mean()), abs=noise)
    assert found.std == pytest.approx(float(real.std()), rel=0.05 if kind == "norm" else 0.02)


CONSTANT: dict[str, tuple[Callable[[], torch.Tensor], float]] = {
    "zeros": (lambda: torch.zeros(3, 4), 0.0),
    "ones": (lambda: torch.ones(3, 4), 1.0),
    "full": (lambda: torch.full((3, 4), 2.5), 2.5),
    "tensor": (lambda: torch.tensor(2.6592), 2.6592),
    "times": (lambda: 1e-4 * torch.ones(5), 1e-4),
    "arithmetic": (lambda: (1 - torch.ones(5) / 4).neg() + 2, 1.25),
    "init.constant_": (lambda: nn.init.constant_(torch.rand(5), 0.25), 0.25),
    "init.zeros_": (lambda: nn.init.zeros_(torch.rand(5)), 0.0),
    "exp": (lambda: torch.zeros(5).exp(), 1.0),
    "zero times random": (lambda: torch.rand(5) * 0, 0.0),
}


@pytest.mark.parametrize("case", CONSTANT)
def test_constant(case: str) -> None:
    make, value = CONSTANT[case]
    found = read(make)
    assert (found.std, found.random, found.kind) == (0.0, False, "constant")
    assert found.mean == found.constant == pytest.approx(value)


TABLES: dict[str, Callable[[], torch.Tensor]] = {
    "log of arange": lambda: torch.log(torch.arange(1, 17).float()).repeat(8, 1),
    "linspace": lambda: torch.linspace(0, 0.3, 7),
    "eye": lambda: torch.eye(5, 7),
    "init.eye_": lambda: nn.init.eye_(torch.empty(4, 6)),
    "dirac_": lambda: nn.init.dirac_(torch.empty(6, 4, 3), groups=2),
    "two constants": lambda: torch.cat([torch.zeros(5), torch.ones(3)]),
    "a slice": lambda: torch.zeros(8)[:3].fill_(2.0),
}


@pytest.mark.parametrize("case", TABLES)
def test_table(case: str) -> None:
    found, real = read(TABLES[case]), drawn(TABLES[case])
    constant = bool((real == real.flatten()[0]).all())
    assert (found.random, found.kind) == (False, "constant" if constant else "table")
    assert found.mean == pytest.approx(float(real.mean()))
    assert found.std == pytest.approx(float(real.std(correction=0)))


def test_padding_row_does_not_count() -> None:
    construction = record_construction(lambda: nn.Embedding(10, 8, padding_idx=3))
    assert moments(construction, "weight") == Moments(0.0, 1.0, True, "normal")


def forget_bias(slice_of: Callable[[torch.Tensor], torch.Tensor]) -> nn.LSTM:
    lstm = nn.LSTM(4, 8)
    with torch.no_grad():
        slice_of(lstm.get_parameter("bias_ih_l0")).fill_(1.0)
    return lstm


def test_forget_bias_is_partial() -> None:
    found = moments(record_construction(lambda: forget_bias(lambda b: b[8:16])), "bias_ih_l0")
    assert found == Moments(0.0, 2 / 8**0.5 / 12**0.5, True, "uniform", None, partial=True)


def test_assigned_rows() -> None:
    def build() -> nn.Linear:
        linear = nn.Linear(8, 4)
        linear.weight.data[1:3] = 7.0
        linear.weight.data[0] = 0.0
        linear.weight.data[3] = torch.randn(8) * 0.5
        return linear

    found = moments(record_construction(build), "weight")
    assert found == Moments(0.0, 0.5, True, "normal", None, partial=True)


def test_columns_are_measured() -> None:
    def build() -> nn.Linear:
        linear = nn.Linear(400, 100)
        linear.weight.data[:, :200].fill_(0.5)
        return linear

    found = moments(record_construction(build), "weight")
    assert (found.kind, found.random) == ("measured", True)
    assert found.mean == pytest.approx(0.25, abs=0.01)


def test_data_given_other_memory() -> None:
    def build() -> nn.Linear:
        linear = nn.Linear(8, 4)
        linear.weight.data = linear.weight.data * 0.5
        linear.bias.data = torch.zeros(4)
        return linear

    construction = record_construction(build)
    assert moments(construction, "weight").std == pytest.approx(0.5 / math.sqrt(3 * 8))
    assert moments(construction, "bias").constant == 0.0
    torch.manual_seed(5)
    assert torch.equal(build().weight, construction.replay(5)["weight"])


def test_parametrization() -> None:
    def build() -> nn.Linear:
        linear = nn.Linear(8, 4)
        nn.init.normal_(linear.weight, std=0.5)
        nn.utils.parametrizations.weight_norm(linear)
        return linear

    construction = record_construction(build)
    length = moments(construction, "parametrizations.weight.original0")
    assert moments(construction, "parametrizations.weight.original1").std == 0.5
    assert length.kind == "norm"
    assert length.mean**2 + length.std**2 == pytest.approx(8 * 0.25)


def test_real_and_imaginary_parts_are_entries_alike() -> None:
    def build() -> torch.Tensor:
        return torch.rand(9, 9, dtype=torch.cfloat) - (0.5 + 0.25j)

    found = read(build)
    assert (found.kind, found.random) == ("measured", True)
    assert found.mean == pytest.approx(0.125, abs=0.02)
    assert found.std == pytest.approx(math.sqrt(1 / 12 + 0.125**2), rel=0.03)


def test_a_measured_mean_that_chance_explains_is_none() -> None:
    assert read(lambda: torch.rand(9, 9) - torch.rand(9, 9)).mean == 0.0
    assert read(lambda: torch.rand(9, 9) - torch.rand(9, 9) + 0.1).mean == pytest.approx(0.1, 0.2)


def test_large_unknown_is_refused() -> None:
    with pytest.raises(MufxError) as caught:
        read(lambda: torch.randn(2**13, 2**12) ** 2)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "MUF109"
    assert "how p is drawn" in diagnostic.message
    assert diagnostic.place is not None
    assert diagnostic.place.file == __file__


def test_measuring_leaves_the_random_state() -> None:
    construction = record_construction(lambda: Holder(lambda: torch.randn(9, 9) ** 2))
    before = torch.get_rng_state()
    moments(construction, "p")
    assert torch.equal(before, torch.get_rng_state())


def test_huge_models_take_no_memory() -> None:
    construction = record_construction(
        lambda: nn.Sequential(*(nn.Linear(2**16, 2**16) for _ in range(300)))
    )
    for name in construction.tensors:
        assert moments(construction, name).std == pytest.approx(1 / math.sqrt(3 * 2**16))


@settings(deadline=None, max_examples=50)
@given(
    st.floats(-1, 1),
    st.floats(0.1, 2),
    st.floats(-3, -0.5),
    st.floats(0.5, 3),
)
def test_truncated_normal(mean: float, std: float, low: float, high: float) -> None:
    a, b = mean + low * std, mean + high * std
    x = torch.linspace(a, b, 20001, dtype=torch.float64)
    density = torch.exp(-((x - mean) ** 2) / (2 * std**2))
    density /= density.sum()
    expected = float((x * density).sum())
    variance = float(((x - expected) ** 2 * density).sum())
    found = truncated_normal(mean, std, a, b)
    assert found.mean == pytest.approx(expected, abs=1e-3)
    assert found.std == pytest.approx(math.sqrt(variance), rel=1e-3)


def test_truncated_at_two() -> None:
    assert truncated_normal(0.0, 1.0, -2.0, 2.0).std == pytest.approx(0.8796, abs=1e-4)
