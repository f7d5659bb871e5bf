"""What every command prints alike: refusals, JSON documents, progress."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import typer

from mufx.diagnostics import Diagnostic, MufxError, Severity

if TYPE_CHECKING:
    from rich.console import Console

WIDTH = 100
USAGE = 2  # the exit status of every refusal

Progress = Callable[[str], None]


@contextmanager
def refusals(as_json: bool) -> Generator[None]:
    """Prints what a `MufxError` says, and ends with the exit status of a refusal."""
    try:
        yield
    except MufxError as problem:
        shown = [_relative(diagnostic) for diagnostic in problem.diagnostics]
        console = terminal(stderr=True)
        for diagnostic in shown:
            style = "red" if diagnostic.severity is Severity.ERROR else "yellow"
            head, _, rest = str(diagnostic).partition("\n")
            console.print(head, style=style, markup=False, highlight=False, soft_wrap=True)
            if rest:
                console.print(rest, markup=False, highlight=False, soft_wrap=True)
        if as_json:
            print_json({"diagnostics": [_record(diagnostic) for diagnostic in shown]})
        raise typer.Exit(USAGE) from None


def _relative(diagnostic: Diagnostic) -> Diagnostic:
    """With a path from the working directory, as people write it."""
    from mufx.report import relative

    place = diagnostic.place
    return replace(diagnostic, place=relative(place)) if place is not None else diagnostic


def _record(diagnostic: Diagnostic) -> Mapping[str, object]:
    place = diagnostic.place
    return {
        "code": diagnostic.code,
        "severity": diagnostic.severity.value,
        "message": diagnostic.message,
        "hint": diagnostic.hint,
        "file": place.file if place is not None else None,
        "line": place.line if place is not None else None,
        "module": place.module if place is not None else None,
    }


def print_json(document: Mapping[str, object]) -> None:
    """Prints one JSON document on stdout: sorted, so that it compares."""
    typer.echo(json.dumps(document, indent=2, sort_keys=True))


def terminal(*, stderr: bool) -> Console:
    """A console of at most 100 columns; exactly 100 where the output is no terminal."""
    from rich.console import Console

    console = Console(stderr=stderr)
    console.width = min(console.width, WIDTH) if console.is_terminal else WIDTH
    return console


@contextmanager
def working() -> Generator[Progress]:
    """Shows the last message on stderr while it runs, where that is a terminal."""
    from rich.markup import escape

    console = terminal(stderr=True)
    if not console.is_terminal:
        yield lambda message: None
        return
    with console.status("") as status:
        yield lambda message: status.update(escape(message))
