"""Places of the user's source as the page shows them: with the lines around, where they are found.

A page names no folder of the machine it was made on: what a user may send around holds places
relative to the working folder, and so do the lines.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from mufx.diagnostics import Diagnostic, Place
from mufx.html.document import Entry

AROUND: Final = 2  # source lines shown before and after a place


def lines_at(place: Place | None) -> tuple[str, ...]:
    """Numbered lines; none where the file is not here or is shorter."""
    if place is None:
        return ()
    try:
        lines = Path(place.file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return ()
    if not 1 <= place.line <= len(lines):
        return ()
    start, stop = max(place.line - 1 - AROUND, 0), min(place.line + AROUND, len(lines))
    mark = {place.line - 1: ">"}
    return tuple(f"{mark.get(i, ' ')} {i + 1:5} {lines[i]}" for i in range(start, stop))


def shown(place: Place | None) -> str:
    """`file:line`, as on any machine."""
    return str(place.portable()) if place is not None else ""


def portable(spec: str) -> str:
    """A specification as on any machine: `model.py:Net` for `/home/me/model.py:Net`."""
    return str(Place(spec, 1).portable().file) if Path(spec).is_absolute() else spec


def of_diagnostic(diagnostic: Diagnostic) -> Entry:
    """A diagnostic with its lines of source."""
    place = diagnostic.place
    facts = (
        ("what", diagnostic.message),
        ("hint", diagnostic.hint),
        ("in", place.module if place is not None else ""),
    )
    head = f"{diagnostic.severity} {diagnostic.code} {shown(place)}".strip()
    return Entry(head, _told(facts), lines_at(place), mark=diagnostic.severity.value)


def _told(facts: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    return tuple((name, text) for name, text in facts if text)
