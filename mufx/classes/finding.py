"""Finds the classes of axes of one instance of a model."""

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
class Identities:
    """Which axes of one instance are the same, in one mode.

    Attributes:
        space: The axes and what they are made of.
        nodes: The axes of every recorded node that yields a tensor.
        parameters: The axes of every parameter, by its first name.
        gaps: Operations through which the identity of some axes is not known.
        clashes: Equal axes whose parts do not fit together.
    """

    recording: Recording
    space: AxisSpace
    nodes: Mapping[str, Axes]
    parameters: Mapping[str, Axes]
    gaps: tuple[Gap, ...]
    clashes: tuple[Clash, ...]


def find_identities(model: nn.Module, inputs: Inputs, *, training: bool = True) -> Identities:
    """Records one run of an instance and follows the identity of every axis through it.

    Raises:
        MufxError: `MUF10x`, as any recording.
    """
    watch = AxisWatch()
    spelled = {fused: steps for fused, steps in SPELLED.values()}
    recording = record_forward(model, inputs, training=training, spelled=spelled, watch=watch)
    names = {str(n.target): n.name for n in recording.graph.nodes if n.op == "get_attr"}
    parameters = {
        name: watch.nodes[names[name]] if name in names else _unused(watch, parameter)
        for name, parameter in model.named_parameters()
    }
    return Identities(
        recording, watch.space, watch.nodes, parameters, tuple(watch.gaps), tuple(watch.clashes)
    )


def _unused(watch: AxisWatch, parameter: torch.Tensor) -> Axes:
    return tuple(watch.space.new(int(n)) for n in parameter.shape)
