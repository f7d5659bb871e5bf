"""Matrices that a parameter makes entry by entry, and that are then summed like a weight.

    w = linear(z, p).view(d, d);  w @ x             a hypernetwork
    h = exp(dt[:, None] * a) * h + ...;  h @ c      a state space, with a state that grows
    (p[index]) @ x,  (p * style) @ x,  (p * x).sum(-1)

Tensor Programs know two kinds of matrices with two axes that grow: parameters in a product with
vectors, and what vectors alone make, entry by entry (`k[:, None] * v[None]`, the state of linear
attention; OuterNonlin). A parameter with a number for each pair, used in any other way than in a
product with a vector, is neither.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Set
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx

from mufx.diagnostics import Diagnostic, Place, error
from mufx.magnitudes import Magnitude
from mufx.ratios import Summed, Use, Walk
from mufx.reaching import reached
from mufx.rows import Flow, Rows, numbered
from mufx.rules import operation
from mufx.rules.attention import FUSED
from mufx.rules.contractions import CONTRACTIONS
from mufx.rules.reductions import REDUCTIONS
from mufx.rules.table import argument, dims
from mufx.rules.views import VIEWED
from mufx.sizes import Axis, Slot


@dataclass(frozen=True)
class Sum:
    """A product that is summed over the axis `gone` of an operand; only it has the axes `left`."""

    node: fx.Node
    operand: fx.Node
    gone: int
    left: tuple[int, ...]


def computed_matrices(walk: Walk) -> Iterator[Diagnostic]:
    """An error for every parameter that makes a matrix which is summed with an activation.

    Queries of several heads that meet one key of all heads are such a matrix as well. What comes
    out are logits of a softmax, which may all be 0 at initialisation; they are left alone.
    Behind an operation that was refused no sum means anything.
    """
    found = [s for s in sums(walk) if s.left and not _are_logits(s.node)]
    if not found or walk.diagnostics:
        return
    told: set[str] = set()
    for s, parameter in _of_parameters_alone(walk, found):
        told.add(parameter)
        yield _refused(walk, parameter, s, s.left[0])
    rows = _Entries(walk, axes=2)
    for use in walk.uses.values():
        if use.parameter in told:
            continue
        flow = rows.of(use)
        for s in found:
            made = _axes_made(rows, use, flow, s)
            left = next((i for i in s.left if {i, s.gone} <= made), None)
            if left is not None:
                yield _refused(walk, use.parameter, s, left)


def _of_parameters_alone(walk: Walk, found: list[Sum]) -> Iterator[tuple[Sum, str]]:
    """Of matrices that no input reaches: the parameters that are matrices of that kind too.

    What an operation does to the rows of such a parameter (a norm over them, say) is not asked.
    """
    sources: dict[fx.Node, frozenset[str]] = {}
    for node in walk.trace.graph.nodes:
        if node.op == "get_attr":
            matrix = sum(axis.grows for axis in walk.axes(node)) > 1
            name = str(node.target)
            sources[node] = frozenset({name} if matrix and name in walk.parameters else ())
        elif node.op != "placeholder" and all(n in sources for n in node.all_input_nodes):
            sources[node] = frozenset().union(*(sources[n] for n in node.all_input_nodes))
    for s in found:
        for parameter in sorted(sources.get(s.operand, ())):
            yield s, parameter


def summed_entries(walk: Walk, parameters: Set[str]) -> dict[str, Place]:
    """Where what these parameters make is summed with an activation over an axis of their own."""
    found, rows = list(sums(walk)), _Entries(walk, axes=1, until=_TURNING)
    places: dict[str, Place] = {}
    for use in walk.uses.values():
        if found and use.parameter in parameters and not _is_turned(rows.nodes[use.node], use):
            flow = rows.of(use)
            met = [_place(walk, s) for s in found if s.gone in _axes_made(rows, use, flow, s)]
            if met:
                places.setdefault(use.parameter, met[0])
    return places


def _is_turned(node: fx.Node, use: Use) -> bool:
    """Whether what is used of a parameter is a sine of it."""
    operand = _used_in(node, use.slot)
    first = [operand] if isinstance(operand, fx.Node) else []
    made = reached(first, lambda n: n.all_input_nodes)
    return any(operation(n) in _TURNING for n in made)


_TURNING = frozenset({"sin", "cos", "polar"})
"""What they make of a frequency has a size of its own, whatever the frequency's is."""


