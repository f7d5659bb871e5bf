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

    Before: `inits` and `plan`. After: `init_corrections` holds a factor for every parameter.
    """
    corrections = {
        name: _settled(program.plan[name].init * _shrinkage(*inits))
        for name, inits in program.inits.items()
    }
    return replace(program, init_corrections=corrections)


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
