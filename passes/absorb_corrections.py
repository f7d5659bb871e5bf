"""What the corrections come to where the model's own forward pass has to stay as it is."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from torch import fx

from mufx.absorption.equations import Absorption, Conflict, Missing
from mufx.absorption.operations import PASSED_ON
from mufx.absorption.walk import Scaling
from mufx.align import Trace
from mufx.diagnostics import Diagnostic, error
from mufx.magnitudes import SiteKind
from mufx.program import Change, Program
from mufx.sizes import Slot


def absorb_corrections(program: Program) -> Program:
    """Finds factors on parameters that do what the rewritten forward pass does.

    By the abc-symmetry a factor `a` on a parameter is one on its init, its learning rate and its
    numbers of decay and eps, so `mufx.apply` can train the user's own class.

        attention(q_proj(x), k, v, scale=sqrt(64)/256), 1/sqrt(256) in the original
        ->  q_proj.weight and q_proj.bias half as large
        one projection for q, k and v
        ->  its weight by sqrt(1/2), the weight that takes v's result by sqrt(2)

    Before: the finished graphs. After: `absorbed` holds the factors that are not 1, and
    `unabsorbed` a `MUF508` for each correction that no parameter can take over.
    """
    if not program.changes and not program.buffers:
        return program
    missing = {trace.training: _missing(program, trace) for trace in program.traces}
    factors = {m: f for found in missing.values() for m, f in found.factors.items()}
    system = Absorption(factors, _order(program, factors))
    for trace in program.traces:
        found = missing[trace.training]
        parameters = frozenset(program.parameters())
        Scaling(trace, system, PASSED_ON, parameters, found.numbers, found.nodes).run()
    problems = [d for c in system.conflicts for d in _unabsorbed(program, system, c)]
    problems += [_unknown(change) for change in _unexplained(program, factors)]
    return replace(program, absorbed=system.solution(), unabsorbed=tuple(dict.fromkeys(problems)))


@dataclass(frozen=True, slots=True)
class _Found:
    """What one mode's graph has and the original lacks."""

    numbers: Mapping[tuple[str, Slot], Missing]
    nodes: Mapping[str, Missing]
    factors: Mapping[Missing, float]


def _missing(program: Program, trace: Trace) -> _Found:
    numbers: dict[tuple[str, Slot], Missing] = {}
    nodes: dict[str, Missing] = {}
    factors: dict[Missing, float] = {}
    for site, factor in program.corrections[trace.training].items():
        if site.kind is SiteKind.NUMBER and site.slot is not None:
            numbers[site.node, site.slot] = Missing(site.node, trace.training)
            factors[Missing(site.node, trace.training)] = factor
    inserted = {change.node for change in program.changes if change.before == "1"}
    for node in trace.graph.nodes:
        missing = Missing(node.name, trace.training)
        if node.op == "get_attr" and str(node.target) in program.buffers:
            factors[missing] = program.buffers[str(node.target)]
        elif node.name in inserted and node.target is operator.mul and missing not in factors:
            factors[missing] = trace.numbers[node.name, 1].target
        else:
            continue
        nodes[node.name] = missing
    return _Found(numbers, nodes, factors)


def _order(program: Program, missing: Iterable[Missing]) -> Iterator[str]:
    """The parameters from each missing factor upwards: weights before what they multiply.

    Of two activations that a factor could go to, queries and keys, the first comes first.
    """
    seen: dict[tuple[str, bool], fx.Node] = {}
    for trace in program.traces:
        wanted = {m.node for m in missing if m.training is trace.training}
        todo = [n for n in reversed(trace.graph.nodes) if n.name in wanted]
        while todo:
            node = todo.pop()
            if (node.name, trace.training) not in seen:
                seen[node.name, trace.training] = node
                operands = node.all_input_nodes[::-1]
                todo += [n for n in operands if n.op != "get_attr"]
                todo += [n for n in operands if n.op == "get_attr"]
    met = dict.fromkeys(str(n.target) for n in seen.values() if n.op == "get_attr")
    return iter(dict.fromkeys((*met, *program.parameters())))


def _unabsorbed(program: Program, system: Absorption, conflict: Conflict) -> Iterator[Diagnostic]:
    trace = next(t for t in program.traces if t.training is conflict.training)
    origins = trace.recording.origins
    for missing in conflict.missing:
        origin = origins.get(missing.node)
        yield error(
            "MUF508",
            f"no parameter can take over the factor {system.factors[missing]:.4g} that "
            f"{missing.node} needs: it would change {_named(trace, conflict.node)}, too",
            hint=_HINT,
            place=origin.place if origin is not None else None,
        )


def _named(trace: Trace, node: str) -> str:
    """A node, for a person: where in the source it stands."""
    origin = trace.recording.origins.get(node)
    return "the model's output" if origin is None else f"{node} at {origin.place.portable()}"


def _unexplained(program: Program, factors: Mapping[Missing, float]) -> Iterator[Change]:
    known = {missing.node for missing in factors}
    return (change for change in program.changes if change.node not in known)


def _unknown(change: Change) -> Diagnostic:
    return error(
        "MUF508",
        f"a pass changed {change.node} from {change.before} to {change.after}, and no parameter "
        "can take that over",
        hint=_HINT,
        place=change.place,
    )


_HINT = "train the module that `mufx convert` writes: there the factor stands in the forward pass"
