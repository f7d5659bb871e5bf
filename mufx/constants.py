"""The values that depend on no input and no parameter: buffers, masks, position tables.

Their sizes are not derived but computed, for real, at base and at target width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import fx

from mufx.align import Trace
from mufx.construction import Construction, is_random, run_nodes
from mufx.diagnostics import Diagnostic, error, raise_errors
from mufx.magnitudes import ZERO, Magnitude, Rank, Site, SiteKind
from mufx.recording import Recording
from mufx.rules.table import operation
from mufx.sizes import same
from mufx.writing import written

_TOO_LARGE = 2**25  # elements; a larger table is taken to have a size of its own
_SAME_VALUE = frozenset(
    "to type type_as float double half bfloat16 view reshape expand contiguous clone detach "
    "unsqueeze squeeze getitem expand_as".split()
)


class Constants:
    """Finds the constant nodes of a trace, and computes their magnitudes on demand."""

    def __init__(
        self,
        trace: Trace,
        base: Construction,
        target: Construction,
        tables: frozenset[str] = frozenset(),
    ) -> None:
        """`base` and `target` give the values of buffers.

        `tables` are parameters that count as constants, as they are constructed.

        Raises:
            MufxError: `MUF103` for tensors that the model holds and does not register.
        """
        raise_errors(_unregistered(trace, target))
        self.trace = trace
        self.base, self.target = base, target
        named = target.model.named_parameters(remove_duplicate=False)
        parameters = {n for n, _ in named} - tables
        found = _constant_nodes(trace.graph, parameters)
        self._names = found & trace.base_nodes.keys()  # what a pass inserted has its own rule
        self._found: dict[str, Magnitude] = {}
        self._sizes: dict[fx.Node, float] = {}

    def __contains__(self, node: fx.Node) -> bool:
        """Whether the node depends on no input and no parameter."""
        return node.name in self._names

    def magnitude(self, node: fx.Node) -> Magnitude:
        """How the value changes from base to target width."""
        if node.name not in self._found:
            self._found[node.name] = self._measure(node)
        return self._found[node.name]

    def base_size(self, node: fx.Node) -> float:
        """The root mean square of its values at base; 1 where that says nothing, as of a mask."""
        return self._size(node, self.trace.base_nodes[node.name], self.trace.base, self.base)

    def target_size(self, node: fx.Node) -> float:
        """The same at target."""
        return self._size(node, node, self.trace.recording, self.target)

    def _size(
        self, node: fx.Node, there: fx.Node, recording: Recording, construction: Construction
    ) -> float:
        if there not in self._sizes:
            value = self.trace.recording.values.get(node.name)
            says = value is not None and value.dtype.is_floating_point
            measured = says and not self.magnitude(node).neutral
            found = _evaluate(there, recording, construction) if measured else None
            size = 0.0 if found is None else float(found.double().square().mean().sqrt())
            self._sizes[there] = size if 0 < size < math.inf else 1.0
        return self._sizes[there]

    def _measure(self, node: fx.Node) -> Magnitude:
        value = self.trace.recording.values.get(node.name)
        if value is None or not value.dtype.is_floating_point:
            return Magnitude()
        small = _evaluate(self.trace.base_nodes[node.name], self.trace.base, self.base)
        large = _evaluate(node, self.trace.recording, self.target)
        if small is None or large is None:
            return Magnitude()
        if not (small.any() or large.any()):
            return ZERO
        if _is_mask(large):
            return Magnitude(neutral=True)
        ratio = _ratio(small, large)
        return Magnitude(ratio, None if same(ratio, 1) else {Rank.GROWING: {self._site(node): 1}})

    def _site(self, node: fx.Node) -> Site:
        source = node
        while operation(source) in _SAME_VALUE and source.op != "get_attr":
            (source,) = source.all_input_nodes[:1]
        if source.op == "get_attr":
            return Site(SiteKind.BUFFER, source.name)
        for (name, slot), _ in self.trace.numbers.items():
            if name == source.name and operation(source) in ("tensor", "full", "scalar_tensor"):
                return Site(SiteKind.NUMBER, name, slot)
        return Site(SiteKind.RESULT, node.name)


def _unregistered(trace: Trace, target: Construction) -> Iterator[Diagnostic]:
    """The tensor attributes that are neither parameters nor buffers: no size knows their values."""
    for node in trace.graph.nodes:
        if node.op == "get_attr" and node.target not in target.tensors:
            yield error(
                "MUF103",
                f"the tensor {node.target} is an attribute of its module, and neither a parameter "
                "nor a buffer",
                hint="register it where it is made: self.register_buffer("
                f'"{str(node.target).rpartition(".")[2]}", tensor, persistent=False)',
                place=trace.recording.origins[node.name].place,
            )


def _constant_nodes(graph: fx.Graph, parameters: set[str]) -> frozenset[str]:
    names: set[str] = set()
    overwritten = {
        n.args[0]
        for n in graph.nodes
        if operation(n) in ("copy", "index_put", "masked_fill", "scatter")
        and n.args
        and any(i is not n.args[0] for i in n.all_input_nodes)
    } | {
        buffer
        for buffer, writers in written(graph).items()
        if any(len(writer.all_input_nodes) > 1 for writer in writers)
    }
    for node in graph.nodes:
        if node.op in ("placeholder", "output") or node in overwritten or is_random(node):
            continue
        if node.op == "get_attr":
            if node.target not in parameters:
                names.add(node.name)
        elif all(i.name in names for i in _read(node)):
            names.add(node.name)
    return frozenset(names)


def _read(node: fx.Node) -> list[fx.Node]:
    """The operands whose entries count: of `table.type_as(x)` only the table."""
    operands = node.all_input_nodes
    return operands[:1] if operation(node) in ("type_as", "to") else operands


def _evaluate(
    node: fx.Node, recording: Recording, construction: Construction
) -> torch.Tensor | None:
    needed = _ancestors(node)
    values = [recording.values.get(n.name) for n in needed]
    if any(v is not None and _count(v.sizes) > _TOO_LARGE for v in values):
        return None
    buffers = {
        str(n.target): construction.value(str(n.target)) for n in needed if n.op == "get_attr"
    }
    result: Any = run_nodes(needed, buffers, "cpu", _of_their_type(needed, recording))[node]
    return result if isinstance(result, torch.Tensor) else None


def _of_their_type(needed: Iterable[fx.Node], recording: Recording) -> dict[fx.Node, torch.Tensor]:
    """Stand-ins for the operands of which only the type is taken."""
    values = {i: recording.values[i.name] for n in needed for i in n.all_input_nodes}
    return {i: torch.empty(0, dtype=v.dtype) for i, v in values.items() if v is not None}


def _ancestors(node: fx.Node) -> list[fx.Node]:
    seen: dict[fx.Node, None] = {}

    def visit(n: fx.Node) -> None:
        if n not in seen:
            for i in _read(n):
                visit(i)
            seen[n] = None

    visit(node)
    return list(seen)


def _count(sizes: Iterable[int]) -> int:
    total = 1
    for size in sizes:
        total *= size
    return total


def _is_mask(value: torch.Tensor) -> bool:
    """Only zeros, infinities and numbers that stand for them."""
    return bool(((value == 0) | (value.abs() >= 1e4)).all())


def _ratio(base: torch.Tensor, target: torch.Tensor) -> float:
    """The common factor of two tensors; 1 where there is none."""
    if base.shape != target.shape:
        flat = base.flatten(), target.flatten()
        if not all(bool((v == v[0]).all()) for v in flat if v.numel()):
            return 1.0
        base, target = flat[0][:1], flat[1][:1]
    there = (base != 0) & base.isfinite() & target.isfinite()
    factors = (target[there].double() / base[there].double()).flatten()
    if not factors.numel() or not bool(((factors / factors[0] - 1).abs() < 1e-5).all()):
        return 1.0
    return float(factors[0])
