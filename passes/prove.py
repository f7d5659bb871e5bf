"""The static coordinate check of the finished program."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mufx.align import Trace
from mufx.constants import Constants
from mufx.diagnostics import error
from mufx.init_sizes import compared
from mufx.magnitudes import Site, SiteKind
from mufx.passes.assign_roles import excluded_by
from mufx.program import Optimizer, Program
from mufx.ratios import Check, Finding, Scaling
from mufx.rules import RuleTable
from mufx.sizes import same


def prove(program: Program) -> Program:
    """Runs the ratio calculation on the rewritten graphs, with every parameter's own numbers.

    It derives nothing: it reads the numbers in the graphs, the init that the constructor gives
    times its correction, and the learning rate of the plan. Whatever leaves 1 is an error.

    Before: the finished program. After: the same program, with a `MUF303` for each finding.
    A program with errors is not finished, and is left as it is.
    """
    if program.is_refused:
        return program  # it is not finished, and what would be found says nothing of mufx
    return program.report(
        *(
            error(
                "MUF303",
                f"{finding.what} changes by {finding.ratio:.4g} from base to target",
                hint="this is a defect of mufx or of a pass of yours: please report it",
                place=finding.place,
            )
            for finding in findings(program)
        )
    )


def findings(program: Program) -> list[Finding]:
    """Every ratio of the program that leaves 1, in the order of the graph, both modes."""
    found = [f for trace in program.traces for f in walked(program, trace).findings]
    return list(dict.fromkeys(found))


Checking = Callable[[Trace, Constants, RuleTable, Mapping[str, Scaling]], Check]


def walked(program: Program, trace: Trace, kind: Checking = Check) -> Check:
    """The calculation over one trace, finished: what it found, and the size of every value."""
    scalings = {name: _scaling(program, name) for name in program.inits}
    walk = kind(trace, program.constants(trace), program.rules, scalings)
    walk.corrections.update(buffers(program))
    walk.run()
    return walk


def buffers(program: Program) -> dict[Site, float]:
    """The factors on buffers, where a graph reads them."""
    return {
        Site(SiteKind.BUFFER, node.name): program.buffers[str(node.target)]
        for trace in program.traces
        for node in trace.graph.nodes
        if node.op == "get_attr" and node.target in program.buffers
    }


def _scaling(program: Program, name: str) -> Scaling:
    plan = program.plan[name]
    before, large = compared(program, name)
    after = large * program.init_corrections[name]
    # One step of SGD moves a weight by lr times the gradient, whose scale eps follows.
    update = plan.lr * (plan.eps if program.optimizer is Optimizer.SGD else 1.0)
    return Scaling(
        after / before if before else 1.0,
        update,
        at_zero=same(before, 0.0),
        may_start_small=_may_start_small(program, name),
    )


def _may_start_small(program: Program, name: str) -> bool:
    """A readout in any use, or uses that exclude each other: the init is the smallest of theirs."""
    uses, anchor = program.uses.get(name, ()), program.labels[name].anchor
    reads_out = any(use.contracts and not use.keeps for use in uses)
    return reads_out or (anchor is not None and bool(excluded_by(anchor, uses)))
