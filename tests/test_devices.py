"""What a model asks of the device: it is recorded as on a CPU, and runs on any."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mufx
from mufx.api import Conversion
from mufx.diagnostics import MufxError

X = torch.randn(2, 6)


class Model(nn.Module):
    """A hidden layer, and what is done with its result."""

    def __init__(self, body: Callable[[Any, Tensor], Tensor], width: int) -> None:
        super().__init__()
        self.first = nn.Linear(6, width)
        self.last = nn.Linear(width, 3)
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.body(self, self.first(x)))
        return out


def converted(body: Callable[[Any, Tensor], Tensor]) -> Conversion:
    return mufx.convert(lambda width: Model(body, width), (X,), {"width": 16}, {"width": 64})


def by_property(model: nn.Module, h: Tensor) -> Tensor:
    if h.is_cuda:
        return torch.tanh(h)
    return torch.relu(h)


def by_name(model: nn.Module, h: Tensor) -> Tensor:
    return torch.tanh(h) if h.device.type == "cuda" else torch.relu(h)


def by_weight(model: Any, h: Tensor) -> Tensor:
    return torch.tanh(h) if "cuda" in str(model.first.weight.device) else torch.relu(h)


def without_autocast(model: nn.Module, h: Tensor) -> Tensor:
    with torch.autocast(device_type=h.device.type, enabled=False):
        return torch.relu(h.float())


def with_autocast(model: nn.Module, h: Tensor) -> Tensor:
    with torch.autocast(device_type=h.device.type, dtype=torch.bfloat16):
        return torch.relu(h)


@pytest.mark.parametrize("body", [by_property, by_name, by_weight, without_autocast])
def test_a_branch_on_the_device_is_the_one_of_the_cpu(
    body: Callable[[Any, Tensor], Tensor],
) -> None:
    conversion = converted(body)
    emitted, original = conversion.module(), Model(body, 64)
    original.load_state_dict(emitted.state_dict())

    text = conversion.text
    assert "relu" in text
    assert not [word for word in ("tanh", "cuda", "autocast") if word in text]
    assert torch.equal(emitted(X), original(X))


def test_a_branch_by_property_is_told_where_it_stands() -> None:
    (found,) = converted(by_property).manifest.diagnostics
    _, first = inspect.getsourcelines(by_property)
    assert (found.code, found.line) == ("MUF113", first + 1)
    assert "is_cuda" in found.message
    assert found.hint


def test_what_torch_itself_asks_is_not_told() -> None:
    def folded(model: nn.Module, h: Tensor) -> Tensor:
        return torch.nn.functional.interpolate(h[:, None], scale_factor=1.0)[:, 0]

    assert converted(folded).manifest.diagnostics == ()


def test_an_autocast_region_for_the_input_s_device_is_refused() -> None:
    with pytest.raises(MufxError) as caught:
        converted(with_autocast)

    (found,) = caught.value.diagnostics
    _, first = inspect.getsourcelines(with_autocast)
    assert (found.code, found.place and found.place.line) == ("MUF102", first + 1)
    assert "autocast" in found.message
    assert found.hint


def test_a_tensor_made_on_the_input_s_device_follows_it() -> None:
    def shifted(model: nn.Module, h: Tensor) -> Tensor:
        ramp = torch.arange(h.shape[0], device=h.device, dtype=h.dtype)
        return torch.relu(h + ramp[:, None])

    emitted = converted(shifted).module()

    assert emitted(X).shape == (2, 3)
    assert emitted.to("meta")(X.to("meta")).device.type == "meta"
