"""The sizes of an init at base and at target, and where their difference means nothing."""

from __future__ import annotations

import math

from mufx.moments import DEVIATIONS
from mufx.program import Program, Role


def compared(program: Program, name: str) -> tuple[float, float]:
    """The sizes of an init at base and at target, equal where the difference means nothing.

    What is computed means its values, and of a sample the size is known up to chance.
    """
    base, target = program.inits[name]
    unused = program.labels[name].anchor is None
    chance = DEVIATIONS * math.hypot(base.size * base.error, target.size * target.error)
    if unused or is_added_table(program, name) or abs(target.size - base.size) < chance:
        return base.size, base.size
    return base.size, target.size


def is_table(program: Program, name: str) -> bool:
    """Whether values are computed, and not drawn."""
    return any(m.kind == "table" for m in program.inits[name])


def is_added_table(program: Program, name: str) -> bool:
    """Computed values that are added, multiplied or looked up entry by entry."""
    return is_table(program, name) and program.labels[name].role in (Role.INPUT, Role.SCALAR)


_NOT_FROM_THE_GRID = 1.1
"""Times: what the number of points does to the size of a table between two ends is less."""


def kept_change(program: Program, name: str) -> float | None:
    """How the size of a table that a conversion leaves alone changes with width, where it does."""
    small, large = (init.size for init in program.inits[name])
    if not is_added_table(program, name) or not small or not large:
        return None
    is_grid = 1 / _NOT_FROM_THE_GRID < large / small < _NOT_FROM_THE_GRID
    return None if is_grid else large / small
