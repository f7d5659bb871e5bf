"""Follows the identity of every axis through one instance of a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from mufx.classes.axes import AxisSpace
from mufx.classes.table import Axes
from mufx.classes.watch import AxisWatch, Clash, Gap
from mufx.forward import Inputs, record_forward
from mufx.recording import Recording
from mufx.spelled import SPELLED


@dataclass(frozen=True)
class Run:
    """One mode of the instance.

    Attributes:
        recording: What ran.
        axes: The axes of every recorded node that yields a tensor.
        gaps: Operations through which the identity of some axes is not known.
        clashes: Equal axes whose parts do not fit together.
    """

    training: bool
    recording: Recording
    axes: Mapping[str, Axes]
    gaps: tuple[Gap, ...]
    clashes: tuple[Clash, ...]


@dataclass(frozen=True)
class Identities:
    """Which axes of one instance are the same, in training and in evaluation.

    Attributes:
        space: The axes of both modes, and what they are made of.
        parameters: The axes of every parameter, by its first name, in the model's order.
    """

    space: AxisSpace
    parameters: Mapping[str, Axes]
    train: Run
    evaluate: Run

    @property
    def runs(self) -> tuple[Run, Run]:
        """Both modes: training, evaluation."""
        return (self.train, self.evaluate)


def find_identities(model: nn.Module, inputs: Inputs) -> Identities:
    """Records an instance in both modes; an axis is one where an operation says so in either.

    Nothing is computed, and the instance stays as it is.

    Raises:
        MufxError: `MUF10x`, as any recording.
    """
    watch = AxisWatch()
    train, evaluate = (_run(watch, model, inputs, mode) for mode in (True, False))
    named = {
        name: watch.named.get(name) or _unused(watch.space, parameter)
        for name, parameter in model.named_parameters()
    }
    return Identities(watch.space, named, train, evaluate)


def _run(watch: AxisWatch, model: nn.Module, inputs: Inputs, training: bool) -> Run:
    spelled = dict(SPELLED.values())
    watch.start()
    recording = record_forward(model, inputs, training=training, spelled=spelled, watch=watch)
    gaps, clashes = tuple(watch.gaps), tuple(watch.clashes)
    return Run(training, recording, dict(watch.nodes), gaps, clashes)


def _unused(space: AxisSpace, parameter: torch.Tensor) -> Axes:
    return tuple(space.new(int(n)) for n in parameter.shape)
