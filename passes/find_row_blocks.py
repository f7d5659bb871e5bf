"""Rows of a fused weight with a role of their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import fx

from mufx.diagnostics import Diagnostic, Place, warning
from mufx.program import Optimizer, Program, RowBlocks
from mufx.ratios import Use
from mufx.rows import Flow, Region, Rows, runs
from mufx.rules import operation
from mufx.rules.creation import LIKE_ANOTHER
from mufx.rules.table import argument
from mufx.rules.views import JOINS, VIEWED
from mufx.sizes import Axis, Slot, same


def find_row_blocks(program: Program) -> Program:
    """Finds the rows of hidden weights that read out, because what they make has a fixed size.

    A fused projection parts behind its use: Mamba's x_proj into a step size whose rank grows and
    the state's B and C, which do not. The rows of B and C contract an axis that grows and keep
    none: they are a readout's. Hidden and readout weights share Adam's learning rate, 1/m_in, and
    differ in init alone, m_in**-1/2 and 1/m_in (Tensor Programs V, Table 3), so one parameter can
    hold both. Where all parts grow, by whatever factors, all of them are hidden.

        dt, b, c = F.linear(x, x_proj).split((rank, 16, 16))    with rank 4 -> 16
        ->  rows 16:48 of x_proj read out, the others grow m = 4 times

    The gradient of a row is as much smaller as the vector is longer that it is read in. What is
    joined before anything reads it (a head that is turned in part, the layers of a DenseNet) is
    read in one vector, as a gain is that follows a join; parts that are read apart have their own.

    Before: `uses`. After: `row_blocks` holds the rows of such weights, `parts` how many times what
    the parts of a weight are read in grows, where that cannot be read off its axis.

    Codes: `MUF206` where the rows cannot be told, or where one learning rate does not serve all:
    SGD's is m_out/m_in.
    """
    views = tuple(Rows(trace) for trace in program.traces)
    cuts = [cut for rows in views for cut in _cuts(rows)]
    even = all(_is_even(use) for uses in program.uses.values() for use in uses)
    if not cuts and even and not any(rows.joins_unlike() for rows in views):
        return program
    split = {name: _parting(program, name, views) for name in program.uses}
    joined = {pair for rows in views for pair in _joined(rows)}
    blocks = {name: found for name, parting in split.items() if (found := parting.blocks())}
    parts = {name: grown for name, parting in split.items() if (grown := parting.parts())}
    told = [
        *_untracked(cuts, split),
        *(d for parting in split.values() for d in parting.unsettled()),
        *(d for parting in split.values() for d in parting.mixed(joined)),
    ]
    return replace(program, row_blocks=blocks, parts=parts).report(*dict.fromkeys(told))


def _is_even(use: Use) -> bool:
    return all(axis.is_power for axis in (*use.contracted, *use.kept))


# -- parts that are taken -----------------------------------------------------------------------


@dataclass(frozen=True)
class _Cut:
    """A part of fixed size, taken of an axis that grows."""

    node: fx.Node
    whole: Axis
    taken: Axis
    place: Place


_TAKE_PARTS = frozenset({"getitem", "narrow", "slice"})
_CHOOSE = frozenset({"topk", "kthvalue", "max", "min"})
"""Their results are parts as well, but of whichever entries are the largest."""


def _cuts(rows: Rows) -> Iterator[_Cut]:
    axes = rows.trace.axes
    for node in rows.nodes.values():
        if node not in rows.activations or operation(node) not in _TAKE_PARTS:
            continue
        if all(operation(user) in LIKE_ANOTHER for user in node.users):
            continue
        source = node.all_input_nodes[0]
        if operation(source) in _CHOOSE:
            continue
        if source.name not in axes:  # one of several results
            if operation(source) not in VIEWED:
                continue
            source = source.all_input_nodes[0]
        whole, taken = axes.get(source.name, ()), axes.get(node.name, ())
        if len(whole) != len(taken):
            continue
        for axis, part in zip(whole, taken, strict=True):
            if axis.grows and not part.grows and part.target:
                yield _Cut(node, axis, part, rows.trace.recording.origins[node.name].place)


def _untracked(cuts: list[_Cut], split: Mapping[str, _Parting]) -> Iterator[Diagnostic]:
    """The parts of values whose rows nobody knows."""
    held = {node for parting in split.values() for _, flow in parting.flows for node in flow.held}
    for cut in cuts:
        if cut.node not in held:
            yield _fixed(cut.taken.target, cut.whole, cut.place)


# -- what becomes of a weight's rows ------------------------------------------------------------


@dataclass(frozen=True)
class _Parting:
    """The parts that the rows of one parameter fall into, behind its uses.

    `axis` is where the rows stand in the parameter; `None` where several of its axes grow, or
    where an operation is given a view of it. `adapts` says that the optimizer is of Adam's kind,
    where hidden and readout share a learning rate.
    """

    name: str
    uses: tuple[Use, ...]
    flows: tuple[tuple[Use, Flow], ...]
    axis: int | None
    adapts: bool

    @property
    def contracts(self) -> bool:
        return any(use.contracts for use in self.uses)

    @property
    def ends(self) -> list[Region]:
        return [end for _, flow in self.flows for end in flow.ends]

    @property
    def reads_out(self) -> frozenset[int]:
        """The rows that make parts of fixed size, of a weight that contracts what grows."""
        fixed = [end.rows() for end in self.ends if not end.size.grows and self.contracts]
        return frozenset[int]().union(*fixed)

    def is_settled(self) -> bool:
        """Whether the parameter can hold them: they are told apart, and nothing else uses them."""
        rows = self.reads_out
        shared = (rows & end.rows() for end in self.ends if end.size.grows)
        return self.adapts and (not rows or (self.axis is not None and not any(shared)))

    def blocks(self) -> RowBlocks | None:
        rows = self.reads_out
        if not rows or self.axis is None or not self.is_settled():
            return None
        return RowBlocks(self.axis, runs(rows))

    def is_known(self) -> bool:
        """Whether every part grows by one factor or not at all."""
        traced = {use.node for use, _ in self.flows}
        return {use.node for use in self.uses} <= traced and all(e.size.is_power for e in self.ends)

    def is_joined(self) -> bool:
        """Whether a part is read in a vector that grows unlike the part."""
        return any(not same(end.read.m, end.size.m) for end in self.ends)

    def parts(self) -> tuple[float, ...]:
        """How many times its parts grow as they are read, largest first; none where axes say it."""
        said = not (self.reads_out or _uneven(self.uses) or self.is_joined())
        if said or not self.is_known():
            return ()
        found = {round(end.read.m, 9) for end in self.ends if end.size.grows}
        return tuple(sorted(found, reverse=True))

    def unsettled(self) -> Iterator[Diagnostic]:
        """A warning for the first part of fixed size behind each use that has wrong scales."""
        if self.is_settled():
            return
        for use, flow in self.flows:
            fixed = next((r for r in flow.held.values() if not r.size.grows), None)
            if fixed is not None:
                whole = next(axis for axis in use.kept if axis.grows)
                yield _fixed(fixed.size.target, whole, fixed.place)

    def mixed(self, joined: set[tuple[str, Axis]]) -> Iterator[Diagnostic]:
        """A warning for every axis of which a part grows and another may not."""
        kept = self.adapts and (not self.contracts or (self.is_known() and self.is_settled()))
        for use in self.uses:
            for axis in use.contracted if kept else (*use.contracted, *use.kept):
                if not axis.is_power and (use.node, axis) not in joined:
                    yield _mixed(self.name, axis, use)


def _uneven(uses: tuple[Use, ...]) -> bool:
    return not all(axis.is_power for use in uses for axis in use.kept)


def _parting(program: Program, name: str, traces: tuple[Rows, ...]) -> _Parting:
    uses = program.uses[name]
    found = [(use, rows.of(use)) for rows in traces for use in uses]
    flows = tuple((use, flow) for use, flow in found if flow is not None)
    axes = {_axis_of_weight(program, use) for use in uses}
    axis = axes.pop() if len(axes) == 1 else None
    return _Parting(name, uses, flows, axis, program.optimizer is not Optimizer.SGD)


def _axis_of_weight(program: Program, use: Use) -> int | None:
    """The axis of the parameter itself that grows and is kept."""
    grown = [i for i, axis in zip(use.kept_at, use.kept, strict=True) if axis.grows]
    node = next((n for n in program.train.graph.nodes if n.name == use.node), None)
    if node is None or use.slot is None or len(grown) != 1:
        return None
    operand = _operand(node, use.slot)
    return grown[0] if isinstance(operand, fx.Node) and operand.op == "get_attr" else None


def _operand(node: fx.Node, slot: Slot) -> object:
    return node.args[slot] if isinstance(slot, int) else node.kwargs[slot]


# -- parts that are joined ----------------------------------------------------------------------


def _joined(rows: Rows) -> Iterator[tuple[str, Axis]]:
    """The nodes that take parts side by side which all grow, each by its own factor.

    A sum over all of them has as many times more terms as the whole axis is longer. A part may be
    joined of such parts itself.
    """
    joined: set[tuple[fx.Node, Axis]] = set()
    for node in rows.nodes.values():
        axes = rows.trace.axes.get(node.name, ())
        if operation(node) not in JOINS or not axes:
            continue
        parts: Any = argument(node, 0, "tensors")[1]
        dim = int(argument(node, 1, "dim")[1] or 0) % len(axes)
        # An empty cache has one axis, whatever it is joined with.
        whole = [p for p in parts if len(rows.trace.axes[p.name]) == len(axes)]
        sizes = [(p, rows.trace.axes[p.name][dim]) for p in whole]
        even = all(size.grows and (size.is_power or (p, size) in joined) for p, size in sizes)
        flow = rows.behind(node, [axes[dim]]) if even else None
        if flow is None:
            continue
        joined.update((n, region.size) for n, region in flow.held.items())
        yield from ((n.name, region.size) for n, region in flow.held.items())
        for end in flow.ends:
            yield from ((user.name, end.size) for user in end.node.users)


# -- what is told -------------------------------------------------------------------------------


def _fixed(taken: int, whole: Axis, place: Place) -> Diagnostic:
    return warning(
        "MUF206",
        f"a part of fixed size is taken, {taken} of {whole.base} features at base and of "
        f"{whole.target} at target: what made them reads out, and has the scales of a hidden "
        "weight",
        hint="make them with a weight of their own",
        place=place,
    )


def _mixed(name: str, axis: Axis, use: Use) -> Diagnostic:
    return warning(
        "MUF206",
        f"an axis of {name} is {axis.base}, {axis.target} and {axis.along} at base, target "
        "and further along: a part of it grows and another does not, or the model rounds it; "
        f"all of it gets the same scales, those of x {axis.m:.4g}",
        hint="use a weight of its own for each part, or sizes at which the model rounds nothing",
        place=use.place,
    )
