"""One run: activations on a probe before and after some steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from mufx.check.watch import activations
from mufx.inputs import Inputs

Sizes = Mapping[str, float]
SMALL: Final = 1e-4
"""The rate of a small first step, as a part of the rate that is trained with."""


@dataclass(frozen=True, slots=True)
class Run:
    """What one run measured, by node: mean absolute values over all elements.

    Attributes:
        starts: Of the activation before the first step.
        sizes: Of the activation after the last step.
        changes: Of its difference to what it was before the first step.
        first: Of the difference that one small step makes, on the batch of that step.
        diverged: The first step with a loss that is not finite, from 1; the run ends there. The
            last step where that left a loss or an activation that is not finite.
    """

    starts: Sizes
    sizes: Sizes
    changes: Sizes
    first: Sizes = field(default_factory=dict[str, float])
    diverged: int | None = None


def run(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_of: Callable[[nn.Module, Inputs], Tensor],
    batches: Sequence[Inputs],
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
        if not _is_finite(loss):
            return Run({}, {}, {}, diverged=step)
        torch.autograd.backward(loss)
        optimizer.step()
    after = _looked(model, probe, seed)
    with torch.no_grad():
        last = loss_of(model, batches[-1])
    if _blown_up(before, after) or not _is_finite(last):
        return Run({}, {}, {}, diverged=len(batches))
    changes = {name: after[name] - before[name] for name in before if name in after}
    return Run(_means(before), _means(after), _means(changes))


def first_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_of: Callable[[nn.Module, Inputs], Tensor],
    batch: Inputs,
    probe: Inputs,
    seed: int = 0,
) -> Sizes:
    """The change of every node in one step of a rate so small that all of it is first order.

    In float64, in which such a change has digits enough; empty where the model computes in a
    precision of its own. `probe` are the inputs of `batch`. What theory says of a step holds here
    exactly: later ones are bent by what saturates, a loss that is solved first of all.
    """
    model.train().double()
    batch, probe = tree_map_only(Tensor, _doubled, (batch, probe))
    for group in optimizer.param_groups:
        group["lr"] *= SMALL
    try:
        before = _looked(model, probe, seed)
        torch.autograd.backward(loss_of(model, batch))
    except RuntimeError:
        return {}
    optimizer.step()
    after = _looked(model, probe, seed)
    return _means({name: after[name] - value for name, value in before.items()})


def _is_finite(loss: Tensor) -> bool:
    return math.isfinite(float(loss.detach()))


def _blown_up(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> bool:
    """Whether what was finite is so no longer: a mask of -inf never was."""
    pairs = ((value, after[name]) for name, value in before.items() if name in after)
    return any(bool((old.isfinite() & ~new.isfinite()).any()) for old, new in pairs)


def _doubled(value: Tensor) -> Tensor:
    return value.double() if value.is_floating_point() else value


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
