"""The table of classes, and the plan of an instance, for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING

from mufx.classes.listing import ClassRow, ClassTable
from mufx.report import relative

if TYPE_CHECKING:
    from rich.console import Console

    from mufx.classes.planning import ForwardFactor, InstancePlan

_ALSO = 2


def show(table: ClassTable, console: Console) -> None:
    """Prints one row for each class, and how to say which of them grow."""
    from rich.table import Table

    printed = Table(box=None, pad_edge=False, header_style="bold")
    printed.add_column("class", overflow="fold")
    printed.add_column("size", justify="right", overflow="fold")
    printed.add_column("tensors", justify="right")
    printed.add_column("", overflow="fold")
    for row in table.rows:
        sizes = ", ".join(str(n) for n in row.sizes)
        printed.add_row(row.name, sizes, str(row.tensors), _remark(row))
    console.print(f"{table.model}: axes that always grow together", markup=False)
    console.print(printed)
    console.print(
        "\nName those that are wider than at base width, and how many times: "
        f"--grow '{_example(table)}=4'",
        markup=False,
        soft_wrap=True,
    )


def _remark(row: ClassRow) -> str:
    parts = [row.alias] if row.alias else []
    if row.end:
        parts.append("rows of a table" if row.end == "table" else f"an axis of the {row.end}")
    if row.classes > 1:
        parts.append(f"{row.classes} classes")
    if row.also:
        more = f" and {len(row.also) - _ALSO} more" if len(row.also) > _ALSO else ""
        parts.append(f"also {', '.join(row.also[:_ALSO])}{more}")
    return "; ".join(parts)


def _example(table: ClassTable) -> str:
    row = next((r for r in table.rows if not r.end), None)
    return "CLASS" if row is None else row.alias or row.name


def show_plan(plan: InstancePlan, fixed: Mapping[str, str], console: Console) -> None:
    """Prints the optimizer groups, what the forward pass needs, and what was said to stay.

    `fixed` are the sizes of the classes that do not grow, by name.
    """
    from rich.table import Table

    source = plan.program.source
    console.print(f"{source.name}, {plan.program.optimizer}", markup=False)
    for name, base in source.base.items():
        console.print(f"  {name}: {base} -> {source.target[name]}", markup=False, soft_wrap=True)
    printed = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("role", "lr", "weight decay", "eps", "tensors", "parameters"):
        printed.add_column(column, justify="left" if column == "role" else "right")
    for (role, *scales), (tensors, entries) in _groups(plan).items():
        printed.add_row(role, *scales, str(tensors), f"{entries:,}")
    console.print(printed)
    for line, count in Counter(_needed(need) for need in plan.forward).items():
        times = f", in {count} modules" if count > 1 else ""
        console.print(f"{line}{times}", markup=False, soft_wrap=True)
    if fixed:
        said = ", ".join(f"{name} ({size})" for name, size in fixed.items())
        console.print(f"Keep their size: {said}", markup=False)


def _needed(need: ForwardFactor) -> str:
    what = f"argument {need.argument}" if need.argument.isdigit() else need.argument
    return f"{relative(need.place)}: multiply {need.operation}'s {what} by {need.factor:.6g}"


def _groups(plan: InstancePlan) -> dict[tuple[str, ...], tuple[int, int]]:
    tensors: Counter[tuple[str, ...]] = Counter()
    entries: Counter[tuple[str, ...]] = Counter()
    for p in plan.parameters.values():
        scales = (p.lr_scale, p.weight_decay_scale, p.eps_scale)
        row = (p.role, *(f"x{scale:.4g}" for scale in scales))
        tensors[row] += 1
        entries[row] += prod(p.shape)
    return {row: (count, entries[row]) for row, count in tensors.items()}
