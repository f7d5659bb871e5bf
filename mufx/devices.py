"""Where models are trained, and what is moved there."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from mufx.diagnostics import MufxError, error

T = TypeVar("T")


def device_of(name: str, code: str) -> torch.device:
    """A device that is there.

    Raises:
        MufxError: `code`.
    """
    hint = "write --device cpu or --device cuda"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as problem:
        what = f"--device {name}: {str(problem).splitlines()[0]}"
        raise MufxError(error(code, what, hint=hint)) from None
    if device.type == "meta":
        raise MufxError(error(code, "--device meta holds no numbers to train", hint=hint))
    return device


def moved(value: T, device: torch.device) -> T:
    """Arguments of forward, with every tensor in them on a device."""
    there: T = tree_map_only(Tensor, lambda t: t.to(device), value)
    return there
