"""What `mufx convert` and `mufx explain` answer: records, and tables of them for people."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from mufx.diagnostics import MufxError, Place, error
from mufx.knobs import did_you_mean, written

if TYPE_CHECKING:
    from rich.console import Console

    from mufx.manifest import Manifest


@dataclass(frozen=True, slots=True)
class GroupRow:
    """One learning-rate group: factors on the optimizer's settings, and how much it holds."""

    group: str
    lr_scale: float
    weight_decay_scale: float
    eps_scale: float
    tensors: int
    numbers: int


@dataclass(frozen=True, slots=True)
class ChangeRow:
    """One place of the forward pass that was rewritten."""

    place: str
    before: str
    after: str
    because: str


@dataclass(frozen=True, slots=True)
class NoteRow:
    """One diagnostic that stopped nothing."""

    code: str
    severity: str
    place: str
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class Report:
    """What a conversion did."""

    model: str
    optimizer: str
    form: str
    base: Mapping[str, object]
    target: Mapping[str, object]
    groups: tuple[GroupRow, ...]
    changes: tuple[ChangeRow, ...]
    notes: tuple[NoteRow, ...]
    written: tuple[str, ...]

    def document(self) -> dict[str, object]:
        """The records as JSON takes them."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why one parameter is scaled as it is, and the numbers."""

    parameter: str
    because: tuple[str, ...]
    numbers: Mapping[str, object]

    def document(self) -> dict[str, object]:
        """The record as JSON takes it."""
        return asdict(self)


def of_conversion(manifest: Manifest, written: Sequence[str]) -> Report:
    """The records of a conversion; `written` are the files that were made."""
    return Report(
        model=manifest.model,
        optimizer=manifest.optimizer,
        form=manifest.form,
        base=dict(manifest.base),
        target=dict(manifest.target),
        groups=tuple(_groups(manifest)),
        changes=tuple(
            ChangeRow(_place(c.place), c.before, c.after, c.because) for c in manifest.changes
        ),
        notes=tuple(
            NoteRow(d.code, d.severity.value, _place(d.place), d.message, d.hint)
            for d in manifest.diagnostics
        ),
        written=tuple(written),
    )


def of_parameter(manifest: Manifest, name: str) -> Explanation:
    """The chain from an operation to the role to the numbers of one parameter.

    Raises:
        MufxError: `MUF016` where the model has no such parameter.
    """
    known = _parameter(manifest, name)
    if known is None:
        raise MufxError(
            error(
                "MUF016",
                f"{manifest.model} has no parameter {name}",
                hint=f"{did_you_mean(name, manifest.parameters)}its parameters are: "
                f"{', '.join(manifest.parameters)}",
            )
        )
    numbers = manifest.parameters[known].model_dump(mode="json")
    because = numbers.pop("because")
    if not numbers["rows"]:
        del numbers["rows"]
    return Explanation(known, tuple(because), numbers)


def _parameter(manifest: Manifest, name: str) -> str | None:
    """The name that the manifest knows a parameter by: a tied one has several."""
    if name in manifest.parameters:
        return name
    return next((n for n, entry in manifest.parameters.items() if name in entry.tied), None)


def _groups(manifest: Manifest) -> Iterable[GroupRow]:
    for name, group in manifest.groups.items():
        held = [manifest.parameters[parameter] for parameter in group.parameters]
        yield GroupRow(
            group=name,
            lr_scale=group.lr_scale,
            weight_decay_scale=group.weight_decay_scale,
            eps_scale=group.eps_scale,
            tensors=len(held),
            numbers=sum(prod(entry.shape) for entry in held),
        )


def _place(place: Place | None) -> str:
    return str(relative(place)) if place is not None else ""


def relative(place: Place) -> Place:
    """The place with a path from the working directory, where its file lies under it."""
    if not Path(place.file).is_relative_to(Path.cwd()):
        return place
    return replace(place, file=os.path.relpath(place.file))


# -- for people ---------------------------------------------------------------------------------


def show(report: Report, console: Console) -> None:
    """Prints the groups, then what was changed, then notes and files."""
    from rich.box import SIMPLE_HEAD
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    console.print(
        Text(
            f"{report.model}: {written(report.base)} -> {written(report.target)}, "
            f"{report.optimizer}, {report.form}"
        ),
        soft_wrap=True,  # the knobs are one long word, which would be cut
    )
    groups = Table("group", box=SIMPLE_HEAD, pad_edge=False)
    for name in ("tensors", "numbers", "lr", "weight decay", "eps"):
        groups.add_column(name, justify="right")
    for row in report.groups:
        scales = (row.lr_scale, row.weight_decay_scale, row.eps_scale)
        groups.add_row(
            Text(row.group),
            str(row.tensors),
            f"{row.numbers:,}",
            *(f"x {scale:.6g}" for scale in scales),
        )
    console.print(groups)
    for change, times in Counter(report.changes).items():
        console.print(Text(f"changed: {change.place}" + (f" ({times} times)" * (times > 1))))
        lines = Table.grid(padding=(0, 1))
        lines.add_column()
        lines.add_column(overflow="fold")
        for name in ("before", "after", "because"):
            lines.add_row(name, Text(getattr(change, name)))
        console.print(Padding(lines, (0, 0, 0, 2)))
    for note in report.notes:
        where = f"{note.place}: " if note.place else ""
        console.print(Text(f"{where}{note.severity} {note.code}: {note.message}"))
        if note.hint:
            console.print(Text(f"  hint: {note.hint}"))
    files = ", ".join(report.written) if report.written else "nothing; add -o FOLDER"
    console.print(Text(f"written: {files}"))


def show_explanation(explanation: Explanation, console: Console) -> None:
    """Prints the chain, then the numbers."""
    from rich.box import SIMPLE
    from rich.table import Table
    from rich.text import Text

    console.print(Text(explanation.parameter))
    for step in explanation.because:
        console.print(Text(f"  because {step}"))
    numbers = Table(box=SIMPLE, show_header=False)
    for name, value in explanation.numbers.items():
        numbers.add_row(Text(name), Text(_number(value)))
    console.print(numbers)


def _number(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)
