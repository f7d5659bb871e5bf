"""What a nonlinearity makes of a normally distributed value, and of a small change of it."""

from __future__ import annotations

from statistics import NormalDist
from typing import Final

import torch
from torch import Tensor, fx

_POINTS: Final = 201
_STEP: Final = 1e-4
_Z: Final = torch.tensor(
    [NormalDist().inv_cdf((i + 0.5) / _POINTS) for i in range(_POINTS)], dtype=torch.float64
)


def bending(node: fx.Node, size: float) -> tuple[float, float]:
    """The root mean squares of the result and of its slope, where the input has size `size`.

    Of relu 0.71 and 0.71; of gelu 0.5 `size` and 0.5 near 0, and relu's far from it.
    """
    x, step = _Z * size, _STEP * size
    return _rms(_called(node, x)), _rms(_called(node, x + step) - _called(node, x - step)) / (
        2 * step
    )


def _called(node: fx.Node, x: Tensor) -> Tensor:
    kept = {name: value for name, value in node.kwargs.items() if name != "inplace"}
    args, kwargs = fx.map_arg((node.args, kept), lambda _: x.clone())
    called = node.target if callable(node.target) else getattr(Tensor, node.target)
    result = called(*args, **kwargs)
    assert isinstance(result, Tensor)
    return result


def _rms(value: Tensor) -> float:
    return float(value.square().mean().sqrt())
