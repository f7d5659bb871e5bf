"""The μP knowledge: one pass, one file, one function of the same name.

The order is the tuple `PASSES`. A pass is a function from a Program to a Program; what holds
before and after it is said in its docstring.
"""

if __name__ != "mufx.passes":  # a second copy of every class otherwise
    raise ImportError("import mufx.passes")

from mufx.passes.absorb_corrections import absorb_corrections
from mufx.passes.apply_corrections import apply_corrections
from mufx.passes.assign_roles import assign_roles
from mufx.passes.find_corrections import find_corrections
from mufx.passes.find_fixed_heads import find_fixed_heads
from mufx.passes.find_row_blocks import find_row_blocks
from mufx.passes.find_uses import find_uses
from mufx.passes.fold_multipliers import fold_multipliers
from mufx.passes.plan_parameters import plan_parameters
from mufx.passes.prove import prove
from mufx.passes.read_inits import read_inits
from mufx.passes.scale_inits import scale_inits
from mufx.program import Pass

PASSES: tuple[Pass, ...] = (
    find_uses,
    find_row_blocks,
    assign_roles,
    find_fixed_heads,
    read_inits,
    plan_parameters,
    find_corrections,
    apply_corrections,
    fold_multipliers,
    scale_inits,
    absorb_corrections,
    prove,
)

__all__ = [
    "PASSES",
    "absorb_corrections",
    "apply_corrections",
    "assign_roles",
    "find_corrections",
    "find_fixed_heads",
    "find_row_blocks",
    "find_uses",
    "fold_multipliers",
    "plan_parameters",
    "prove",
    "read_inits",
    "scale_inits",
]
