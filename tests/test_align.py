"""Alignment: what differs between sizes is the width dependence; other structures are refused."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mufx
from mufx.align import Trace
from mufx.api import convert_source
from mufx.diagnostics import MufxError
from mufx.source import from_callable


class Net(nn.Module):
    def __init__(self, width: int, heads: int, body: Callable[[Any, Tensor], object]) -> None:
        super().__init__()
        self.width, self.heads = width, heads
        self.up = nn.Linear(3, width)
        self.down = nn.Linear(width, 2)
        self.body = body

    def forward(self, x: Tensor) -> object:
        return self.body(self, self.up(x))


def inputs(batch: int = 2) -> Tensor:
    return torch.zeros(batch, 5, 3)


def traced(
    body: Callable[[Any, Tensor], object],
    base: tuple[int, int] = (8, 2),
    target: tuple[int, int] = (24, 2),
    vary: tuple[str, ...] = (),
) -> mufx.Program:
    def build(width: int, heads: int) -> nn.Module:
        return Net(width, heads, body)

    small, large = ({"width": w, "heads": h} for w, h in (base, target))
    return mufx.trace(from_callable(build, inputs, small, large, vary))


def refused(body: Callable[[Any, Tensor], object], text: str) -> str:
    """The message of the one error, which stands at the line that holds `text`."""
    with pytest.raises(MufxError) as caught:
        traced(body)
    (found,) = caught.value.diagnostics
    lines, first = inspect.getsourcelines(body)
    (line,) = (first + i for i, source in enumerate(lines) if text in source)
    assert found.place is not None
    assert (found.code, found.place.file, found.place.line) == ("MUF106", __file__, line)
    return found.message


def growing(trace: Trace, node: str) -> list[tuple[int, int, int] | None]:
    """The sizes of the axes that grow, `None` for each that does not."""
    return [(a.base, a.target, a.along) if a.grows else None for a in trace.axes[node]]


# -- axes and numbers ---------------------------------------------------------------------------


def test_axes_that_grow_are_those_that_differ() -> None:
    def body(m: Any, h: Tensor) -> Any:
        return m.down(h.view(2, 5, m.heads, -1).transpose(1, 2).flatten(1).view(2, 5, -1))

    for trace in traced(body).traces:
        assert growing(trace, "x") == [None, None, None]
        assert growing(trace, "up_weight") == [(8, 24, 72), None]
        assert growing(trace, "view") == [None, None, None, (4, 12, 36)]
        assert growing(trace, "flatten") == [None, (40, 120, 360)]
        assert growing(trace, "down_weight") == [None, (8, 24, 72)]
        assert trace.axes["down_weight"][1].m == 3


def test_numbers_that_differ_are_kept_with_their_three_values() -> None:
    def body(m: Any, h: Tensor) -> Any:
        scaled = h / math.sqrt(m.width)
        return m.down(F.layer_norm(torch.mul(scaled, 3.0), (m.width,), eps=1e-4))

    numbers = traced(body).train.numbers
    assert set(numbers) == {("truediv", 1)}
    found = numbers["truediv", 1]
    assert (found.base, found.target, found.along) == (8**0.5, 24**0.5, 72**0.5)
    assert found.ratio == pytest.approx(3**0.5)
    assert found.is_power


def test_a_number_of_another_shape_is_no_power() -> None:
    found = traced(lambda m, h: m.down(h / (m.width + 1))).train.numbers["truediv", 1]
    assert (found.base, found.target, found.along) == (9, 25, 73)
    assert not found.is_power


def test_a_target_without_a_whole_number_further_along_is_said() -> None:
    program = traced(lambda m, h: m.down(h), base=(8, 2), target=(12, 2))
    assert [d.code for d in program.diagnostics] == []  # 12 * 12 / 8 = 18
    program = traced(lambda m, h: m.down(h), base=(8, 2), target=(9, 2))
    (found,) = program.diagnostics
    assert (found.code, "width = 8 -> 9" in found.message) == ("MUF110", True)


def test_a_knob_that_is_none_at_both_sizes_is_none_further_along() -> None:
    def build(width: int, scale: float | None, stages: tuple[int, int | None]) -> nn.Module:
        assert scale is None
        assert stages[1] is None
        return nn.Sequential(
            nn.Linear(4, width), nn.Linear(width, stages[0]), nn.Linear(stages[0], 2)
        )

    base = {"width": 8, "scale": None, "stages": (8, None)}
    target = {"width": 24, "scale": None, "stages": (32, None)}
    program = mufx.trace(from_callable(build, (torch.ones(2, 4),), base, target))

    assert program.diagnostics == ()
    weight = program.train.axes["_1_weight"]
    assert [(axis.base, axis.target, axis.along) for axis in weight] == [(8, 32, 128), (8, 24, 72)]


def test_what_a_floor_keeps_at_target_as_at_base_does_not_grow() -> None:
    def squeezed(width: int) -> nn.Module:
        units = max(8, width // 8)
        return nn.Sequential(nn.Linear(4, width), nn.Linear(width, units), nn.Linear(units, 2))

    inputs, knobs = (torch.ones(2, 4),), ({"width": 32}, {"width": 64})
    labels = convert_source(from_callable(squeezed, inputs, *knobs)).program.labels

    assert [str(labels[f"{i}.weight"].role) for i in range(3)] == ["input", "output", "scalar"]


def test_a_model_that_does_not_build_further_along_is_traced_without_it() -> None:
    def limited(width: int) -> nn.Module:
        if width > 100:
            raise ValueError(f"width {width} is too large")
        return nn.Sequential(nn.Linear(4, width), nn.Linear(width, 2))

    source = from_callable(limited, (torch.ones(2, 4),), {"width": 16}, {"width": 64})
    program = mufx.trace(source)
    (found,) = program.diagnostics
    assert (found.code, "width 256 is too large" in found.message) == ("MUF110", True)
    assert {axis.m for axes in program.train.axes.values() for axis in axes} == {1.0, 4.0}


# -- base and target the same -------------------------------------------------------------------


def test_equal_sizes_grow_along_what_varies() -> None:
    program = traced(lambda m, h: m.down(h / math.sqrt(m.width)), (8, 2), (8, 2), ("width",))
    assert growing(program.train, "up_weight") == [(8, 8, 16), None]
    assert program.train.axes["up_weight"][0].m == 1
    number = program.train.numbers["truediv", 1]
    assert (number.ratio, number.is_power) == (1, True)


# -- other structures ---------------------------------------------------------------------------


def test_the_first_operation_that_differs_is_named() -> None:
    def body(m: Any, h: Tensor) -> Any:
        wide = m.width > 8
        h = torch.tanh(h) if wide else torch.relu(h)
        return m.down(h)

    message = refused(body, "torch.tanh")
    assert message.endswith("the first difference is relu(linear) against tanh(linear)")


def test_more_operations_at_one_size_are_counted() -> None:
    def body(m: Any, h: Tensor) -> Any:
        for _ in range(m.width // 8):
            h = torch.tanh(h)
        return m.down(h)

    message = refused(body, "torch.tanh")
    assert "(9 and 11 operations)" in message
    assert "tanh(tanh)" in message


def test_other_operands_differ() -> None:
    def body(m: Any, h: Tensor) -> Any:
        a, b = torch.tanh(h), torch.tanh(h + 1)
        return m.down(torch.sin(a if m.width > 8 else b))

    message = refused(body, "torch.sin")
    assert message.endswith("sin(tanh_1) against sin(tanh)")


def test_other_flags_differ() -> None:
    def body(m: Any, h: Tensor) -> Any:
        return m.down(h.sum(1, keepdim=m.width > 8) * 0 + h[:, 0, None])

    assert "sum" in refused(body, "keepdim")


def test_a_difference_at_the_probe_only_is_noted() -> None:
    def body(m: Any, h: Tensor) -> Any:
        return m.down(torch.tanh(h) if m.width > 24 else torch.sin(h))

    (found,) = traced(body).diagnostics
    assert found.code == "MUF110"
    assert "tanh(linear) against sin(linear)" in found.message
    assert found.place is not None
    assert found.place.line == inspect.getsourcelines(body)[1] + 1
