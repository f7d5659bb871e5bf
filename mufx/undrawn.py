"""Random draws on `meta`, where nothing is drawn: torch takes up to a millisecond to find that out.

A model of many layers draws thousands of times, and is built several times.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from torch.nn import init
from torch.overrides import TorchFunctionMode

_FILLS = frozenset({Tensor.normal_, Tensor.uniform_})
# A mode is given the whole call of these, and not what happens inside; the tensor is a keyword.
_INITS = frozenset({init.normal_, init.uniform_, init.kaiming_uniform_})


class Undrawn(TorchFunctionMode):
    """Leaves a tensor on `meta` as it is where it would be filled with random numbers."""

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
        return args[0] if fills(func, args) else func(*args, **given)


def fills(func: Callable[..., object], args: tuple[Any, ...]) -> bool:
    """Whether the call would fill a tensor on `meta` with random numbers."""
    return func in _FILLS and bool(args[0].is_meta)
