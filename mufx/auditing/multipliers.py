"""The multipliers that a model carries, and the base width that they imply."""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import fx

from mufx.auditing.chains import Chains, Literal
from mufx.auditing.numbers import close
from mufx.auditing.records import Finding, Multiplier, Quantity
from mufx.diagnostics import Place, Severity
from mufx.program import Program
from mufx.rules import operation
from mufx.sizes import Axis, Number, same

_FUSED = "scaled_dot_product_attention"


def carried(program: Program) -> Iterator[Multiplier]:
    """Every number that scales an embedding, a branch, the logits, or attention's scores.

    A number `(n / n0) ** e` of a width n is 1 at `n0`, which is the base width that it implies;
    attention's `sqrt(n0) / n` is `1 / sqrt(n0)` there. A constant in front of the logits is read
    as `n0 / n` at target width.
    """
    chains = Chains(program, program.train)
    for node in program.train.graph.nodes:
        literal = chains.literal(node)
        if literal is None and operation(node) == _FUSED:
            literal = _argument(chains, node)
        if literal is None:
            continue
        low, high = literal.value(literal.number.base), literal.value(literal.number.target)
        kind = _kind(chains, literal)
        if kind is not None and not (same(low, 1.0) and same(high, 1.0)):
            yield Multiplier(
                kind, low, high, _implied(chains, literal, kind, low, high), _place(program, node)
            )


def _argument(chains: Chains, node: fx.Node) -> Literal | None:
    number = chains.number(node, "scale") if "scale" in node.kwargs else None
    return Literal(node, node.all_input_nodes[0], number, 1) if number is not None else None


def _kind(chains: Chains, literal: Literal) -> str | None:
    """What a number scales; `None` for one inside a norm, a nonlinearity or a softcap."""
    if chains.is_softcap(literal.operand) or any(map(chains.is_softcap, literal.node.users)):
        return None
    uses = chains.uses.get(list(chains.before(literal.operand))[-1].name, [])
    ahead = list(chains.after(literal.node))
    names = {operation(n) for n in (literal.node, *ahead)}
    reads = any(u.contracts and not u.keeps for n in ahead for u in chains.uses.get(n.name, []))
    if names & {"softmax", _FUSED}:
        return "attention"
    if reads or any(n.op == "output" or operation(n) == "cross_entropy" for n in ahead):
        return "logit"
    if any(use.kind == "lookup" for use in uses):
        return "embedding"
    if "add" in names and any(use.kind == "contraction" for use in uses):
        return "residual"
    return None if same(literal.number.ratio, 1.0) else "activation"


def _implied(chains: Chains, literal: Literal, kind: str, low: float, high: float) -> float | None:
    axis = _axis(chains, literal, kind)
    if axis is None or axis.m in (0.0, 1.0) or low <= 0 or high <= 0:
        return None
    exponent = math.log(high / low) / math.log(axis.m)
    if kind == "attention":
        return (high * axis.target) ** 2 if close(exponent, -1.0) else None
    if kind == "logit" and same(exponent, 0.0):
        return axis.target * high
    return axis.target * high ** (-1 / exponent) if not same(exponent, 0.0) else None


def _axis(chains: Chains, literal: Literal, kind: str) -> Axis | None:
    """The width that a multiplier is about: of the head, else of the features."""
    if kind == "attention":
        return _head(chains, literal)
    nodes = [*chains.before(literal.operand), *chains.after(literal.node)]
    uses = [u for n in nodes for u in chains.uses.get(n.name, [])]
    own = [a for a in chains.trace.axes.get(literal.node.name, ()) if a.grows]
    met = [a for u in uses for a in u.contracted if a.grows]
    return next(iter([*reversed(own), *met]), None)


def _head(chains: Chains, literal: Literal) -> Axis | None:
    """The axis over which queries meet keys."""
    for node in (literal.node, *chains.before(literal.operand), *chains.after(literal.node)):
        if operation(node) == _FUSED or chains.is_product(node):
            axes = chains.trace.axes.get(node.all_input_nodes[0].name, ())
            return axes[-1] if axes else None
    return None


def _place(program: Program, node: fx.Node) -> Place:
    return program.train.recording.origins[node.name].place


# -- attention's constant -----------------------------------------------------------------------


def without_constant(program: Program) -> Iterator[Finding]:
    """Attention whose scale is 1/d at base width, where the model that was tuned has 1/sqrt(d).

    The width dependence is right, so this transfers; but the logits at base width are
    sqrt(d_head) smaller than with the usual scale, which is another model.
    """
    chains = Chains(program, program.train)
    for node in program.train.graph.nodes:
        found = _scores(chains, node)
        if found is None:
            continue
        axis, scale = found
        if close(scale.ratio, 1 / axis.m) and close(scale.base * axis.base, 1.0, 1e-6):
            yield _finding(axis, scale, _place(program, node))


def _scores(chains: Chains, node: fx.Node) -> tuple[Axis, Number] | None:
    """The head axis of attention whose head grows, and the product of all its scales."""
    fused = operation(node) == _FUSED
    if not (fused or chains.is_product(node)) or node.name not in chains.trace.axes:
        return None
    ahead = [] if fused else list(chains.after(node))
    if not fused and "softmax" not in {operation(n) for n in ahead}:
        return None
    queries, keys = node.all_input_nodes[:2]
    axis = chains.trace.axes[queries.name][-1]
    stretch = [*chains.before(queries), *chains.before(keys), *_until_softmax(ahead)]
    literals = [found for n in stretch if (found := chains.literal(n)) is not None]
    own = _default(chains, node, axis) if fused else Number(1.0, 1.0, 1.0)
    base, target, along = own.base, own.target, own.along
    for literal in literals:
        base *= literal.value(literal.number.base)
        target *= literal.value(literal.number.target)
        along *= literal.value(literal.number.along)
    return (axis, Number(base, target, along)) if axis.grows else None


def _until_softmax(nodes: list[fx.Node]) -> Iterator[fx.Node]:
    for node in nodes:
        if operation(node) == "softmax":
            return
        yield node


def _default(chains: Chains, node: fx.Node, axis: Axis) -> Number:
    given = chains.number(node, "scale")
    return given or Number(axis.base**-0.5, axis.target**-0.5, axis.along**-0.5)


def _finding(axis: Axis, scale: Number, place: Place) -> Finding:
    right = math.sqrt(axis.base) / axis.target
    return Finding(
        "MUF615",
        Severity.WARNING,
        Quantity.MULTIPLIER,
        None,
        None,
        right / scale.base,
        scale.ratio,
        right,
        scale.target,
        1.0,
        "attention logits",
        place,
        f"attention's scale is 1/d_head: at base width {scale.base:.4g}, where the usual "
        f"1/sqrt(d_head) is {axis.base**-0.5:.4g}, so the logits start {math.sqrt(axis.base):.4g} "
        "times smaller than in the model that this one is made from",
        f"multiply it by the constant of base width: sqrt({axis.base}) / d_head",
    )
