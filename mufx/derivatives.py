"""Autograd functions of a model's own, whose backward may only restate the derivative.

The graph of a recording is differentiated by autograd. Where a function's own backward computes the
same gradient, for speed or for memory, nothing is lost when its forward stands in the graph. A
straight-through estimator or a reversed gradient is another function of its inputs, and is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any, Final

import torch
from torch import Tensor
from torch.autograd.function import Function, FunctionCtx, _SingleLevelFunction
from torch.utils._python_dispatch import _disable_current_modes

_DRAWS: Final = 3
_ENTRIES: Final = 2**24
"""Of one operand; a larger one is not drawn."""
_TOLERANCE: Final = 1e-6
"""Relative: the constants of a backward are often written with eight digits."""

apply_of: Final[Callable[..., Any]] = vars(Function)["apply"].__func__
"""The real `Function.apply`, also where a recording has replaced it."""


@dataclass(frozen=True, slots=True)
class _Operand:
    """What is drawn for a tensor."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    requires_grad: bool

    def drawn(self, generator: torch.Generator) -> Tensor:
        if self.dtype.is_floating_point:
            value = torch.randn(self.shape, generator=generator, dtype=torch.float64)
            return value.requires_grad_(self.requires_grad)
        return torch.randint(2, self.shape, generator=generator).to(self.dtype)


def flattened(function: type[Any], args: Sequence[object]) -> Any:
    """The forward of an autograd function as plain operations."""
    if function.setup_context is not _SingleLevelFunction.setup_context:
        return function.forward(*args)
    context: Any = FunctionCtx()
    context.needs_input_grad = tuple(isinstance(a, Tensor) and a.requires_grad for a in args)
    return function.forward(context, *args)


def restates_derivative(function: Any, args: Sequence[object]) -> bool:
    """Whether the backward of a function is the derivative of its forward.

    Both are computed in float64 on three draws of random values, in the shapes of `args`, with one
    random gradient of the results, and have to agree to six digits. `False` where that cannot be
    done: an operand that cannot be drawn, a forward that writes into one.

    Args:
        function: A subclass of `torch.autograd.Function`.
        args: What it is applied to; fake tensors of free sizes are taken at their hints.
    """
    given = tuple(_operand(a) if isinstance(a, Tensor) else a for a in args)
    try:
        hash(given)
    except TypeError:  # a list among the constants
        return False
    return _agrees(function, given)


def _operand(tensor: Tensor) -> _Operand:
    sizes: list[Any] = list(tensor.shape)
    shape = tuple(d if isinstance(d, int) else int(d.node.hint) for d in sizes)
    return _Operand(shape, tensor.dtype, tensor.requires_grad)


@lru_cache(maxsize=256)
def _agrees(function: Any, args: tuple[object, ...]) -> bool:
    operands = [a for a in args if isinstance(a, _Operand)]
    if any(prod(o.shape) > _ENTRIES or o.dtype.is_complex for o in operands):
        return False
    generator = torch.Generator().manual_seed(0)
    with _disable_current_modes(), torch._C.DisableTorchFunction(), torch.random.fork_rng([]):
        try:
            return all(_agree_on_a_draw(function, args, generator) for _ in range(_DRAWS))
        except Exception:  # the function's own code, on values that it may not be made for
            return False


def _agree_on_a_draw(
    function: type[Any], args: tuple[object, ...], generator: torch.Generator
) -> bool:
    drawn = [a.drawn(generator) if isinstance(a, _Operand) else a for a in args]
    learned = [a for a in drawn if isinstance(a, Tensor) and a.requires_grad]
    torch.manual_seed(0)
    own = _results(apply_of(function, *drawn))
    torch.manual_seed(0)
    plain = _results(flattened(function, drawn))
    if not all(torch.equal(a, b) for a, b in zip(own, plain, strict=True)):
        return False
    along = [torch.randn(y.shape, generator=generator, dtype=y.dtype) for y in own]
    pairs = zip(_gradients(own, learned, along), _gradients(plain, learned, along), strict=True)
    return all(torch.allclose(a, b, rtol=_TOLERANCE, atol=_TOLERANCE) for a, b in pairs)


def _results(value: Any) -> list[Tensor]:
    made = value if isinstance(value, tuple) else (value,)
    return [y for y in made if isinstance(y, Tensor)]


def _gradients(
    results: Sequence[Tensor], learned: Sequence[Tensor], along: Sequence[Tensor]
) -> list[Tensor]:
    reached = [(y, g) for y, g in zip(results, along, strict=True) if y.requires_grad]
    if not reached:
        return [torch.zeros_like(x) for x in learned]
    made = torch.autograd.grad(
        [y for y, _ in reached],
        learned,
        [g for _, g in reached],
        allow_unused=True,
        materialize_grads=True,
    )
    return list(made)
