"""Values that a constructor computes, or that only a sample tells, are not rescaled by chance."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mufx
from mufx.api import Conversion

X = torch.randn(2, 6, generator=torch.Generator().manual_seed(0))
Make = Callable[[int], Tensor]


class Decayed(nn.Module):
    """A layer whose features decay at a rate of their own."""

    def __init__(self, width: int, make: Make) -> None:
        super().__init__()
        self.first = nn.Linear(6, width)
        self.rate = nn.Parameter(make(width))
        self.last = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.first(x) * torch.exp(-self.rate))
        return out


def converted(make: Make, form: str = "table3") -> Conversion:
    return mufx.convert(
        lambda width: Decayed(width, make), (X,), {"width": 16}, {"width": 64}, form=form
    )


def told(conversion: Conversion) -> list[tuple[str, str]]:
    return [(str(d.severity), d.code) for d in conversion.program.diagnostics]


def dt_bias(width: int) -> Tensor:
    """Mamba's: the inverse of softplus of steps that are drawn on a logarithmic scale."""
    steps = torch.exp(torch.rand(width) * math.log(100.0) + math.log(0.001)).clamp(min=1e-4)
    return steps + torch.log(-torch.expm1(-steps))


TABLES: dict[str, Make] = {
    "linspace": lambda d: torch.linspace(-6, -1, d),
    "fractions": lambda d: torch.arange(d) / d,
    "cosine": lambda d: torch.cos(torch.arange(d) * (math.pi / d)),
    "dt bias": dt_bias,
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_keeps_its_values(name: str) -> None:
    conversion = converted(TABLES[name])

    assert conversion.manifest.parameters["rate"].init_correction == 1.0
    assert told(conversion) == []
    emitted = conversion.module(seed=3)
    torch.manual_seed(3)
    assert torch.equal(emitted.get_parameter("rate"), Decayed(64, TABLES[name]).rate)


def test_values_that_change_their_size_are_kept_and_told() -> None:
    conversion = converted(lambda d: torch.log(torch.arange(1, d + 1).float()))

    assert conversion.manifest.parameters["rate"].init_correction == 1.0
    (found,) = conversion.program.diagnostics
    assert (found.code, str(found.severity)) == ("MUF204", "note")
    assert "rate is computed to change their size by 1.613" in found.message
    assert found.place is not None
    assert found.place.file == __file__


def test_a_form_with_a_multiplier_divides_the_values_by_it() -> None:
    entry = converted(TABLES["linspace"], "table9").manifest.parameters["rate"]

    assert (entry.multiplier, entry.init_correction) == (2.0, 0.5)


def test_a_drawn_init_is_measured_against_base() -> None:
    conversion = converted(lambda d: torch.rand(d) ** 2 / math.sqrt(d))

    found = conversion.manifest.parameters["rate"].init_correction
    assert found == pytest.approx(2.0, rel=0.05)


def signs(width: int) -> Tensor:
    """Hadamard's matrix, of length 1 by rows, with its first row balanced."""
    matrix = torch.ones(1, 1)
    while len(matrix) < width:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    balanced: Tensor = torch.cat([matrix[1:], matrix[-1:]])
    return balanced / math.sqrt(width)


class Mixed(nn.Module):
    """A computed matrix that learns."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(6, width)
        self.mix = nn.Parameter(signs(width))
        self.last = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(F.linear(self.first(x), self.mix))
        return out


def test_a_computed_matrix_is_scaled_as_if_drawn_and_told() -> None:
    program = mufx.convert(Mixed, (X,), {"width": 16}, {"width": 64}).program

    assert program.init_corrections["mix"] == 1.0  # it follows its fan-in by itself
    (found,) = program.diagnostics
    assert (found.code, str(found.severity)) == ("MUF204", "warning")
    assert found.place is not None
    assert found.place.file == __file__


class Turned(nn.Module):
    """Queries and keys turned by frequencies that are a parameter, at places or by an input."""

    def __init__(self, width: int, by_input: bool) -> None:
        super().__init__()
        self.first, self.keys = nn.Linear(6, width), nn.Linear(width, width)
        rates = 10000 ** (-torch.arange(0, width, 2).float() / width)
        self.rates = nn.Parameter(rates, requires_grad=False)
        self.last = nn.Linear(width, 3)
        self.by_input = by_input

    def forward(self, x: Tensor) -> Tensor:
        places = x[..., :1] if self.by_input else torch.arange(x.shape[-2])[:, None]
        angles = (places * self.rates).repeat_interleave(2, -1)
        x = self.first(x)
        q, k = (turned(y, angles) for y in (x, self.keys(x)))
        out: Tensor = self.last((q @ k.mT / x.shape[-1]).softmax(-1) @ x)
        return out


def turned(x: Tensor, angles: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=-1)
    return x * angles.cos() + torch.cat([-b, a], dim=-1) * angles.sin()


@pytest.mark.parametrize("by_input", [False, True])
def test_frequencies_that_turn_may_be_summed_over(by_input: bool) -> None:
    """Their sines and cosines have a size of their own."""
    knobs = {"width": 8, "by_input": by_input}, {"width": 64, "by_input": by_input}
    program = mufx.convert(Turned, (torch.randn(2, 5, 6),), *knobs).program

    assert [(d.code, str(d.severity)) for d in program.diagnostics] == [("MUF204", "note")]


class Spare(nn.Module):
    """A recurrent layer that no one calls; its init follows its width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(6, width)
        self.spare = nn.GRU(6, width)
        self.last = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.first(x))
        return out


@pytest.mark.parametrize("form", ["table3", "table8", "table9"])
def test_unused_parameters_stay_as_they_are(form: str) -> None:
    conversion = mufx.convert(Spare, (X,), {"width": 16}, {"width": 64}, form=form)

    spare = {n: e for n, e in conversion.manifest.parameters.items() if n.startswith("spare")}
    assert len(spare) == 4
    assert {e.init_correction for e in spare.values()} == {1.0}
    emitted = conversion.module(seed=3)
    torch.manual_seed(3)
    original = Spare(64)
    for name in spare:
        assert torch.equal(emitted.get_parameter(name), original.get_parameter(name))


class Normed(nn.Module):
    """Weight norm, whose gain begins as the length of a uniform row."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(6, width)
        self.mid = nn.utils.parametrizations.weight_norm(nn.Linear(width, width))
        self.last = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.mid(self.first(x)))
        return out


def test_the_length_of_a_uniform_row_follows_its_fan_in() -> None:
    entries = mufx.convert(Normed, (X,), {"width": 16}, {"width": 64}).manifest.parameters

    assert entries["mid.parametrizations.weight.original0"].init_correction == 1.0