class _Entries(Rows):
    """Follows what parameters make as far as an activation meets it, whatever is done to it.

    Which row an entry was is not asked, only along which axes the rows run. Where they run along
    so many as `axes` says, they are followed through operations with other activations as well.
    What the operations of `until` make is not followed.
    """

    def __init__(self, walk: Walk, *, axes: int, until: Set[str] = frozenset()) -> None:
        super().__init__(walk.trace)
        self.sums, self.rank, self.until = walk.sums, axes, until
        self.buffers: dict[fx.Node, list[fx.Node]] = defaultdict(list)
        for buffer, writers in walk.written.items():
            for writer in writers:
                self.buffers[writer].append(buffer)

    def of(self, use: Use) -> Flow | None:
        """The flow behind a use; one that writes a parameter into a tensor begins there."""
        node = self.nodes.get(use.node)
        buffers = self.buffers.get(node, ()) if node is not None else ()
        if buffers and any(axis.grows for axis in use.kept):
            return self.flow_from(buffers[0], self._whole(buffers[0]))
        return super().of(use)

    def followed(self, node: fx.Node, layout: Any) -> Iterator[tuple[fx.Node, Any]]:
        """What uses a value, and the tensors that it is written into."""
        yield from super().followed(node, layout)
        for writer in (node, *node.users):
            yield from ((buffer, self._whole(buffer)) for buffer in self.buffers.get(writer, ()))

    def _whole(self, node: fx.Node) -> Tensor:
        """Rows somewhere in a tensor: along all of its axes that grow."""
        axes = self.trace.axes[node.name]
        return numbered([a.target for a in axes], [i for i, a in enumerate(axes) if a.grows])

    def passed(self, node: fx.Node, operand: fx.Node, layout: Any) -> Any:
        """The layout of what an operation makes of its operand."""
        if operation(node) in self.until:
            return None
        made = super().passed(node, operand, layout)
        if made is not None or len(_running(layout)) < self.rank:
            return made
        made = self.moved(node, operand, layout)
        return self._spread(node, operand, layout) if made is None else made

    def _spread(self, node: fx.Node, operand: fx.Node, layout: Any) -> Tensor | None:
        """Behind what joins, picks or sums entries: they run along the axes that are left."""
        sizes = [a.target for a in self.trace.axes.get(node.name, ())]
        places = self._places(node, operand, layout.dim(), len(sizes))
        along = [places[i] for i in _running(layout) if i in places]
        along = sorted(i for i in along if sizes[i] > 1)
        return numbered(sizes, along) if along else None

    def _places(self, node: fx.Node, operand: fx.Node, rank: int, wanted: int) -> dict[int, int]:
        """Where each axis of the operand is in the result, as far as it is there."""
        name, axes = operation(node), range(rank)
        if name in CONTRACTIONS:
            found = self.sums.get(node.name)
            return _labelled(found, operand, wanted) if found is not None else {}
        if name in FUSED:
            return {}
        if name == "stack":
            new = int(argument(node, 1, "dim")[1] or 0) % wanted
            return {i: i + (i >= new) for i in axes}
        if name in REDUCTIONS and wanted < rank:
            gone = dims(argument(node, 2 if name in _NORMS else 1, "dim")[1], rank)
            left = [i for i in axes if i not in gone]
            return {i: place for place, i in enumerate(left)} if len(left) == wanted else {}
        return {i: i + wanted - rank for i in axes} if wanted >= rank else {}


