"""The static predictions: exponents in the width, from the graph, the inits and the rates alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import fx

from mufx.align import Trace
from mufx.check.alike import Batch
from mufx.check.gradients import gradients
from mufx.check.links import Links
from mufx.check.starting import ZERO, Side
from mufx.check.step import Step
from mufx.check.watch import LOGITS, named_nodes
from mufx.magnitudes import Magnitude, Weight
from mufx.passes.prove import buffers
from mufx.program import Optimizer, Program
from mufx.rows import Rows
from mufx.rules import operation
from mufx.rules.contractions import CONTRACTIONS
from mufx.source import BATCH


@dataclass(frozen=True)
class Prediction:
    """What a first step changes, from base to target.

    Attributes:
        program: The conversion, which knows the inits and, where `converted`, the rates.
        trace: What is trained: the program's own graph, or that of the original.
        converted: Whether it is trained with the inits and the rates of the conversion.
        batch: The batch size.
    """

    program: Program
    trace: Trace
    converted: bool
    batch: int

    def exponents(self, m: float) -> dict[str, float]:
        """By node: the exponent in `m` of its change in one small step; none where it is zero."""
        base, target = (self._changes(side) for side in Side)
        found: dict[str, float] = {}
        for name, node in named_nodes(self.trace):
            for suffix in ("", f"/{LOGITS}"):
                small, large = (c.get(node.name + suffix, 0.0) for c in (base, target))
                if min(small, large) > math.sqrt(ZERO):
                    found[name + suffix] = _exponent(small, large, m)
        return found

    def starts(
        self, m: float, design: Mapping[str, float]
    ) -> tuple[dict[str, float], dict[str, float]]:
        """By node where a parameter or two activations are multiplied: exponents before training.

        Of its size, and of that of the smallest activation that is multiplied, less its `design`;
        with the inits that the plan wants, whatever the module is given. Such a node has the size
        of a sum of independent products; the size of others is not known as well. Rows that read
        out of a fused weight are smaller than its others: it is left out.
        """
        base, target = (self._walked(side, self._designed) for side in Side)
        named = list(named_nodes(self.trace))
        designs = {node.name: design.get(name, 0.0) for name, node in named}
        sizes: dict[str, float] = {}
        inputs: dict[str, float] = {}

        def power(node: fx.Node) -> float:
            return _exponent(base.size(node), target.size(node), m)

        for name, node in named:
            if node.name in base.logit_sizes:
                small, large = base.logit_sizes[node.name], target.logit_sizes[node.name]
                sizes[f"{name}/{LOGITS}"] = _exponent(small, large, m)
            elif self._multiplies(base, node):
                given = [n for n in base.operands(node) if _is_activation(base, n)]
                sizes[name] = power(node)
                inputs[name] = min(
                    (power(n) - designs.get(n.name, 0.0) for n in given), default=0.0
                )
        return sizes, inputs

    def _multiplies(self, walk: Links, node: fx.Node) -> bool:
        if not _is_activation(walk, node) or node in walk.constants:
            return False
        weights = [v for n in node.all_input_nodes if isinstance(v := walk.item(n), Weight)]
        if any(weight.names & self.program.row_blocks.keys() for weight in weights):
            return False
        return bool(weights) or operation(node) in CONTRACTIONS

    def _walked(self, side: Side, init: Callable[[str, Side], float]) -> Links:
        constants = self.program.constants(self.trace)
        inits = {name: init(name, side) for name in self.program.inits}
        rows = _rows(self.trace) * self.batch / BATCH
        batch = Batch(rows, rows / self.batch)
        start = Links(self.trace, constants, self.program.rules, inits, side, batch)
        if self.converted and side is Side.TARGET:
            start.corrections.update(buffers(self.program))
            start.readouts.update(_readouts(self.program, self.trace))
        start.run()
        return start

    def _designed(self, name: str, side: Side) -> float:
        factor = self.program.plan[name].init if side is Side.TARGET else 1.0
        return self.program.inits[name][0].size * factor or ZERO

    def _changes(self, side: Side) -> dict[str, float]:
        return self.step(side).sizes()

    def step(self, side: Side) -> Step:
        """A first step; under Adam it has the size of the rate."""
        start, sgd = self._walked(side, self._init), self.program.optimizer is Optimizer.SGD
        slopes = gradients(start)
        sizes = slopes.parameters if sgd else dict.fromkeys(self.program.inits, 1.0)
        updates = {n: self._rate(n, side) * sizes.get(n, 1.0) for n in self.program.inits}
        return Step(start, slopes, updates, sgd)

    def _init(self, name: str, side: Side) -> float:
        base, target = self.program.inits[name]
        if side is Side.BASE:
            return base.size or ZERO
        factor = self.program.init_corrections[name] if self.converted else 1.0
        return target.size * factor or ZERO

    def _rate(self, name: str, side: Side) -> float:
        return self.program.plan[name].lr if self.converted and side is Side.TARGET else 1.0


def _exponent(small: float, large: float, m: float) -> float:
    return math.log(large / small) / math.log(m)


def _readouts(program: Program, trace: Trace) -> dict[str, float]:
    """By node that first holds rows which read out alone: how many times as large as the others."""
    found: dict[str, float] = {}
    rows = Rows(trace)
    for name, blocks in program.row_blocks.items():
        reads_out = {row for start, stop in blocks.rows for row in range(start, stop)}
        for flow in filter(None, map(rows.of, program.uses[name])):
            alone = {n for n, region in flow.held.items() if region.rows() <= reads_out}
            firsts = (n for n in alone if not alone.intersection(n.all_input_nodes))
            found |= dict.fromkeys((n.name for n in firsts), program.row_corrections[name])
    return found


def _is_activation(walk: Links, node: fx.Node) -> bool:
    return isinstance(walk.item(node), Magnitude)


def _rows(trace: Trace) -> float:
    """The terms of the loss in a batch of example inputs: the rows of the largest output."""
    (output,) = (n for n in trace.graph.nodes if n.op == "output")
    shapes = [trace.axes.get(node.name, ()) for node in output.all_input_nodes]
    rows = [math.prod(a.target for a in axes[:-1]) for axes in shapes if len(axes) > 1]
    return float(max(rows, default=BATCH))
