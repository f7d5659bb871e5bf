"""What one run of a model recorded: a graph, and what is known about each of its nodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

import sympy
import torch
from torch import fx

from mufx.decisions import Decision
from mufx.diagnostics import Diagnostic, Place


class Precision(Enum):
    """How the model is run."""

    AS_BUILT = "as built"
    BFLOAT16 = "bfloat16"
    """After `model.bfloat16()`, with inputs of that type."""
    FLOAT64 = "float64"
    """After `model.double()`, with inputs of that type."""
    AUTOCAST = "autocast"
    """Under `torch.autocast(dtype=torch.bfloat16)`."""


@dataclass(frozen=True, slots=True)
class Size:
    """A batch or sequence size that stays free: an expression over the inputs' sizes.

    `expr` is over the symbols of `Recording.symbols`; `hint` is its value for the example inputs.
    It stands in a node's arguments wherever the model passed such a number.
    """

    expr: sympy.Expr
    hint: int | float | bool

    def __repr__(self) -> str:
        """The expression."""
        return str(self.expr)


class InputDevice:
    """The place of a device in a node's arguments: the device that the inputs are on."""

    def __repr__(self) -> str:
        """A name, the same in every recording."""
        return "device"


DEVICE = InputDevice()
Dim: TypeAlias = "int | Size"


@dataclass(frozen=True, slots=True)
class TensorValue:
    """Shape and dtype of one tensor."""

    shape: tuple[Dim, ...]
    dtype: torch.dtype

    @property
    def sizes(self) -> tuple[int, ...]:
        """The shape for the example inputs."""
        return tuple(int(d.hint) if isinstance(d, Size) else d for d in self.shape)


@dataclass(frozen=True, slots=True)
class Statement:
    """The innermost line of a model's own code, a module of `torch.nn` included, that was running.

    `instruction` counts up within one execution of a statement; where it falls back, the
    statement was entered again.
    """

    file: str
    line: int
    function: str
    instruction: int


@dataclass(frozen=True, slots=True)
class Call:
    """One call of one module: `index` counts the calls of the same module."""

    path: str
    index: int
    parent: Call | None
    cls: type[torch.nn.Module]
    statement: Statement | None = field(default=None, compare=False, repr=False)
    """Where the parent's forward makes the call."""

    @property
    def key(self) -> tuple[str, int]:
        """Identifies the call in every recording of the same model."""
        return (self.path, self.index)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a node came from."""

    place: Place
    """The line in the user's source."""
    call: Call | None
    """The innermost module call; `None` outside of any."""
    statement: Statement


@dataclass(frozen=True)
class Recording:
    """One run at one size in one mode.

    The graph has `placeholder` nodes named like the forward's parameters, `get_attr` nodes named
    by fully qualified parameter or buffer name, `call_function` and `call_method` nodes at the
    level of torch's public functions, and one `output` node. In-place operations stand in it as
    the model made them, in its order.
    """

    graph: fx.Graph
    values: Mapping[str, TensorValue | None]
    """By node name; `None` where a node yields no single tensor (a split, an assignment)."""
    origins: Mapping[str, Origin]
    arguments: Mapping[tuple[str, int], object]
    """By `Call.key`: what was passed, by the names of forward's parameters, with nodes."""
    results: Mapping[tuple[str, int], object]
    """By `Call.key`: what the call returned, with nodes in the place of tensors."""
    symbols: Mapping[str, tuple[str, int]]
    """The name of a symbol to (placeholder name, dimension), of those as well that got fixed."""
    lengths: Mapping[str, int]
    """The number of results of nodes that yield several."""
    output_class: str | None
    """The class name of the output where it is a record with named fields, else `None`."""
    diagnostics: tuple[Diagnostic, ...] = ()
    decisions: tuple[Decision, ...] = ()
    """What the model decided from sizes that are free."""


def moved(value: object, nodes: Mapping[str, fx.Node]) -> object:
    """`value` with each node replaced by the one of its name, as after copying a graph."""
    if isinstance(value, fx.Node):
        return nodes[value.name]
    if isinstance(value, tuple):
        return tuple(moved(v, nodes) for v in value)
    if isinstance(value, dict):
        return {k: moved(v, nodes) for k, v in value.items()}
    return value
