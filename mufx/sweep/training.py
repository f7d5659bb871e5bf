"""One training run, and the number that it is judged by."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from mufx.inputs import Inputs

TAIL: Final = 0.2  # of the steps: their mean loss is what a run is judged by


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run.

    Attributes:
        loss: The mean training loss over the last fifth of the steps; inf where it diverged.
        diverged: The first step with a loss that is not finite, from 1; None where there is none.
    """

    loss: float
    diverged: int | None = None


@dataclass(frozen=True, slots=True)
class Schedule:
    """What multiplies every group's rate: a linear warmup, then the decay, or none.

    `warmup` is the fraction of the steps that it takes; `decay` is "constant", "linear" or
    "cosine", the latter two down to zero after the last step.
    """

    steps: int
    warmup: float = 0.0
    decay: str = "constant"

    def __call__(self, step: int) -> float:
        """The factor of a step, from 0."""
        rising = round(self.warmup * self.steps)
        if step < rising:
            return (step + 1) / (rising + 1)
        done = (step - rising) / max(1, self.steps - rising)
        return _DECAYS[self.decay](min(1.0, done))


_DECAYS: Final[Mapping[str, Callable[[float], float]]] = {
    "constant": lambda _: 1.0,
    "linear": lambda done: 1 - done,
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
}


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: Schedule,
    loss_of: Callable[[nn.Module, Inputs], Tensor],
    batches: Iterable[Inputs],
) -> Outcome:
    """Trains one step a batch, and stops where the loss is no longer finite."""
    rates = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
    model.train()
    losses: list[float] = []
    for step, batch in enumerate(batches, start=1):
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(model, batch)
        losses.append(float(loss.detach()))
        if not math.isfinite(losses[-1]):
            return Outcome(math.inf, step)
        torch.autograd.backward(loss)
        optimizer.step()
        rates.step()
    return Outcome(_judged(losses))


def _judged(losses: list[float]) -> float:
    tail = losses[-max(1, round(TAIL * len(losses))) :]
    return sum(tail) / len(tail)
