"""What learns less in a wider model, and why that is no fault.

A cause is not taken on trust: it names the nodes that it can be the cause of, what else must have
been measured, and how far a slope may fall by it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from mufx.check.request import Variant
from mufx.check.result import Checked, NodeRow
from mufx.check.slopes import GROWS

FALLS: Final = -0.3
"""A slope, less its prediction, that is looked into."""
ROOT: Final = -0.5 - GROWS
"""The slope of width**-0.5, with which a mean over the width of independent products falls, and
what any slope may be off."""


@dataclass(frozen=True)
class Cause:
    """Why a node may fall.

    Attributes:
        name: In a few words.
        why: What happens there.
        nodes: The nodes that it can explain, a regular expression over `module:operation#n`.
        measured: What must be seen beside, in words.
        holds: The same, of a row and all the others.
        lowest: The slope, less its prediction, below which it explains nothing.
    """

    name: str
    why: str
    nodes: str
    measured: str
    holds: Callable[[NodeRow, Checked], bool]
    lowest: float = ROOT

    def explains(self, row: NodeRow, found: Checked) -> bool:
        """Whether it is why a node falls."""
        left = slope(row) + 2 * row.change.error
        named = re.search(self.nodes, row.node) is not None
        return named and left >= self.lowest and self.holds(row, found)


def slope(row: NodeRow) -> float:
    """Of the change, less what it has by design."""
    assert row.change.value is not None
    return row.change.value - row.design


def starts_small(row: NodeRow) -> bool:
    """Whether a node falls before any training."""
    return row.start.value is not None and row.start.value - row.design < FALLS


def _in_attention(row: NodeRow, found: Checked) -> bool:
    """The module is named by its nodes' pattern, its dropout is inside it."""
    block = re.match(r"(?i).*?att[^.]*", _module(row))
    return block is not None and _starts_small_in(block[0], found)


def _in_experts(row: NodeRow, found: Checked) -> bool:
    """The router and the experts are beside each other."""
    return _starts_small_in(_module(row).rpartition(".")[0], found)


def _starts_small_in(module: str, found: Checked) -> bool:
    return any(
        starts_small(row) and f"{_module(row)}.".startswith(f"{module}.")
        for row in found.of(Variant.MUP)
    )


def _passes_on(row: NodeRow, found: Checked) -> bool:
    """Whether what leaves the module of a node does not fall."""
    last = [other for other in found.of(Variant.MUP) if _module(other) == _module(row)][-1]
    return last.change.value is not None and slope(last) + 2 * last.change.error >= FALLS


def _decays(row: NodeRow, found: Checked) -> bool:
    """Whether values that grow by design are part of the module of a node."""
    return any(
        _module(other) == _module(row) and other.design > 0.5 for other in found.of(Variant.MUP)
    )


def _module(row: NodeRow) -> str:
    return row.node.partition(":")[0]


CAUSES: Final = (
    Cause(
        "starts small",
        "a product of independent vectors, averaged over the width: an attention logit under a "
        "scale of 1/d, or a readout. It starts with a size of width**-0.5, and what moves first "
        "is one operand while the other is still random, so that the change is as small at first",
        "",
        "the node's own size before training falls as far",
        lambda row, _: starts_small(row),
    ),
    Cause(
        "follows attention's logits",
        "a function of attention logits beside a mask or a bias: it moves as they do",
        r"(?i)att[^:]*:(add|cat|sub|softmax|getitem|masked_fill|where|gather|div|tanh|mul|dropout)#\d+$",
        "a node of the same attention starts small",
        _in_attention,
    ),
    Cause(
        "follows a router's logits",
        "a function of a router's logits, which start small: it moves as they do",
        r"(gate|router|experts)[^:]*:(softmax|sigmoid|sum|add|div|getitem|masked_fill)#\d+$",
        "a node of the same experts starts small",
        _in_experts,
    ),
    Cause(
        "inside a norm",
        "the statistics of a norm, a mean of squares over the width: its change is twice the mean "
        "of x dx, which are nearly orthogonal (width**-0.5), and the mean of dx**2, which is flat "
        "and smaller while x has moved by less than its size",
        r"(?i)norm[^:]*:(mean|add|rsqrt|pow|var|sqrt)#\d+$",
        "what leaves the norm does not fall",
        _passes_on,
    ),
    Cause(
        "reads out beside others",
        "rows of a fused weight that read out start with width**-0.5, and what they make is part "
        "of a node that other rows fill: the steps of Mamba 2, before their bias is added",
        r"mixer:[a-z_]+#\d+$",
        "the predicted change in a first step falls as far",
        lambda row, _: row.predicted is not None and row.predicted - row.design < FALLS,
    ),
    Cause(
        "forgets",
        "exp(-A t) of decays A that a conversion keeps (`MUF204`), where they grow with the width: "
        "ever more heads keep nothing of the chunk before",
        r"mixer:(mul|einsum)#\d+$",
        "a node of the same module grows by design",
        _decays,
        lowest=-1.5,
    ),
)
"""Beside these nothing may fall; the first that explains a node counts."""


def falling(found: Checked) -> list[NodeRow]:
    """The μP nodes that fall, beyond two standard errors."""
    return [
        row
        for row in found.of(Variant.MUP)
        if row.change.value is not None and slope(row) + 2 * row.change.error < FALLS
    ]


def unexplained(found: Checked) -> list[str]:
    """Those of them that have no cause here."""
    return [f"{row.node} {slope(row):+.2f}" for row in falling(found) if cause(row, found) is None]


def cause(row: NodeRow, found: Checked) -> Cause | None:
    """Why a node falls."""
    return next((why for why in CAUSES if why.explains(row, found)), None)


@dataclass(frozen=True)
class Fall:
    """Nodes of all blocks that fall for one cause: how many, and the lowest slope."""

    nodes: str
    number: int
    lowest: float
    cause: str


def explained(found: Checked) -> list[Fall]:
    """What falls in a model, one line for the same node of all blocks."""
    slopes: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in falling(found):
        why = cause(row, found)
        nodes = re.sub(r"\b\d+\b", "*", row.node.partition("#")[0])
        slopes[nodes, why.name if why is not None else ""].append(slope(row))
    return [Fall(n, len(each), min(each), why) for (n, why), each in slopes.items()]
