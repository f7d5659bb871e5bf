"""The dynamic coordinate check: how the change of every activation depends on width.

A model is trained for some steps at several widths. In the maximal update parametrization the
change of every activation has the same size at all of them; its slope, in log-log coordinates
over width, is 0 (Tensor Programs V, Appendix D.1).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

Sizes = dict[str, float]
"""By module: the mean absolute value of something, over all elements of its output."""


@dataclass(frozen=True)
class Slopes:
    """By module: the log-log slope over width of the size of its change."""

    by_node: Mapping[str, float]

    @property
    def largest(self) -> float:
        return max(self.by_node.values())

    @property
    def median_size(self) -> float:
        return float(np.median([abs(slope) for slope in self.by_node.values()]))

    def beside(self, predicted: Mapping[str, float]) -> Slopes:
        """What is left once the slopes that are by design are taken off."""
        return Slopes({n: slope - predicted.get(n, 0.0) for n, slope in self.by_node.items()})

    def above(self, bound: float) -> dict[str, float]:
        return {name: slope for name, slope in self.by_node.items() if slope > bound}


def train_and_record(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_of: Callable[[nn.Module, tuple[Tensor, ...]], Tensor],
    batches: Iterable[tuple[Tensor, ...]],
    probe: tuple[Tensor, ...],
) -> Sizes:
    """Trains one step a batch; returns how far the activations on the probe have moved.

    All in train mode: batch norm then normalises by the batch, not by statistics that lag behind
    15 steps, and `nn.TransformerEncoder` takes no shortcut past the hooks.
    """
    before = activations(model, probe)
    for batch in batches:
        optimizer.zero_grad()
        torch.autograd.backward(loss_of(model, batch))
        optimizer.step()
    after = activations(model, probe)
    return {name: float((after[name] - before[name]).abs().mean()) for name in before}


def sizes_at_start(model: nn.Module, probe: tuple[Tensor, ...]) -> Sizes:
    """How large the activations on the probe are, before any training."""
    return {name: float(seen.abs().mean()) for name, seen in activations(model, probe).items()}


@torch.no_grad()
def activations(model: nn.Module, probe: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """The (first) output of every module; that of the model itself is called "output".

    Attention's logits, which fused attention keeps to itself, are called "logits of attention 0".
    """
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, object, object], None]:
        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            first = cast(Sequence[object], output)[0] if isinstance(output, tuple) else output
            if isinstance(first, Tensor):
                found[name] = first.detach().clone()

        return hook

    logits = _Logits()
    with _hooked(model, keep), logits:
        model(*probe)
    return found | {f"logits of attention {i}": seen for i, seen in enumerate(logits.seen)}


class _Logits(TorchFunctionMode):
    """Sees what fused attention is given, and computes its logits."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        given = dict(kwargs or {})
        if func is F.scaled_dot_product_attention:
            query, key = args[:2]
            scale = given.get("scale") or query.shape[-1] ** -0.5
            self.seen.append(query @ key.mT * scale)
        return func(*args, **given)


@contextmanager
def _hooked(
    model: nn.Module, hook: Callable[[str], Callable[[nn.Module, object, object], None]]
) -> Generator[None, None, None]:
    handles = [m.register_forward_hook(hook(n or "output")) for n, m in model.named_modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def fit(sizes: Mapping[int, Sequence[Sizes]]) -> Slopes:
    """Fits a line through (log width, mean log size) for each module.

    Args:
        sizes: By width, the sizes recorded with each seed.
    """
    widths = sorted(sizes)
    names = sizes[widths[0]][0].keys()
    return Slopes(
        {
            name: _slope(widths, [[seed[name] for seed in sizes[width]] for width in widths])
            for name in names
        }
    )


def _slope(widths: Sequence[int], sizes: Sequence[Sequence[float]]) -> float:
    heights = np.log(np.array(sizes)).mean(axis=1)
    return float(np.polyfit(np.log(np.array(widths)), heights, 1)[0])
