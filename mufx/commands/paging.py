"""Writes the page of a command, with what earlier pages measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mufx.html import Document
    from mufx.html.joining import Earlier


def write_page(page: Path, document: Document, earlier: Sequence[Earlier]) -> None:
    """Writes the page into its folder, which is made."""
    from mufx import html, output
    from mufx.html.joining import joined

    output.write_files(page.parent, {page.name: html.written(joined(document, earlier))})
