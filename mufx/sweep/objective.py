"""A sweep from end to end: the plan of a model, and the run of each of its points."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from mufx.sweep.batches import Data, Loss, batches
from mufx.sweep.models import Models
from mufx.sweep.settings import Point, Settings
from mufx.sweep.training import Outcome, Schedule, train
from mufx.sweep.values import Value


@dataclass(frozen=True)
class Objective:
    """Trains a point; what `Study.work` runs."""

    settings: Settings
    models: Models
    data: Data
    loss: Loss

    def __call__(self, point: Point, values: Mapping[str, Value]) -> Outcome:
        """The loss of the point with these values.

        The seed of a point gives its init, and then its batches: they are the same ones at every
        width and every rate, so that what differs is what was changed.
        """
        settings = self.settings
        model, optimizer = self.models.made(point, {**settings.fixed, **values})
        torch.manual_seed(point.seed)
        knobs = self.models.widths[point.width]
        given = batches(self.data, settings.batch, settings.steps, self.models.device, knobs)
        schedule = Schedule(settings.steps, settings.warmup, settings.decay)
        return train(model, optimizer, schedule, self.loss, given)
