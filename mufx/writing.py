"""Writes in place that later uses of a tensor do not pass through."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from torch import fx

from mufx.construction import is_in_place
from mufx.rules.table import operation
from mufx.rules.views import VIEWED


def written(graph: fx.Graph) -> Mapping[fx.Node, Sequence[fx.Node]]:
    """By tensor: what writes into it, where its later uses do not show it.

        buffer = torch.zeros(2, 5)
        buffer[:, 0] = x          setitem writes into buffer
        buffer[:, 1].add_(y)      add_ writes into buffer, through a view

    A method of the tensor itself, as in `buffer.add_(y)`, stands for the tensor from then on.
    """
    found: dict[fx.Node, list[fx.Node]] = defaultdict(list)
    for node in graph.nodes:
        if is_in_place(node):
            for base in _bases(node):
                found[base].append(node)
    return found


def _bases(writer: fx.Node) -> Iterator[fx.Node]:
    """The tensors whose memory it writes into, without the one that its result stands for."""
    target = writer.kwargs.get("out") or writer.args[0]
    if isinstance(target, fx.Node) and operation(writer) == "setitem":
        yield target
    while isinstance(target, fx.Node) and operation(target) in VIEWED:
        target = target.all_input_nodes[0]
        yield target
