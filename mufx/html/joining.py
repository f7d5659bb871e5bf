"""Puts what earlier pages measured onto a page: one file with the plots of a check and a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from mufx.diagnostics import MufxError, error
from mufx.html.document import Document, Section, Words
from mufx.html.page import read

MEASURED: Final = ("check", "sweep", "optima", "tuned")
"""The sections that are taken: what was trained for. The rest is about another conversion."""
_HINT: Final = "name a page that mufx check or mufx sweep wrote with --report"
_ORDER: Final = ("findings", *MEASURED)


@dataclass(frozen=True, slots=True)
class Earlier:
    """A page that was written before, and where it lies."""

    file: Path
    document: Document

    @property
    def measured(self) -> tuple[Section, ...]:
        """What is taken, with what its page says above it."""
        return tuple(_headed(s) for s in self.document.sections if s.id in MEASURED)


def earlier(files: Sequence[Path], page: Path | None, own: str = "") -> tuple[Earlier, ...]:
    """The pages to take from, before anything is trained; `own` is what the new page measures.

    Raises:
        MufxError: `MUF019` where one holds nothing to take, or what is there already.
    """
    pages: list[Earlier] = []
    held = {own}
    for file in files:
        if page is None:
            raise _refused(f"{file} has no page to go to", "add --report report.html")
        made = Earlier(file, _read(file))
        sections = [section.id for section in made.measured]
        if not sections:
            raise _refused(f"{file} holds no check and no sweep", _HINT)
        for double in (name for name in sections if name in held):
            hint = "leave one of them out: a page shows one check and one sweep"
            raise _refused(f"{file} holds a second {double}", hint)
        held.update(sections)
        pages.append(made)
    return tuple(pages)


def agree(pages: Sequence[Earlier], source: str) -> None:
    """Whether the pages are about the source with this digest.

    Raises:
        MufxError: `MUF019` where they are about another.
    """
    for page in pages:
        if page.document.source != source:
            what = f"{page.file} is about another model, or another version of its file"
            raise _refused(what, "run its command again, on the model as it is now")


def joined(document: Document, pages: Sequence[Earlier]) -> Document:
    """The document with what the pages measured; of an audit, after its findings.

    Raises:
        MufxError: see `agree`.
    """
    agree(pages, document.source)
    taken = [section for page in pages for section in page.measured]
    places = {name: place for place, name in enumerate(_ORDER)}
    sections = sorted(
        (*taken, *document.sections), key=lambda section: places.get(section.id, len(places))
    )
    return replace(document, sections=tuple(sections))


def _headed(section: Section) -> Section:
    head = map(Words, section.head)
    return replace(section, blocks=(*head, *section.blocks), head=())


def _read(file: Path) -> Document:
    try:
        return read(file.read_text(encoding="utf-8"))
    except OSError as problem:
        raise _refused(f"{file} cannot be read: {problem.strerror or problem}", _HINT) from problem
    except ValueError as problem:
        raise _refused(f"{file} is no page of this version of mufx", _HINT) from problem


def _refused(what: str, hint: str) -> MufxError:
    return MufxError(error("MUF019", what, hint=hint))
