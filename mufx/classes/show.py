"""The table of classes for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mufx.classes.listing import ClassRow, ClassTable

if TYPE_CHECKING:
    from rich.console import Console

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
        f"--grow {_example(table)}=4",
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