_NORMS = frozenset({"norm", "linalg_norm", "vector_norm", "linalg_vector_norm"})
"""Their dimension is the third argument, behind the power."""


def _labelled(found: Summed, operand: fx.Node, rank: int) -> dict[int, int]:
    labels = next((its for other, its in found.operands if other is operand), ())
    return {i: found.result.index(x) for i, x in enumerate(labels) if x in found.result[:rank]}


def _running(layout: object) -> list[int]:
    """The axes along which rows run; none of several parts."""
    strides = layout.stride() if isinstance(layout, Tensor) else ()
    return [i for i, stride in enumerate(strides) if stride]


def sums(walk: Walk) -> Iterator[Sum]:
    """The sums over axes that grow of products of activations, once for each of two operands.

    An average, where the other operand adds up to 1 over the axis, is none.
    """
    nodes = {node.name: node for node in walk.trace.graph.nodes}
    for name, found in walk.sums.items():
        for operand, labels in found.operands:
            met = [
                (other, _grown(walk, other, its))
                for other, its in found.operands
                if other is not operand and other not in walk.constants
            ]
            grown, shared = (
                _grown(walk, operand, labels),
                {label for _, its in met for label in its},
            )
            left = tuple(i for label, i in grown.items() if label not in found.gone | shared)
            for label in sorted(found.gone & shared & grown.keys()):
                if not any(label in its and _adds_up_to_one(walk, other) for other, its in met):
                    yield Sum(nodes[name], operand, grown[label], left)


def _grown(walk: Walk, operand: fx.Node, labels: tuple[str, ...]) -> dict[str, int]:
    axes = walk.axes(operand)
    return {label: i for i, label in enumerate(labels) if axes[i].grows}


def _adds_up_to_one(walk: Walk, operand: fx.Node) -> bool:
    value = walk.item(operand)
    return isinstance(value, Magnitude) and value.simplex


_LINEAR = VIEWED | frozenset(
    "mul div add sub tanh masked_fill where to float type contiguous".split()
)


def _are_logits(node: fx.Node) -> bool:
    """Whether a softmax reads it, scaled, capped, masked or not, or attention adds it as a mask."""
    ahead = set(reached(node.users, lambda n: n.users if operation(n) in _LINEAR else ()))
    made = {node, *ahead}
    return any(operation(n) == "softmax" or _mask(n) in made for n in ahead)


def _mask(node: fx.Node) -> object:
    """What attention adds to its logits."""
    fused = operation(node) == "scaled_dot_product_attention"
    return argument(node, 3, "attn_mask")[1] if fused else None


def _axes_made(rows: Rows, use: Use, flow: Flow | None, found: Sum) -> set[int]:
    """The axes of the summed operand along which the numbers of one parameter run."""
    if found.operand is _used_in(rows.nodes[use.node], use.slot):
        return set(use.kept_at)
    region = flow.held.get(found.operand) if flow is not None else None
    return set(_running(region.layout)) if region is not None else set()


def _used_in(node: fx.Node, slot: Slot | None) -> object:
    return node.args[slot] if isinstance(slot, int) else node.kwargs.get(str(slot))


def _place(walk: Walk, found: Sum) -> Place:
    return walk.trace.recording.origins[found.node.name].place


def _refused(walk: Walk, parameter: str, found: Sum, left: int) -> Diagnostic:
    def grows(axis: Axis) -> str:
        return f"{axis.base}->{axis.target}"

    axes = walk.axes(found.operand)
    return error(
        "MUF202",
        f"{parameter} makes every entry of a matrix of {grows(axes[left])} by "
        f"{grows(axes[found.gone])}, and its products with an activation are summed over the "
        "latter: a weight that is computed has no rule",
        hint="keep one of these two sizes fixed, or contract the activation with the parameter "
        "itself",
        place=_place(walk, found),
    )
