"""One run: activations on a probe before and after some steps."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from mufx.check.own import own_changes
from mufx.check.watch import activations
from mufx.inputs import Inputs

Sizes = Mapping[str, float]
SMALL: Final = 1e-4
"""The rate of a small first step, as a part of the rate that is trained with."""
_PRECISION: Final = re.compile(r"(?i)dtype|scalar type|input type|float64|double")
"""What torch says where tensors of two precisions meet, or where a device has no float64."""


@dataclass(frozen=True, slots=True)
class Run:
    """What one run measured, by node: mean absolute values over all elements.

    Attributes:
        starts: Of the activation before the first step.
        sizes: Of the activation after the last step.
        changes: Of its difference to what it was before the first step.
        first: Of the difference that one small step makes, on the batch of that step.
        own: Of the most that a parameter alone can change in that step, by `node parameter`.
        diverged: The first step with a loss that is not finite, from 1; the run ends there. The
            last step where that left a loss or an activation that is not finite.
    """

    starts: Sizes
    sizes: Sizes
    changes: Sizes
    first: Sizes = field(default_factory=dict[str, float])
    own: Sizes = field(default_factory=dict[str, float])
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
    if _blown_up(before, after) or not _is_finite(loss_of(model, batches[-1])):
        return Run({}, {}, {}, diverged=len(batches))
    return Run(_means(before), _means(after), _distances(before, after))


def first_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_of: Callable[[nn.Module, Inputs], Tensor],
    batch: Inputs,
    probe: Inputs,
    seed: int = 0,
) -> tuple[Sizes, Sizes]:
    """The change of every node in one step of a rate so small that all of it is first order.

    And, under Adam, the most that each parameter alone can change: see `own_changes`. In float64,
    in which such a change has digits enough; empty where the model computes in a precision of its
    own. `probe` are the inputs of `batch`. What theory says of a step holds here exactly: later
    ones are bent by what saturates, a loss that is solved first of all.
    """
    try:
        return _first_step(model, optimizer, loss_of, batch, probe, seed)
    except (RuntimeError, TypeError) as problem:
        if not _PRECISION.search(str(problem)):
            raise
        return {}, {}


def _first_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_of: Callable[[nn.Module, Inputs], Tensor],
    batch: Inputs,
    probe: Inputs,
    seed: int,
) -> tuple[Sizes, Sizes]:
    model.train().double()
    batch, probe = tree_map_only(Tensor, _doubled, (batch, probe))
    for group in optimizer.param_groups:
        group["lr"] *= SMALL
    before = _looked(model, probe, seed)
    own = _own(model, optimizer, probe, seed)
    torch.autograd.backward(loss_of(model, batch))
    optimizer.step()
    after = _looked(model, probe, seed)
    return _distances(before, after), own


def _own(model: nn.Module, optimizer: torch.optim.Optimizer, probe: Inputs, seed: int) -> Sizes:
    """Of steps that have the size of the rate, as Adam's have; those of SGD have the gradient's."""
    if not isinstance(optimizer, torch.optim.Adam):
        return {}
    rates = {id(p): float(g["lr"]) for g in optimizer.param_groups for p in g["params"]}
    with _seeded(model, seed):
        steps = {
            name: rates[id(p)] * torch.randn_like(p).sign()
            for name, p in model.named_parameters()
            if id(p) in rates
        }
        return _means(own_changes(model, probe, steps))


def _is_finite(loss: Tensor) -> bool:
    return math.isfinite(float(loss.detach()))


def _blown_up(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> bool:
    """Whether what was finite is so no longer: a mask of -inf never was."""
    pairs = ((value, after[name]) for name, value in before.items() if name in after)
    return any(bool((old.isfinite() & ~new.isfinite()).any()) for old, new in pairs)


def _doubled(value: Tensor) -> Tensor:
    return value.double() if value.is_floating_point() else value


def _looked(model: nn.Module, probe: Inputs, seed: int) -> dict[str, Tensor]:
    with _seeded(model, seed):
        return activations(model, probe)


@contextmanager
def _seeded(model: nn.Module, seed: int) -> Generator[None]:
    """The same draws every time; what is drawn later is not changed by them."""
    devices = {p.device for p in model.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield


def _means(values: Mapping[str, Tensor]) -> Sizes:
    return {name: size(value) for name, value in values.items()}


def _distances(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> Sizes:
    """Of every node that both have."""
    return {name: distance(after[name], old) for name, old in before.items() if name in after}


def size(value: Tensor) -> float:
    """The mean absolute value over finite elements: a causal mask of -inf has no size."""
    return _size(value.abs())


def distance(one: Tensor, other: Tensor) -> float:
    """The size of the difference of two values of one shape.

    In one piece of memory: where a second one is asked for after a large first one, the system
    takes both back, and to be given them anew costs ten times what is computed.
    """
    difference = one - other
    return _size(difference.abs() if difference.is_complex() else difference.abs_())


def _size(absolute: Tensor) -> float:
    mean = float(absolute.mean(dtype=_precision(absolute)))
    if math.isfinite(mean):
        return mean
    finite = absolute[absolute.isfinite()]
    return float(finite.double().mean()) if finite.numel() else 0.0


def _precision(value: Tensor) -> torch.dtype:
    return torch.promote_types(value.dtype, torch.float32)
