"""A first step: how large the change of every value is, from the graph and the gradients alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from torch import fx

from mufx.check.alike import Alike
from mufx.check.gradients import Gradients, Rows
from mufx.check.links import LEARNING, Kind, Link, Links
from mufx.rules import operation


class Part(StrEnum):
    """Of a change of the rows of a value.

    What a weight learns is a sum of the gradients of what it makes, and so it is aligned with all
    that they came from: with the weight that the value meets next. Keys are a row's own.
    """

    OWN = "own"
    """Along the gradient of the row itself."""
    OTHERS = "others"
    """Along the gradients of other rows."""
    THROUGH = "through"
    """What came through a random matrix, in any direction."""


Change = Mapping[Part, Rows]
_NONE: Final[Change] = dict.fromkeys(Part, Rows())


@dataclass(frozen=True)
class Step:
    """A small step of all parameters.

    Attributes:
        start: What it starts from.
        slopes: The gradients.
        updates: By parameter: the size of its step.
        proportional: Whether a step has the size of its gradient, entry by entry.
    """

    start: Links
    slopes: Gradients
    updates: Mapping[str, float]
    proportional: bool

    def sizes(self) -> dict[str, float]:
        """By node: the size of its change; `node/logits` are the logits inside a fused kernel."""
        return {name: math.hypot(*_sizes(change)) for name, change in self.changes().items()}

    def changes(self) -> dict[str, Change]:
        """The same in its parts."""
        found: dict[str, Change] = {}
        for node in self.start.trace.graph.nodes:
            if node.op == "get_attr":
                found[node.name] = {
                    **_NONE,
                    Part.OWN: Rows(self.updates.get(str(node.target), 0.0)),
                }
            for name, links in self.links(node.name):
                total = dict(_NONE)
                for link in links:
                    for part, term in self.terms(node, link, found.get(link.operand, _NONE)):
                        total[part] = total[part].plus(term, along=part is Part.OWN)
                found[name] = total
        return found

    def links(self, node: str) -> Iterator[tuple[str, tuple[Link, ...]]]:
        """Those of a node, and of the logits inside it."""
        if node in self.start.logits:
            yield f"{node}/logits", self.start.logits[node]
        if node in self.start.links:
            yield node, self.start.links[node]

    def terms(self, node: fx.Node, link: Link, change: Change) -> Iterator[tuple[Part, Rows]]:
        """What becomes of the change of an operand."""
        own = change[Part.OWN]
        if self.start.is_weight(node):
            yield Part.OWN, own.times(link.gain * self._of_part(node))
        elif link.kind in LEARNING:
            yield from self._learned(node, link, own)
        else:
            for part, rows in change.items():
                yield from self._passed(node, link, part, rows)

    def _passed(
        self, node: fx.Node, link: Link, part: Part, rows: Rows
    ) -> Iterator[tuple[Part, Rows]]:
        """What goes on along the gradient of the result, and the rest.

        Of the gradient of an operand only a share came back from this result.
        """
        share = 0.0 if part is Part.THROUGH else self._share(node, link)
        if link.kind is Kind.INPUT:
            return self._multiplied(link, part, rows, share)
        if link.kind is Kind.VALUE:
            return self._averaged(node, link, part, rows, share)
        return self._moved(node, link, part, rows, share)

    def _multiplied(
        self, link: Link, part: Part, rows: Rows, share: float
    ) -> Iterator[tuple[Part, Rows]]:
        """By a random matrix.

        A change along the gradient that came back through it, `W.T @ g`, becomes `W @ W.T @ g`. Of
        n terms and m results `n / m` times the square of the usual gain lies along g.
        """
        moved = rows.times(link.gain)
        yield part, moved.times(link.aligned * share)
        yield Part.THROUGH, moved

    def _averaged(
        self, node: fx.Node, link: Link, part: Part, rows: Rows, share: float
    ) -> Iterator[tuple[Part, Rows]]:
        """Over keys: what changes in the same way in all rows is not averaged away."""
        assert link.means is not None
        gain, alike = link.means.forward(Alike(rows.near))
        if part is Part.OWN:
            gain = link.means.returned(self.slopes.of(node.name).near)
        moved = Rows(rows.size * gain, alike.near)
        yield part, moved.times(share)
        yield Part.THROUGH, moved.times(math.sqrt(1 - share**2))

    def _moved(
        self, node: fx.Node, link: Link, part: Part, rows: Rows, share: float
    ) -> Iterator[tuple[Part, Rows]]:
        """By anything else; a change of its own row is aligned with what it is multiplied by."""
        moved = Rows(rows.size * link.gain, rows.near * link.met.near)
        if link.kind is Kind.KEY:
            moved = moved.times(math.sqrt(1 - min(1.0, max(0.0, moved.near))))
        aligned = share * (link.aligned if part is Part.OWN else 1.0)
        astray = math.hypot(aligned * math.sqrt(1 - link.along**2), math.sqrt(1 - share**2))
        yield part, moved.times(aligned * link.along * self._of_part(node))
        yield Part.THROUGH, moved.times(astray)

    def _share(self, node: fx.Node, link: Link) -> float:
        """Parts of a value have entries of their own, and each the whole gradient of them."""
        is_part = operation(node) == "getitem"
        return 1.0 if is_part else self.slopes.share(link.operand, node.name)

    def _learned(self, node: fx.Node, link: Link, own: Rows) -> Iterator[tuple[Part, Rows]]:
        """What a weight's change makes of what it meets."""
        slope, batch, size = self.slopes.of(node.name).near, self.start.batch, own.size * link.gain
        if link.kind is Kind.WEIGHT:
            near = batch.changed(link.met, slope)
            itself = link.aligned * batch.itself(link.met, slope) * self._along
            seen = link.aligned * batch.aligned(link.met, slope) * self._along
            yield Part.OWN, Rows(size * itself, near)
            yield Part.OTHERS, Rows(size * math.sqrt(1 + seen**2 - itself**2), near)
        elif link.kind is Kind.TABLE:
            rows = Rows(size * self._of_rows(node, link), slope)
            yield Part.OWN, rows.times(self._along)
            yield Part.THROUGH, rows.times(math.sqrt(1 - self._along**2))
        else:
            yield Part.OTHERS, Rows(size, link.met.near)

    @property
    def _along(self) -> float:
        """The cosine of a step and its gradient: of the signs of normal numbers and of these."""
        return 1.0 if self.proportional else math.sqrt(2 / math.pi)

    def _of_rows(self, node: fx.Node, link: Link) -> float:
        """How much larger the step of the rows that are looked up is than that of the table."""
        share = self.slopes.share(link.operand, node.name) if self.proportional else 0.0
        return math.sqrt(1 + share**2 * (link.aligned**2 - 1))

    def _of_part(self, node: fx.Node) -> float:
        """How much larger the step of one part of a weight is than that of the whole."""
        if operation(node) != "getitem" or not self.proportional:
            return 1.0
        whole = self.slopes.of(node.all_input_nodes[0].name).size
        return self.slopes.of(node.name).size / whole if whole > 0 else 1.0


def _sizes(change: Change) -> Iterator[float]:
    return (rows.size for rows in change.values())
