"""Attention of which only the queries grow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import fx

from mufx.align import Trace
from mufx.diagnostics import Diagnostic, note
from mufx.program import Label, Program, Role
from mufx.ratios import Use
from mufx.reaching import reached
from mufx.rules import operation
from mufx.rules.table import argument


def find_fixed_heads(program: Program) -> Program:
    """Finds the projections of keys and values that stay of one size while the queries grow.

    Multi-query attention, or ever more queries on eight heads of keys: such a projection contracts
    the width and keeps nothing that grows. It is a readout, as its axes say, and starts at 1/m_in,
    where a hidden weight starts at m_in**-1/2 (Tensor Programs V, Table 3). Adam's learning rate
    is the same. Nothing is changed, but many take it to be hidden.

        k: (d: 64 -> 256, 8) on q: (heads: 2 -> 8, 8)   ->  k starts at 1/4 and not at 1/2

    Before: `labels` and `row_blocks`. After: the same, and a note on the first such parameter.

    Codes: `MUF207`.
    """
    found = [use for trace in program.traces for use in _Attention(program, trace).fixed()]
    return program.report(_note(program, found)) if found else program


def _note(program: Program, found: Sequence[Use]) -> Diagnostic:
    first, number = found[0], len({use.parameter for use in found})
    rows = "rows of " if first.parameter in program.row_blocks else ""
    more = f" (and {number - 1} more)" if number > 1 else ""
    return note(
        "MUF207",
        f"{rows}{first.parameter}{more}: keys or values that keep their size while the queries "
        f"grow. What makes them is a readout, and starts 1/{first.m_in:.4g} times as large as at "
        f"base width; a hidden weight would start 1/sqrt({first.m_in:.4g}) times",
        hint="leave it if their number is to stay; else let the heads of keys and values grow "
        "with the queries'",
        place=first.place,
    )


_ATTENTION = "scaled_dot_product_attention"
_PRODUCTS = frozenset("matmul bmm baddbmm einsum".split())


class _Attention:
    """The products of activations in one trace that a softmax comes before or after."""

    def __init__(self, program: Program, trace: Trace) -> None:
        self.program, self.trace = program, trace
        self.uses: dict[str, list[Use]] = {}
        for use in (use for uses in program.uses.values() for use in uses):
            if use.kind == "contraction":
                self.uses.setdefault(use.node, []).append(use)

    def fixed(self) -> Iterator[Use]:
        """The uses that make keys or values of one size for queries that grow."""
        for node in self.trace.graph.nodes:
            operands = self._operands(node)
            if all(map(self._is_fixed, operands)):
                continue
            for operand in operands:
                if self._is_fixed(operand) and not self._is_weighing(operand):
                    yield from self._projections(operand)

    def _operands(self, node: fx.Node) -> Sequence[fx.Node]:
        """Of attention, or of one of its two products; none of anything else."""
        if operation(node) == _ATTENTION:
            names = enumerate(("query", "key", "value"))
            return [argument(node, i, name)[1] for i, name in names]
        if not self._is_product(node):
            return ()
        ahead = reached(node.users, lambda n: () if self._ends(n) else n.users)
        weighs = any(operation(n) == "softmax" for n in ahead)
        operands = node.all_input_nodes
        return operands if weighs or any(map(self._is_weighing, operands)) else ()

    def _is_weighing(self, operand: fx.Node) -> bool:
        """Whether it comes from a softmax: attention's weights, or those of experts."""
        return any(operation(n) == "softmax" for n in self._behind(operand))

    def _is_product(self, node: fx.Node) -> bool:
        return operation(node) in _PRODUCTS and node.name not in self.uses

    def _ends(self, node: fx.Node) -> bool:
        """Whether it joins axes anew: a weight or an activation is contracted there."""
        return node.name in self.uses or self._is_product(node) or operation(node) == _ATTENTION

    def _behind(self, value: fx.Node) -> Iterator[fx.Node]:
        """What a value comes from, itself first, up to the next contractions."""
        return reached([value], lambda n: () if self._ends(n) else n.all_input_nodes)

    def _is_fixed(self, node: fx.Node) -> bool:
        """Whether a value holds as many numbers at every width, if often: it may be repeated."""
        made = reached([node], lambda n: () if self._keeps(n) else n.all_input_nodes)
        return all(self._keeps(n) or not self._starts(n) for n in made)

    def _keeps(self, node: fx.Node) -> bool:
        axes = self.trace.axes.get(node.name)
        return axes is not None and not any(axis.grows for axis in axes)

    def _starts(self, node: fx.Node) -> bool:
        """Whether what comes before it says nothing about its size."""
        return self._ends(node) or operation(node) == "softmax" or not node.all_input_nodes

    def _projections(self, operand: fx.Node) -> Iterator[Use]:
        """The uses that read out what an operand of fixed size comes from."""
        for node in self._behind(operand):
            yield from (use for use in self.uses.get(node.name, ()) if self._reads_out(use))

    def _reads_out(self, use: Use) -> bool:
        label: Label = self.program.labels[use.parameter]
        return label.role is Role.OUTPUT or use.parameter in self.program.row_blocks
