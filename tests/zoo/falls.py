"""What learns less in a wider model, and why that is no fault."""

from __future__ import annotations

import re
from typing import Final

from mufx.check.request import Variant
from mufx.check.result import Checked, NodeRow

FALLS: Final = -0.3
"""A slope, less its prediction, that is looked into."""

STARTS_SMALL: Final = (
    "a product of independent vectors, averaged over the width: an attention logit under a scale "
    "of 1/d, or a readout. It starts with a size of width**-0.5, and what moves first is one "
    "operand while the other is still random, so that the change is as small at first"
)
CAUSES: Final = {
    r"(?i)norm[^:]*:(mean|add|rsqrt|pow|var|sqrt)#\d+$": (
        "the statistics of a norm, a mean of squares over the width: its change is twice the mean "
        "of x dx, which are nearly orthogonal (width**-0.5), and the mean of dx**2, which is flat "
        "and smaller while x has moved by less than its size"
    ),
    r"(?i)att[^:]*:(add|cat|sub|softmax|getitem|masked_fill|where|gather|div|tanh|mul)#\d+$": (
        "a function of attention logits beside a mask or a bias: it moves as they do"
    ),
    r"(gate|router|experts)[^:]*:(softmax|sigmoid|sum|add|div|getitem|masked_fill)#\d+$": (
        "a function of a router's logits, which start small: it moves as they do"
    ),
}
"""By node: why its change falls, beside what starts small."""


def falling(found: Checked) -> list[NodeRow]:
    """The μP nodes that fall, beyond two standard errors."""
    return [
        row
        for row in found.of(Variant.MUP)
        if row.change.value is not None
        and row.change.value - row.design + 2 * row.change.error < FALLS
    ]


def unexplained(found: Checked) -> list[str]:
    """Those of them that have no cause here."""
    return [row.node for row in falling(found) if cause(row) is None]


def cause(row: NodeRow) -> str | None:
    """Why a node falls."""
    start = row.start.value
    if start is not None and start - row.design < FALLS:
        return STARTS_SMALL
    return next((why for node, why in CAUSES.items() if re.search(node, row.node)), None)
