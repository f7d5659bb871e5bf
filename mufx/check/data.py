"""What a check trains on: the user's batches, or the example inputs with random targets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from mufx.devices import moved
from mufx.diagnostics import MufxError
from mufx.inputs import Inputs
from mufx.knobs import Knobs
from mufx.source import Source
from mufx.sweep.batches import Data, Loss, batches


@dataclass(frozen=True)
class Feed:
    """Batches of a seed: the same ones at every width, as far as they are no wider themselves.

    `data` is None for synthetic data: one batch of example inputs, learned by heart. Where the
    model returns no loss its target is random.
    """

    source: Source
    data: Data | None
    batch: int
    loss: Loss
    classes: tuple[tuple[int, ...], int] | None = None

    def batches(self, seed: int, count: int, device: torch.device, knobs: Knobs) -> list[Inputs]:
        """`count` batches for a model of these knobs.

        Raises:
            MufxError: `MUF753` and `MUF754` for the user's data.
        """
        torch.manual_seed(seed)
        if self.data is not None:
            return list(islice(batches(self.data, self.batch, count, device, knobs), count))
        args, kwargs = self.source.inputs(self.batch, knobs)
        if self.classes is not None:
            shape, high = self.classes
            args = (*args, torch.randint(high, shape))
        return [moved((args, kwargs), device)] * count


def feed(source: Source, data: Data | None, batch: int, loss: Loss) -> Feed:
    """The user's data where there is some, else synthetic data."""
    if data is not None:
        return Feed(source, data, batch, loss)
    synthetic = Feed(source, None, batch, loss)
    model = source.build(**source.base)
    given = synthetic.batches(0, 1, torch.device("cpu"), source.base)[0]
    return replace(synthetic, classes=_classes(model, given, loss))


@torch.no_grad()
def _classes(model: nn.Module, given: Inputs, loss: Loss) -> tuple[tuple[int, ...], int] | None:
    """The shape of a target and how many classes; None where the model has a loss of its own."""
    try:
        loss(model, given)
    except MufxError:
        args, kwargs = given
        logits = _first(model(*args, **kwargs))
        if logits is None or logits.ndim < 2:
            raise
        return tuple(logits.shape[:-1]), logits.shape[-1]
    return None


def _first(output: object) -> Tensor | None:
    """The first tensor of an output."""
    return next((v for v in tree_leaves(output) if isinstance(v, Tensor)), None)
