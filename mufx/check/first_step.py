"""The first step: what every parameter's gradient, and then every value's change, is like."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from torch import fx

from mufx.check.links import Kind, Link, Links
from mufx.magnitudes import Magnitude


def gradients(start: Links) -> dict[str, float]:
    """By parameter: the size of an entry of its gradient, where that of an output is 1.

    Backwards a gain is what it is forwards, for the entries that both have: a random matrix has
    the same Frobenius norm as its transpose. So one entry takes the gain times the square root of
    the number of the result's entries over that of the operand's.
    """
    nodes: dict[str, fx.Node] = {node.name: node for node in start.trace.graph.nodes}
    found = dict.fromkeys(_outputs(start), 1.0)
    for node in reversed(list(nodes.values())):
        for link in start.links.get(node.name, ()):
            operand = nodes[link.operand]
            spread = math.sqrt(start.entries(node) / start.entries(operand))
            passed = found.get(node.name, 0.0) * link.gain * spread
            found[operand.name] = math.hypot(found.get(operand.name, 0.0), passed)
    return _by_parameter(nodes.values(), found)


def _by_parameter(nodes: Iterable[fx.Node], found: Mapping[str, float]) -> dict[str, float]:
    total: dict[str, float] = {}
    for node in nodes:
        if node.op == "get_attr":
            name = str(node.target)
            total[name] = math.hypot(total.get(name, 0.0), found.get(node.name, 0.0))
    return total


def _outputs(start: Links) -> list[str]:
    """What a loss is made from: the outputs of fixed size, of which the gradient keeps its size."""
    (output,) = (n for n in start.trace.graph.nodes if n.op == "output")
    return [
        node.name
        for node in output.all_input_nodes
        if isinstance(start.item(node), Magnitude) and not any(a.grows for a in start.axes(node))
    ]


Change = tuple[float, float]
"""Of a value: the part that the weight right before it learned, and the part that came through.

The first is aligned with what the value is multiplied by next (a query with its keys): the gradient
came from there. The second is not.
"""


def changes(start: Links, updates: Mapping[str, float]) -> dict[str, float]:
    """By node: the size of its change in a small step; `updates` are those of the parameters.

    `node/logits` are the attention logits inside a fused kernel.
    """
    found: dict[str, Change] = {}
    for node in start.trace.graph.nodes:
        if node.op == "get_attr":
            found[node.name] = updates.get(str(node.target), 0.0), 0.0
        if node.name in start.logits:
            found[f"{node.name}/logits"] = _passed(start.logits[node.name], found)
        if node.name in start.links:
            found[node.name] = _passed(start.links[node.name], found)
    return {name: math.hypot(*change) for name, change in found.items()}


def _passed(links: Iterable[Link], found: Mapping[str, Change]) -> Change:
    parts = [_part(link, found.get(link.operand, (0.0, 0.0))) for link in links]
    return math.hypot(*(own for own, _ in parts)), math.hypot(*(through for _, through in parts))


def _part(link: Link, change: Change) -> Change:
    own, through = change[0] * link.gain, change[1] * link.gain
    if link.kind is Kind.WEIGHT:
        return own * link.aligned, through * link.aligned
    if link.kind is Kind.INPUT:
        return 0.0, math.hypot(own, through)
    if link.kind is Kind.READ:
        return 0.0, math.hypot(own, through) * link.aligned
    return own * link.aligned, through
