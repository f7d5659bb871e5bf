"""Places the boxes of a sketch in rows: every arrow goes down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise
from statistics import fmean
from typing import Final, TypeAlias

from mufx.html.sketch import Box, Sketch

GAP_X: Final = 16.0
GAP_Y: Final = 30.0
CHAR: Final = 6.7
"""Width of a letter of 11 px, monospaced."""
LINE: Final = 15.0
PAD: Final = 8.0
_SWEEPS: Final = 6

Cell: TypeAlias = tuple[str, int]
"""A name and its row: a box, or the place where a long arrow crosses a row."""
Spot: TypeAlias = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Placed:
    """A box, its upper left corner and its size."""

    box: Box
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Layout:
    """Boxes with their places, and arrows as the points that they go through."""

    width: float
    height: float
    boxes: tuple[Placed, ...]
    arrows: tuple[tuple[Spot, ...], ...]


def laid_out(sketch: Sketch) -> Layout:
    """Rows by the longest way from the top; in a row, boxes stand near what they are tied to."""
    row = _rows(sketch)
    boxes = {(box.name, row[box.name]): box for box in sketch.boxes}
    ways = [_way(a, b, row) for a, b in sketch.arrows]
    rows = _ordered(list(boxes), ways)
    heights = [max(_height(boxes[c]) for c in held if c in boxes) for held in rows]
    tops = [0.0, *accumulate(height + GAP_Y for height in heights)]
    middles, width = _middles(rows, boxes)
    placed = {c: _placed(box, middles[c], tops[c[1]]) for c, box in boxes.items()}
    arrows = tuple(_points(way, placed, middles, tops, heights) for way in ways)
    return Layout(width, tops[-1] - GAP_Y, tuple(placed.values()), arrows)


def _rows(sketch: Sketch) -> dict[str, int]:
    """Below everything that goes into it; what nothing goes into stands right above its use."""
    row = {box.name: 0 for box in sketch.boxes}
    for _ in sketch.boxes:
        for a, b in sketch.arrows:
            row[b] = max(row[b], row[a] + 1)
    for name in row.keys() - {b for _, b in sketch.arrows}:
        row[name] = min((row[b] for a, b in sketch.arrows if a == name), default=1) - 1
    return row


def _way(a: str, b: str, row: Mapping[str, int]) -> tuple[Cell, ...]:
    """An arrow as cells, one a row."""
    between = [(f"{a} > {b}", r) for r in range(row[a] + 1, row[b])]
    return ((a, row[a]), *between, (b, row[b]))


def _ordered(boxes: list[Cell], ways: list[tuple[Cell, ...]]) -> list[list[Cell]]:
    """The cells of each row from left to right: swept down and up, by the mean of neighbours."""
    cells = dict.fromkeys((*boxes, *(cell for way in ways for cell in way)))
    rows = [[c for c in cells if c[1] == r] for r in range(1 + max(r for _, r in cells))]
    links = [pair for way in ways for pair in pairwise(way)]
    for sweep in range(_SWEEPS):
        place = {cell: i / len(held) for held in rows for i, cell in enumerate(held)}
        for held in rows if sweep % 2 == 0 else rows[::-1]:
            means = {c: _mean(c, links, place, down=sweep % 2 == 0) for c in held}
            held.sort(key=means.__getitem__)
            place.update({cell: i / len(held) for i, cell in enumerate(held)})
    return rows


def _mean(
    cell: Cell, links: list[tuple[Cell, Cell]], place: Mapping[Cell, float], *, down: bool
) -> float:
    tied = [place[a] for a, b in links if b == cell] if down else []
    tied = tied or [place[b] for a, b in links if a == cell]
    return fmean(tied) if tied else place[cell]


def _middles(rows: list[list[Cell]], boxes: Mapping[Cell, Box]) -> tuple[dict[Cell, float], float]:
    """The middle of every cell, each row centred, and the width of the widest row."""
    widths = [[_width(boxes[c]) if c in boxes else GAP_X for c in held] for held in rows]
    totals = [sum(row) + GAP_X * (len(row) - 1) for row in widths]
    middles: dict[Cell, float] = {}
    for held, row, total in zip(rows, widths, totals, strict=True):
        x = (max(totals) - total) / 2
        for cell, width in zip(held, row, strict=True):
            middles[cell] = x + width / 2
            x += width + GAP_X
    return middles, max(totals)


def _width(box: Box) -> float:
    return CHAR * max(map(len, box.lines)) + 2 * PAD


def _height(box: Box) -> float:
    return LINE * len(box.lines) + PAD


def _placed(box: Box, middle: float, top: float) -> Placed:
    width = _width(box)
    return Placed(box, middle - width / 2, top, width, _height(box))


def _points(
    way: tuple[Cell, ...],
    placed: Mapping[Cell, Placed],
    middles: Mapping[Cell, float],
    tops: list[float],
    heights: list[float],
) -> tuple[Spot, ...]:
    """From the bottom of a box to the top of another; straight down where it crosses a row."""
    start, end = placed[way[0]], placed[way[-1]]
    crossed = [
        (middles[cell], y)
        for cell in way[1:-1]
        for y in (tops[cell[1]], tops[cell[1]] + heights[cell[1]])
    ]
    return (
        (start.x + start.width / 2, start.y + start.height),
        *crossed,
        (end.x + end.width / 2, end.y),
    )
