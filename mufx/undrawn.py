"""What a build on `meta` leaves out: random draws, and moves to a device, for want of values.

Nothing is drawn there, and torch takes up to a millisecond to find that out; a model of many layers
draws thousands of times, and is built several times.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import init
from torch.overrides import TorchFunctionMode

_FILLS = frozenset({Tensor.normal_, Tensor.uniform_})
# A mode is given the whole call of these, and not what happens inside; the tensor is a keyword.
_INITS = frozenset({init.normal_, init.uniform_, init.kaiming_uniform_})


class Undrawn(TorchFunctionMode):
    """Leaves a tensor on `meta` as it is where it would be drawn, and there where it would go."""

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        """Everything else happens."""
        given = kwargs or {}
        if func in _INITS and given["tensor"].is_meta:
            return given["tensor"]
        if fills(func, args):
            return args[0]
        stayed = unmoved(func, args, given)
        return func(*args, **given) if stayed is None else stayed


def fills(func: Callable[..., object], args: tuple[Any, ...]) -> bool:
    """Whether the call would fill a tensor on `meta` with random numbers."""
    return func in _FILLS and bool(args[0].is_meta)


MOVES = frozenset({Tensor.to, Tensor.cpu, Tensor.cuda})


def unmoved(
    func: Callable[..., object], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Tensor | None:
    """What a move from `meta` gives where all is on one device; `None` of any other call."""
    if func not in MOVES or not args[0].is_meta:
        return None
    tensor: Tensor = args[0]
    if func is not Tensor.to:
        return tensor
    there = args[1] if len(args) > 1 else kwargs.get("device")
    if not isinstance(there, str | torch.device):
        return None
    return _stayed(tensor, *args[1:], **kwargs)


def _stayed(
    tensor: Tensor,
    device: object = None,
    dtype: torch.dtype | None = None,
    non_blocking: bool = False,
    copy: bool = False,
    memory_format: torch.memory_format = torch.preserve_format,
) -> Tensor:
    """`tensor.to(...)`, to the device that it is on."""
    del device, non_blocking
    if dtype is None and not copy and memory_format is torch.preserve_format:
        return tensor
    return tensor.to(dtype or tensor.dtype, copy=copy, memory_format=memory_format)
