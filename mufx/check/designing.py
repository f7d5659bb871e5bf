"""The sizes that a converted model should have: the same at any width, nearly everywhere."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any

from mufx.check.watch import named_nodes
from mufx.constants import Constants
from mufx.init_sizes import kept_change
from mufx.magnitudes import Magnitude, Value, Weight
from mufx.passes.prove import walked
from mufx.program import Program
from mufx.ratios import Check


def by_design(program: Program, m: float) -> dict[str, float]:
    """By node of the emitted module in training: the exponent of its size in `m`.

    0 nearly everywhere. Where a multiplier is folded into a gain or a bias it is not, on purpose;
    nor behind values that a conversion keeps as they are computed, whatever their size (`MUF204`).
    """
    tables = frozenset(name for name in program.inits if kept_change(program, name) is not None)
    kept = Constants(program.train, program.base, program.target, tables)
    walk = walked(program, program.train, partial(_Designed, kept))
    found = {n: v.ratio for n, v in walk.values.items() if isinstance(v, Magnitude)}
    return {
        name: math.log(found[node.name]) / math.log(m)
        for name, node in named_nodes(program.train)
        if found.get(node.name, 0.0) > 0
    }


class _Designed(Check):
    """The proof's calculation, in which `kept` tables have the size of their values."""

    def __init__(self, kept: Constants, *given: Any) -> None:
        super().__init__(*given)
        self.kept = kept

    def item(self, operand: Any) -> Value:
        """A weight that is computed from such tables alone changes as its values do."""
        value = super().item(operand)
        if not isinstance(value, Weight) or operand not in self.kept:
            return value
        return replace(value, ratio=self.kept.target_size(operand) / self.kept.base_size(operand))
