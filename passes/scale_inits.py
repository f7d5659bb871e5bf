"""From what the constructor draws at target width to what μP wants."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

from mufx.diagnostics import Diagnostic, Place, error, note, warning
from mufx.init_sizes import compared, is_added_table, is_table, kept_change
from mufx.matrices import summed_entries
from mufx.program import Program
from mufx.ratios import Walk


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

    What is computed and not drawn (the decays `linspace(-6, -1, d)`) means its values: where
    nothing that grows is contracted the correction is B. So it is where only a sample of an init
    is known and its sizes differ by no more than chance.

    Before: `inits`, `plan` and `row_blocks`. After: `init_corrections` holds a factor for every
    parameter, `row_corrections` one for rows with a role of their own.

    Codes: `MUF204` for a computed weight that contracts an axis that grows, and is scaled as if it
    were drawn; and for computed values that change their size with width, which keep it, and may
    not be summed over.
    """
    corrections = {
        name: _settled(program.plan[name].init * _shrinkage(*compared(program, name)))
        for name in program.inits
    }
    rows = {name: program.labels[name].m_in ** -0.5 for name in program.row_blocks}
    summed = _summed(program)
    told = [d for name in program.inits for d in _computed(program, name, summed)]
    return replace(program, init_corrections=corrections, row_corrections=rows).report(*told)


def _computed(program: Program, name: str, summed: Mapping[str, Place]) -> Iterator[Diagnostic]:
    """What is told of values that are computed, and not drawn."""
    anchor = program.labels[name].anchor
    if anchor is None or not is_table(program, name):
        return
    if not is_added_table(program, name):
        yield warning(
            "MUF204",
            f"{name} is computed, not drawn, and contracts an axis that grows: it is scaled as if "
            "its entries were independent",
            hint="draw it, or start it at zero",
            place=anchor.place,
        )
        return
    change = kept_change(program, name)
    if change is None:
        return
    if name in summed:
        yield error(
            "MUF204",
            f"the values that {name} is computed to change their size by {change:.4g} from base "
            "to target, and what they make is summed over that axis: no factor is right",
            hint="keep this size fixed, or compute them so that their size does not depend on how "
            "many there are",
            place=summed[name],
        )
    else:
        yield note(
            "MUF204",
            f"the values that {name} is computed to change their size by {change:.4g} from "
            "base to target, and stay as they are",
            hint="compute them so that their size does not depend on how many there are",
            place=anchor.place,
        )


def _summed(program: Program) -> dict[str, Place]:
    """Where the values of such tables are summed over, in a program without errors."""
    tables = {name for name in program.inits if kept_change(program, name) is not None}
    found: dict[str, Place] = {}
    for trace in program.traces if tables and not program.is_refused else ():
        walk = Walk(trace, program.constants(trace), program.rules)
        walk.run()
        found |= summed_entries(walk, tables)
    return found


def _settled(factor: float) -> float:
    """Exactly 1 where rounding alone keeps the factor from it: nothing is multiplied then."""
    return 1.0 if math.isclose(factor, 1.0, rel_tol=1e-12) else factor


def _shrinkage(small: float, large: float) -> float:
    """Size at base over size at target; 1 for zeros, which stay zeros."""
    return small / large if small and large else 1.0
