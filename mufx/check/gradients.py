"""The gradients of a first step: how large they are, and how alike those of two rows."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

from torch import fx

from mufx.check.alike import Alike
from mufx.check.links import LEARNING, Kind, Link, Links
from mufx.magnitudes import Magnitude


@dataclass(frozen=True, slots=True)
class Rows:
    """A gradient or a change: the size of an entry, and the cosine of two rows of a sequence."""

    size: float = 0.0
    near: float = 0.0

    def times(self, factor: float) -> Rows:
        """As large as a number of times it."""
        return Rows(self.size * factor, self.near)

    def plus(self, other: Rows, *, along: bool = False) -> Rows:
        """The sum with an independent one, or with one along the same gradient."""
        square = self.size**2 + other.size**2
        if square == 0:
            return self
        near = (self.size**2 * self.near + other.size**2 * other.near) / square
        return Rows(self.size + other.size if along else math.sqrt(square), near)


_ZERO: Final = Rows()


@dataclass
class Gradients:
    """Of a first step, where the gradient of an output is 1.

    Attributes:
        nodes: By node.
        parameters: By parameter, from all of the places that use it.
        terms: By operand and result: what comes back to the one from the other.
    """

    nodes: dict[str, Rows] = field(default_factory=dict[str, Rows])
    parameters: dict[str, float] = field(default_factory=dict[str, float])
    terms: dict[tuple[str, str], float] = field(default_factory=dict[tuple[str, str], float])

    def of(self, node: str) -> Rows:
        """The gradient of a node."""
        return self.nodes.get(node, _ZERO)

    def share(self, operand: str, result: str) -> float:
        """The root of the part of the square of an operand's gradient that a result gave it."""
        whole = self.of(operand).size
        return min(1.0, self.terms.get((operand, result), 0.0) / whole) if whole > 0 else 0.0


def gradients(start: Links) -> Gradients:
    """The sizes of all gradients.

    Backwards a gain is what it is forwards, for the entries that both have: a random matrix has
    the same Frobenius norm as its transpose. So one entry takes the gain times the square root of
    the number of the result's entries over that of the operand's.
    """
    nodes: dict[str, fx.Node] = {node.name: node for node in start.trace.graph.nodes}
    found = Gradients(dict.fromkeys(_outputs(start), Rows(1.0)))
    for node in reversed(list(nodes.values())):
        for link in start.links.get(node.name, ()):
            back = _back(start, found.of(node.name), node, nodes[link.operand], link)
            found.terms[link.operand, node.name] = back.size
            found.nodes[link.operand] = found.of(link.operand).plus(back)
    for node in nodes.values():
        if node.op == "get_attr":
            name = str(node.target)
            before = found.parameters.get(name, 0.0)
            found.parameters[name] = math.hypot(before, found.of(node.name).size)
    return found


def _back(start: Links, slope: Rows, node: fx.Node, operand: fx.Node, link: Link) -> Rows:
    if link.means is not None:
        size, alike = link.means.backward(Alike(slope.near))
        return Rows(slope.size * size, alike.near)
    size = slope.size * link.gain * math.sqrt(start.entries(node) / start.entries(operand))
    if link.kind in LEARNING:
        return Rows(size * start.batch.learned(link.met, slope.near))
    return Rows(size, 0.0 if link.kind is Kind.KEY else slope.near * link.met.near)


def _outputs(start: Links) -> list[str]:
    """What a loss is made from: the outputs of fixed size, of which the gradient keeps its size."""
    (output,) = (n for n in start.trace.graph.nodes if n.op == "output")
    return [
        node.name
        for node in output.all_input_nodes
        if isinstance(start.item(node), Magnitude) and not any(a.grows for a in start.axes(node))
    ]
