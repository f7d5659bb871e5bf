"""From what the constructor draws at target width to what μP wants."""

from __future__ import annotations

import math
from dataclasses import replace

from mufx.moments import Moments
from mufx.program import Program


def scale_inits(program: Program) -> Program:
    """Finds the factor on every parameter's own init at target width.

    μP wants B times the standard deviation (or constant) that the init has at base width. What
    the constructor draws is scaled, not drawn anew, so the distribution's shape stays and at base
    width nothing changes at all:

        correction = B * std(base) / std(target)

    A normal init of 0.02 on a hidden weight with m_in = 4 gives 1/2, PyTorch's fan-in uniform
    gives 1 there, and 2 on a bias.

    Rows that read out within a hidden weight start m_in**-1/2 smaller still, in every form: a
    readout's 1/m_in over a hidden weight's m_in**-1/2, both without a multiplier.

    Before: `inits`, `plan` and `row_blocks`. After: `init_corrections` holds a factor for every
    parameter, `row_corrections` one for rows with a role of their own.
    """
    corrections = {
        name: _settled(program.plan[name].init * _shrinkage(*inits))
        for name, inits in program.inits.items()
    }
    rows = {name: program.labels[name].m_in ** -0.5 for name in program.row_blocks}
    return replace(program, init_corrections=corrections, row_corrections=rows)


def _settled(factor: float) -> float:
    """Exactly 1 where rounding alone keeps the factor from it: nothing is multiplied then."""
    return 1.0 if math.isclose(factor, 1.0, rel_tol=1e-12) else factor


def _shrinkage(base: Moments, target: Moments) -> float:
    """Size at base over size at target; 1 for zeros, which stay zeros."""
    small, large = size(base), size(target)
    return small / large if small and large else 1.0


def size(moments: Moments) -> float:
    """The root mean square of the entries: the standard deviation where the mean is zero."""
    return math.hypot(moments.mean, moments.std)
