"""Numbers that Python or numpy draws: where, and whether a recording holds for others."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from random import random as drawn  # a name of its own, as models write it
from typing import Any

import numpy as np
import pytest
import torch
from torch import fx, nn

import mufx
from mufx.classes.watch import AxisWatch
from mufx.construction import record_construction
from mufx.diagnostics import MufxError, Place, Severity
from mufx.forward import record_forward

INPUTS = (torch.randn(2, 6),)


class Layers(nn.Module):
    """Two layers; what draws is added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, width), nn.Linear(width, 3)

    def hidden(self, x: torch.Tensor) -> torch.Tensor:
        return self.doubled(x)

    def doubled(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.last(self.hidden(self.first(x)))
        return out


def told(model: type[nn.Module]) -> list[tuple[str, Severity, str]]:
    """Of each diagnostic: the code, how much it matters, and the line."""
    try:
        found = mufx.convert(model, INPUTS, {"width": 16}, {"width": 64}).program.diagnostics
    except MufxError as problem:
        found = problem.diagnostics
    return [(d.code, d.severity, line(d.place)) for d in found]


def line(place: Place | None) -> str:
    assert place is not None
    return Path(place.file).read_text(encoding="utf-8").splitlines()[place.line - 1].strip()


class Chosen(Layers):
    """Choices of the constructor: the features that are read, an activation, a factor."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.read = random.sample(range(6), 3)
        self.act = nn.ReLU() if drawn() < 0.5 else nn.GELU()
        self.factor = float(np.random.rand())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = super().forward(self.act(x) * self.factor)
        return out + x[:, self.read]


def test_what_a_constructor_draws_is_told_and_the_same_at_every_size() -> None:
    assert told(Chosen) == [
        ("MUF115", Severity.NOTE, "self.read = random.sample(range(6), 3)"),
        ("MUF115", Severity.NOTE, "self.act = nn.ReLU() if drawn() < 0.5 else nn.GELU()"),
        ("MUF115", Severity.NOTE, "self.factor = float(np.random.rand())"),
    ]


class Skipped(Layers):
    """Stochastic depth."""

    def hidden(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and drawn() < 0.001:
            return x
        return self.doubled(x)


class Kept(Layers):
    """Stochastic depth that keeps, by a draw after a call."""

    def hidden(self, x: torch.Tensor) -> torch.Tensor:
        return self.doubled(x) if len(self.doubled(x)) and random.random() < 0.999 else x


class OneOfTwo(Layers):
    """A choice."""

    def hidden(self, x: torch.Tensor) -> torch.Tensor:
        return random.choice([torch.relu, torch.tanh])(x)


class Noisy(Layers):
    """A number of numpy's as a factor."""

    def hidden(self, x: torch.Tensor) -> torch.Tensor:
        return x * float(np.random.normal())


class Cropped(Layers):
    """Other draws do not fit the model."""

    def hidden(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, : x.shape[1] - int(random.random() + 0.001)]


@pytest.mark.parametrize(
    ("model", "where"),
    [
        (Skipped, "if self.training and drawn() < 0.001:"),
        (Kept, "return self.doubled(x) if len(self.doubled(x)) and random.random() < 0.999 else x"),
        (OneOfTwo, "return random.choice([torch.relu, torch.tanh])(x)"),
        (Noisy, "return x * float(np.random.normal())"),
        (Cropped, "return x[:, : x.shape[1] - int(random.random() + 0.001)]"),
    ],
)
def test_a_forward_that_does_what_it_draws_is_refused(model: type[nn.Module], where: str) -> None:
    assert told(model) == [("MUF115", Severity.ERROR, where)]


class Off(Layers):
    """Stochastic depth of rate 0, which still draws."""

    def hidden(self, x: torch.Tensor) -> torch.Tensor:
        skipped = random.uniform(0, 1) < 0.0
        return x if skipped else self.doubled(x)


def test_a_draw_that_chooses_nothing_is_told() -> None:
    assert told(Off) == [("MUF115", Severity.NOTE, "skipped = random.uniform(0, 1) < 0.0")]


def test_who_looks_on_sees_one_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    watch, seen = AxisWatch(), list[str]()
    know = watch.know

    def see(node: fx.Node, tensor: torch.Tensor) -> None:
        seen.append(node.name)
        know(node, tensor)

    monkeypatch.setattr(watch, "know", see)
    recording = record_forward(Off(16), (INPUTS, {}), training=True, watch=watch)

    assert len(seen) == len(set(seen)) == len(recording.graph.nodes) - 1


def states() -> tuple[Any, ...]:
    return random.getstate(), str(np.random.get_state()), sys.gettrace()


def test_the_generators_stay_as_they_were() -> None:
    before = states()

    told(Chosen)
    told(Skipped)

    assert states() == before


def test_the_state_of_the_generators_is_not_in_the_result() -> None:
    one = record_construction(lambda: Chosen(16)).model
    drawn()
    np.random.rand()
    other = record_construction(lambda: Chosen(16)).model

    assert (one.read, one.factor) == (other.read, other.factor)


class Shuffled(Layers):
    """Draws in a function of the standard library."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        random.shuffle([1, 2, 3])


def test_a_draw_has_the_line_that_asks_for_it() -> None:
    (draw,) = record_construction(lambda: Shuffled(4)).draws_outside

    assert line(draw.place) == "random.shuffle([1, 2, 3])"
