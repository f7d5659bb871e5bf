"""The roles of a conversion as text: one line for the same parameter of all blocks."""

from __future__ import annotations

import re
from collections import defaultdict

from mufx.api import Conversion
from mufx.manifest import ParameterEntry, RowsEntry


def roles(conversion: Conversion) -> str:
    """A line `parameter  role  m_in  m_out  init  lr  decay  eps` for every pattern, in order.

    Rows of a fused weight that have a role of their own follow it in brackets.
    The indices of blocks are folded into `*`; where equal patterns differ in their numbers, each
    kind has its line, with how many parameters are of it.
    """
    found: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for name, entry in conversion.manifest.parameters.items():
        found[re.sub(r"\b\d+\b", "*", name)][_numbers(entry)] += 1
    rows = [
        (pattern if len(kinds) == 1 else f"{pattern} ({count})", numbers)
        for pattern, kinds in found.items()
        for numbers, count in kinds.items()
    ]
    width = max(len(pattern) for pattern, _ in rows)
    corrected = [f"{c.before} -> {c.after}" for c in conversion.manifest.changes]
    lines = [f"{pattern:{width}}  {numbers}" for pattern, numbers in rows]
    lines += [f"# {change} ({corrected.count(change)})" for change in dict.fromkeys(corrected)]
    codes = sorted({d.code for d in conversion.manifest.diagnostics})
    return "\n".join([*lines, *(f"# {code}" for code in codes)]) + "\n"


def _numbers(entry: ParameterEntry) -> str:
    axes = f"{entry.role:6}  in {entry.m_in:<4.4g} out {entry.m_out:<4.4g}"
    rates = f"lr {entry.lr_scale:<7.4g} decay {entry.weight_decay_scale:<4.4g}"
    numbers = f"{axes} init {entry.init_scale:<7.4g} {rates} eps {entry.eps_scale:<7.4g}"
    return "  ".join([numbers, *(_rows(entry, rows) for rows in entry.rows)]).rstrip()


def _rows(entry: ParameterEntry, rows: RowsEntry) -> str:
    init = f"{entry.init_scale * rows.init_correction:.4g}"
    return f"[{rows.role} {rows.start}:{rows.stop} of axis {rows.axis} init {init}]"
