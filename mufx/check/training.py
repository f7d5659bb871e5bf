"""One run: activations on a probe before and after some steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mufx.check.watch import activations
from mufx.inputs import Inputs

Sizes = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Run:
    """What one run measured, by node: mean absolute values over all elements.

    Attributes:
        starts: Of the activation before the first step.
        sizes: Of the activation after the last step.
        changes: Of its difference to what it was before the first step.
        diverged: The first step with a loss that is not finite, from 1; the run ends there.
    """

    starts: Sizes
    sizes: Sizes
    changes: Sizes
    diverged: int | None = None


def run(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_of: Callable[[nn.Module, Inputs], Tensor],
    batches: Iterable[Inputs],
    probe: Inputs,
    seed: int = 0,
) -> Run:
    """Trains one step a batch, and looks at the probe before and after.

    All in train mode: batch norm then normalises by the batch, not by statistics that lag behind,
    and `nn.TransformerEncoder` takes no shortcut. Both looks draw the same dropout masks.
    """
    model.train()
    before = _looked(model, probe, seed)
    for step, batch in enumerate(batches, start=1):
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(model, batch)
        if not math.isfinite(float(loss.detach())):
            return Run({}, {}, {}, step)
        torch.autograd.backward(loss)
        optimizer.step()
    after = _looked(model, probe, seed)
    changes = {name: after[name] - before[name] for name in before if name in after}
    return Run(_means(before), _means(after), _means(changes))


def _looked(model: nn.Module, probe: Inputs, seed: int) -> dict[str, Tensor]:
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        return activations(model, probe)


def _means(values: Mapping[str, Tensor]) -> Sizes:
    return {name: size(value) for name, value in values.items()}


def size(value: Tensor) -> float:
    """The mean absolute value over finite elements: a causal mask of -inf has no size."""
    mean = float(value.abs().mean(dtype=_precision(value)))
    if math.isfinite(mean):
        return mean
    finite = value[value.isfinite()]
    return float(finite.abs().double().mean()) if finite.numel() else 0.0


def _precision(value: Tensor) -> torch.dtype:
    return torch.promote_types(value.dtype, torch.float32)
