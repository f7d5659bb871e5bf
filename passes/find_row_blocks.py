"""Rows of a fused weight with a role of their own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import fx

from mufx.align import Trace
from mufx.diagnostics import Diagnostic, warning
from mufx.program import Optimizer, Program, RowBlocks
from mufx.ratios import Use
from mufx.rules import operation
from mufx.rules.table import argument
from mufx.sizes import Axis


def find_row_blocks(program: Program) -> Program:
    """Finds the rows of hidden weights that read out, because what they make has a fixed size.

    A fused projection parts right after it: Mamba's x_proj into a step size whose rank grows and
    the state's B and C, which do not. The rows of B and C contract an axis that grows and keep
    none: they are a readout's. Hidden and readout weights share Adam's learning rate, 1/m_in, and
    differ in init alone, m_in**-1/2 and 1/m_in (Tensor Programs V, Table 3), so one parameter can
    hold both.

        dt, b, c = F.linear(x, x_proj).split((rank, 16, 16))    with rank 4 -> 16
        ->  rows 16:48 of x_proj read out, the others grow m = 4 times

    Before: `uses`. After: `row_blocks` holds the rows of such weights.

    Codes: `MUF206` where the rows cannot be told, or where one learning rate does not serve both:
    SGD's is m_out/m_in.
    """
    parts = [p for trace in program.traces for p in _parts(trace)]
    blocks = _blocks(program, [p for p in parts if p.trace is program.train])
    settled = blocks if program.optimizer is not Optimizer.SGD else {}
    unsettled = [p for p in parts if p.is_fixed and _maker(program, p) not in settled]
    mixed = [d for name in program.uses for d in _mixed_axes(program, name, settled)]
    found = dict.fromkeys(_warning(p) for p in unsettled)
    return replace(program, row_blocks=settled).report(*found, *mixed)


@dataclass(frozen=True)
class _Part:
    """A part of an axis that grows: `taken` of `whole`, from `start` on at target width."""

    trace: Trace
    node: fx.Node
    source: fx.Node
    axis: int
    whole: Axis
    taken: Axis
    start: int | None

    @property
    def is_fixed(self) -> bool:
        return not self.taken.grows


def _parts(trace: Trace) -> Iterator[_Part]:
    """The parts that are taken of activations, on axes that grow."""
    activations: set[fx.Node] = set()
    for node in trace.graph.nodes:
        if node.op == "placeholder" or any(n in activations for n in node.all_input_nodes):
            activations.add(node)
        if operation(node) not in _TAKE_PARTS or node not in activations:
            continue
        source, cut = node.all_input_nodes[0], node
        if source.name not in trace.axes and source.all_input_nodes:  # one of several results
            source, cut = source.all_input_nodes[0], source
        whole, taken = trace.axes.get(source.name, ()), trace.axes.get(node.name, ())
        if len(whole) != len(taken):
            continue
        for i, (axis, part) in enumerate(zip(whole, taken, strict=True)):
            if axis.grows and axis != part and part.target:
                yield _Part(trace, node, source, i, axis, part, _start(cut, node, i, whole))


_TAKE_PARTS = frozenset({"getitem", "narrow", "slice"})


def _start(cut: fx.Node, part: fx.Node, axis: int, axes: tuple[Axis, ...]) -> int | None:
    """Where a part begins at target width; `None` where that is not written down."""
    start: object
    if cut is not part:
        start = _start_of_result(cut, int(str(part.args[1])), axes[axis])
    elif operation(part) == "getitem":
        start = _spelled_out(part.args[1], len(axes))[axis].start or 0
    else:
        start = argument(part, 2 if operation(part) == "narrow" else 3, "start")[1]
    return start if isinstance(start, int) and start >= 0 else None


def _spelled_out(index: object, rank: int) -> tuple[slice, ...]:
    """A slice for every axis of what is indexed."""
    given: tuple[object, ...] = index if isinstance(index, tuple) else (index,)
    gap = given.index(...) if ... in given else len(given)
    before, after = given[:gap], given[gap + 1 :]
    whole = (slice(None),) * (rank - len(before) - len(after))
    return tuple(i if isinstance(i, slice) else slice(None) for i in (*before, *whole, *after))


def _start_of_result(cut: fx.Node, index: int, whole: Axis) -> int | None:
    sizes = argument(cut, 1, "split_size_or_sections")[1]
    if operation(cut) in ("split", "split_with_sizes") and isinstance(sizes, (tuple, list)):
        taken = sizes[:index]
        return sum(taken) if all(isinstance(n, int) for n in taken) else None
    if operation(cut) == "chunk" and isinstance(count := argument(cut, 1, "chunks")[1], int):
        return index * -(-whole.target // count)
    return index * sizes if isinstance(sizes, int) else None


# -- whose rows they are ------------------------------------------------------------------------


def _blocks(program: Program, parts: list[_Part]) -> dict[str, RowBlocks]:
    found: dict[str, list[_Part]] = defaultdict(list)
    for part in parts:
        name = _maker(program, part)
        if name is not None:
            found[name].append(part)
    return {
        name: made
        for name, own in found.items()
        if (made := _block(program, name, own)) is not None
    }


def _maker(program: Program, part: _Part) -> str | None:
    """The hidden weight that made what is parted, if it is used for nothing else."""
    uses = [u for own in program.uses.values() for u in own if u.node == part.source.name]
    makers = {u.parameter for u in uses if u.contracts and u.keeps and u.kind == "contraction"}
    name = next(iter(makers)) if len(makers) == 1 else None
    return name if name is not None and len(program.uses[name]) == 1 else None


def _block(program: Program, name: str, parts: list[_Part]) -> RowBlocks | None:
    (use,) = program.uses[name]
    fixed = [p for p in parts if p.is_fixed]
    whole = fixed[0].whole if fixed else None
    axes = [i for i in use.kept_at if _axis_of_weight(program, use, i) == whole]
    if whole is None or len(axes) != 1 or any(p.start is None for p in fixed):
        return None
    rows = {(p.start, p.start + p.taken.target) for p in fixed if p.start is not None}
    growing = {p.taken.m for p in parts if not p.is_fixed and p.taken.is_power}
    m = growing.pop() if len(growing) == 1 else whole.m
    return RowBlocks(axes[0], tuple(sorted(rows)), m)


def _axis_of_weight(program: Program, use: Use, axis: int) -> Axis | None:
    """An axis of the parameter itself; `None` where the operation is given a view of it."""
    node = next(n for n in program.train.graph.nodes if n.name == use.node)
    operand = node.args[use.slot] if isinstance(use.slot, int) else node.kwargs.get(str(use.slot))
    if not isinstance(operand, fx.Node) or operand.op != "get_attr":
        return None
    return program.train.axes[operand.name][axis]


# -- what is told -------------------------------------------------------------------------------


def _warning(part: _Part) -> Diagnostic:
    return warning(
        "MUF206",
        f"a part of fixed size is taken, {part.taken.target} of {part.whole.base} features at base "
        f"and of {part.whole.target} at target: what made them reads out, and has the scales of a "
        "hidden weight",
        hint="make them with a weight of their own",
        place=part.trace.recording.origins[part.node.name].place,
    )


def _mixed_axes(program: Program, name: str, settled: dict[str, RowBlocks]) -> Iterator[Diagnostic]:
    """A warning for every axis that grows only in part, once a parameter and axis."""
    uses = program.uses[name]
    rows = () if name not in settled else uses[0].kept
    axes = {axis: use for use in uses for axis in (*use.contracted, *use.kept) if axis not in rows}
    for axis, use in axes.items():
        if not axis.is_power:
            yield warning(
                "MUF206",
                f"an axis of {name} is {axis.base}, {axis.target} and {axis.along} at base, target "
                "and further along: a part of it grows and another does not, and both get the "
                f"same scales, those of x {axis.m:.4g}",
                hint="use a weight of its own for each part",
                place=use.place,
            )
