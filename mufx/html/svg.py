"""Writes a layout as an SVG element; its colours are the page's."""

from __future__ import annotations

from itertools import pairwise
from typing import Final
from xml.etree import ElementTree

from mufx.html.layout import LINE, PAD, Layout, Placed, Spot

_EDGE: Final = 4.0


def drawn(layout: Layout) -> str:
    """The text of the element."""
    width, height = layout.width + 2 * _EDGE, layout.height + 2 * _EDGE
    root = ElementTree.Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "class": "graph",
            "viewBox": f"{-_EDGE:g} {-_EDGE:g} {width:g} {height:g}",
            "width": f"{width:g}",
            "height": f"{height:g}",
        },
    )
    for arrow in layout.arrows:
        _arrow(root, arrow)
    for placed in layout.boxes:
        _box(root, placed)
    return ElementTree.tostring(root, encoding="unicode")


def _box(root: ElementTree.Element, placed: Placed) -> None:
    group = ElementTree.SubElement(root, "g", {"class": f"box {placed.box.kind}"})
    size = {"x": placed.x, "y": placed.y, "width": placed.width, "height": placed.height}
    ElementTree.SubElement(
        group, "rect", {name: f"{v:.1f}" for name, v in size.items()} | {"rx": "4"}
    )
    for i, line in enumerate(placed.box.lines):
        x, y = placed.x + placed.width / 2, placed.y + PAD / 2 + LINE * (i + 0.75)
        last = placed.box.kind in ("new", "old") and i == len(placed.box.lines) - 1
        kind = "first" if i == 0 else "number" if last else "more"
        text = ElementTree.SubElement(
            group, "text", {"class": kind, "x": f"{x:.1f}", "y": f"{y:.1f}"}
        )
        text.text = line


def _arrow(root: ElementTree.Element, points: tuple[Spot, ...]) -> None:
    """A smooth line down, and its head."""
    (x, y), *_ = points
    path = [f"M{x:.1f},{y:.1f}"]
    for (x0, y0), (x1, y1) in pairwise(points):
        middle = (y0 + y1) / 2
        path.append(f"C{x0:.1f},{middle:.1f} {x1:.1f},{middle:.1f} {x1:.1f},{y1:.1f}")
    ElementTree.SubElement(root, "path", {"class": "arrow", "d": " ".join(path)})
    x, y = points[-1]
    head = f"M{x - 3.5:.1f},{y - 6:.1f} L{x:.1f},{y:.1f} L{x + 3.5:.1f},{y - 6:.1f} z"
    ElementTree.SubElement(root, "path", {"class": "head", "d": head})
