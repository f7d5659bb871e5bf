"""Moves multipliers into the gain of the norm before them, so that they cost nothing."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import replace

from torch import fx

from mufx.align import Trace
from mufx.diagnostics import Diagnostic, note
from mufx.editing import Editor
from mufx.program import Form, Program
from mufx.rules import operation


def fold_multipliers(program: Program) -> Program:
    """Folds every inserted multiplication into the gain and bias that it directly follows.

    The abc-symmetry: a factor `a` in front of a parameter that enters linearly is the same as
    W -> a W, lr -> a lr (Adam) or a**2 lr (SGD), eps -> eps / a, decay -> decay / a. It needs
    gain and bias that are used here only, and a value that nothing else uses.

        linear(mul(layer_norm(x, gain, bias), 0.25), emb.weight)
        ->  linear(layer_norm(x, gain, bias), emb.weight), gain and bias a quarter as large

    Only in form table3: the other forms are defined by their multipliers.

    Before: the rewritten graphs and `plan`. After: the same function with fewer nodes; what could
    not be folded is reported as `MUF304`.
    """
    if program.form is not Form.TABLE3:
        return program
    inserted = {change.node for change in program.changes if change.before == "1"}
    parameters = frozenset(program.labels)
    folds = [_folds(trace, inserted, parameters) for trace in program.traces]
    agreed = {
        name: targets
        for name, targets in folds[0].items()
        if targets is not None and folds[1].get(name) == targets
    }
    notes = [_unfolded(program, name) for name in folds[0] if name not in agreed]
    plan = dict(program.plan)
    factors = _factors(program.train, agreed)
    for name, targets in agreed.items():
        for parameter in targets:
            shifted = plan[parameter].shifted(1 / factors[name], program.optimizer)
            plan[parameter] = replace(shifted, multiplier=1.0)
    return replace(
        program,
        train=_without(program.train, agreed),
        evaluate=_without(program.evaluate, agreed),
        plan=plan,
        changes=tuple(c for c in program.changes if c.node not in agreed),
    ).report(*notes)


def _folds(
    trace: Trace, inserted: set[str], parameters: frozenset[str]
) -> dict[str, frozenset[str] | None]:
    """For each inserted multiplication the parameters that can take it; `None` if none can."""
    return {
        node.name: _absorb(node.all_input_nodes[0], parameters)
        for node in trace.graph.nodes
        if node.name in inserted and node.target is operator.mul
    }


def _absorb(node: fx.Node, parameters: frozenset[str]) -> frozenset[str] | None:
    """The parameters that are linear in `node` together, if nothing else uses it or them."""
    if len(node.users) != 1:
        return None
    if node.op == "get_attr":
        return frozenset({str(node.target)}) if node.target in parameters else None
    name = operation(node)
    if name in ("layer_norm", "group_norm", "rms_norm", "batch_norm"):
        return _all(_affine(node, name), parameters)
    if name == "_weight_norm":  # linear in the gain
        return _absorb(node.all_input_nodes[1], parameters)
    if name in _LINEAR_IN_FIRST:
        return _absorb(node.all_input_nodes[0], parameters)
    if name == "add" and len(node.all_input_nodes) == 2:
        return _all(node.all_input_nodes, parameters)
    if name == "mul" and len(node.all_input_nodes) == 2:
        first, second = (_absorb(n, parameters) for n in node.all_input_nodes)
        return second if second is not None else first
    return None


_LINEAR_IN_FIRST = frozenset(
    "view reshape contiguous to type_as float dropout transpose permute unsqueeze squeeze "
    "flatten getitem".split()
)


def _affine(node: fx.Node, name: str) -> list[fx.Node]:
    first = 3 if name == "batch_norm" else 2
    slots: list[tuple[int, str]] = [(first, "weight"), (first + 1, "bias")]
    found = [node.args[i] if i < len(node.args) else node.kwargs.get(n) for i, n in slots]
    return [n for n in found if isinstance(n, fx.Node)]


def _all(nodes: list[fx.Node], parameters: frozenset[str]) -> frozenset[str] | None:
    found = [_absorb(n, parameters) for n in nodes]
    if not found or None in found:
        return None
    return frozenset().union(*(f for f in found if f is not None))


def _factors(trace: Trace, agreed: Mapping[str, object]) -> dict[str, float]:
    return {name: trace.numbers[name, 1].target for name in agreed}


def _without(trace: Trace, agreed: Mapping[str, object]) -> Trace:
    if not agreed:
        return trace
    editor = Editor(trace)
    for name in agreed:
        editor.bypass(name)
    return editor.done()


def _unfolded(program: Program, name: str) -> Diagnostic:
    change = next(c for c in program.changes if c.node == name)
    return note(
        "MUF304",
        f"a multiplication by {change.after} stays in the forward pass",
        hint="a norm with a gain right before it would take it up",
        place=change.place,
    )
