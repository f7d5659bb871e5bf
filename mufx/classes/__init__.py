"""Axis classes: which axes of one instance always grow together, without a factory.

The identity of every axis is followed through one recording. A class is named by a parameter
that shows it; the user says which classes grow, and by how much.
"""

from __future__ import annotations

from torch import nn

from mufx.classes.converting import convert_instance
from mufx.classes.finding import Identities, find_identities
from mufx.classes.listing import ClassRow, ClassTable, listed
from mufx.classes.planning import InstancePlan, plan_instance
from mufx.classes.program import trace_instance
from mufx.garbage import uncollected
from mufx.inputs import from_values
from mufx.source import BATCH, ExampleInputs

__all__ = [
    "ClassRow",
    "ClassTable",
    "Identities",
    "InstancePlan",
    "convert_instance",
    "find_identities",
    "plan_instance",
    "table",
    "trace_instance",
]


@uncollected()
def table(model: nn.Module, inputs: ExampleInputs, *, batch: int = BATCH) -> ClassTable:
    """The classes of axes of an instance, each named by a parameter that shows it.

    Nothing is computed; the instance, on any device, stays as it is.

    Args:
        model: The instance.
        inputs: Example inputs of `forward`, as in `mufx.convert`.
        batch: The batch size, where the inputs are a function of it.

    Raises:
        MufxError: `MUF10x`: the model cannot be recorded.
    """
    identities = find_identities(model, from_values(inputs)(batch, {}))
    return listed(identities, type(model).__name__)
