"""What explains a fall of the zoo, and what does not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mufx.check.request import Request, Variant
from mufx.check.result import Checked, NodeRow
from mufx.check.slopes import Slope
from tests.zoo.falls import explained, unexplained


def row(node: str, change: float, start: float = 0.0, error: float = 0.0) -> NodeRow:
    slopes = (Slope(start), Slope(0.0), Slope(change, error))
    return NodeRow(Variant.MUP, node, *slopes, 0.0, Slope(None), None)


def found(*rows: NodeRow) -> Checked:
    request = Request(widths=(1, 2), variants=(Variant.MUP,))
    return Checked("Model", "width", (1, 2), request, rows, {}, {}, synthetic=False)


@pytest.mark.parametrize(
    ("rows", "cause"),
    [
        ([row("head:linear#1", -0.4, start=-0.5)], "starts small"),
        (
            [row("h.0.attn:matmul#1", -0.2, start=-0.5), row("h.0.attn:softmax#1", -0.4)],
            "follows attention's logits",
        ),
        (
            [row("h.0.mlp.gate:linear#1", -0.2, start=-0.5), row("h.0.mlp.experts:sum#1", -0.4)],
            "follows a router's logits",
        ),
        ([row("h.0.norm:mean#1", -0.4), row("h.0.norm:mul#1", 0.0)], "inside a norm"),
        ([replace(row("h.0.mixer:add#1", -0.4), predicted=-0.5)], "reads out beside others"),
        (
            [replace(row("h.0.mixer:mul#1", 1.0), design=1.0), row("h.0.mixer:mul#2", -1.4)],
            "forgets",
        ),
    ],
)
def test_a_fall_has_a_cause_that_is_seen(rows: list[NodeRow], cause: str) -> None:
    assert unexplained(found(*rows)) == []
    assert [fall.cause for fall in explained(found(*rows))] == [cause]


@pytest.mark.parametrize(
    "rows",
    [
        [row("h.0.mlp:linear#1", -0.4)],
        [row("head:linear#1", -0.7, start=-0.5)],
        # Another block's logits start small, and this one's do not.
        [row("h.1.attn:matmul#1", -0.2, start=-0.5), row("h.0.attn:softmax#1", -0.4)],
        # What leaves the norm falls as well.
        [row("h.0.norm:mean#1", -0.4), row("h.0.norm:mul#1", -0.4)],
        [replace(row("h.0.mixer:add#1", -0.4), predicted=-0.1)],
        # No value of this mixer grows by design.
        [replace(row("h.1.mixer:mul#1", 1.0), design=1.0), row("h.0.mixer:mul#2", -1.4)],
    ],
    ids=["no cause", "too far", "elsewhere", "passed on", "not predicted", "kept elsewhere"],
)
def test_a_fall_without_what_must_be_seen_beside_is_not_explained(rows: list[NodeRow]) -> None:
    name, slope = rows[-1].node, rows[-1].change.value
    assert f"{name} {slope:+.2f}" in unexplained(found(*rows))


def test_blocks_are_one_line_with_the_lowest_slope() -> None:
    rows = [row(f"h.{i}.attn:matmul#1", -0.35 - i / 10, start=-0.5) for i in range(2)]

    (fall,) = explained(found(*rows))
    assert (fall.nodes, fall.number, fall.lowest) == ("h.*.attn:matmul", 2, rows[1].change.value)


def test_what_may_be_chance_is_no_fall() -> None:
    assert explained(found(row("h.0.mlp:linear#1", -0.4, error=0.06))) == []
