"""The dynamic coordinate check: how the change of every activation depends on width.

A model is trained for some steps at several widths. In the maximal update parametrization the
change of every activation has the same size at all of them; its slope, in log-log coordinates
over width, is 0 (Tensor Programs V, Appendix D.1).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

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


@torch.no_grad()
def activations(model: nn.Module, probe: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """The (first) output of every module; that of the model itself is called "output"."""
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, object, object], None]:
        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            first = cast(Sequence[object], output)[0] if isinstance(output, tuple) else output
            if isinstance(first, Tensor):
                found[name] = first.detach().clone()

        return hook

    with _hooked(model, keep):
        model(*probe)
    return found


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
