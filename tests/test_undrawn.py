"""Random fills on `meta` are left out; all others happen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from mufx.undrawn import Undrawn


class Kernels(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the kernels that run."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[str] = []

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


def test_nothing_is_drawn_on_meta() -> None:
    with torch.device("meta"), Kernels() as kernels, Undrawn():
        layer = nn.Linear(3, 4)
        nn.init.trunc_normal_(layer.weight)

    assert not [name for name in kernels.seen if "normal_" in name or "uniform_" in name]


def test_nothing_leaves_meta() -> None:
    with torch.device("meta"), Undrawn():
        tensor = torch.empty(3)
        moved = [tensor.cpu(), tensor.to("cpu"), tensor.to(device="cpu", dtype=torch.float64)]

    assert {t.device.type for t in moved} == {"meta"}
    assert [t.dtype for t in moved] == [torch.float32, torch.float32, torch.float64]


def test_elsewhere_the_draws_are_torch_s_own() -> None:
    torch.manual_seed(0)
    expected = nn.Linear(3, 4)
    torch.manual_seed(0)
    with Undrawn():
        found = nn.Linear(3, 4)

    assert torch.equal(found.weight, expected.weight)
    assert torch.equal(found.bias, expected.bias)
