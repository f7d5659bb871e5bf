"""The command line: `mufx convert` and `mufx explain`.

torch is only imported when a command runs, so that `mufx --help` answers at once.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer

from mufx.diagnostics import Diagnostic, MufxError, Severity

if TYPE_CHECKING:
    from rich.console import Console

    from mufx.api import Conversion
    from mufx.source import Source

WIDTH = 100
USAGE = 2  # the exit status of every refusal

Progress = Callable[[str], None]
_T = TypeVar("_T")

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Converts a PyTorch model to the maximal update parametrization (μP). "
    "Every command imports the user's file, so it executes it.",
)

_EXECUTES = "Imports the user's file, so it executes it."
_SPEC_HELP = "model.py, model.py:Class or package.module:Class. It is imported, so it is executed."

SpecArgument = Annotated[str, typer.Argument(metavar="SPEC", help=_SPEC_HELP)]
BaseOption = Annotated[
    str | None,
    typer.Option("--base", metavar="K=V,..", help="Knobs where you tune: width=64,n_head=2."),
]
TargetOption = Annotated[
    str | None, typer.Option("--target", metavar="K=V,..", help="Knobs of what you train.")
]
VaryOption = Annotated[
    str | None,
    typer.Option("--vary", metavar="K,..", help="Where base equals target: knobs that would grow."),
]
InputOption = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="NAME:DTYPE[SIZES]<HIGH",
        help="An example input of forward, repeatable: 'idx:int64[2,16]<50257'.",
    ),
]
BatchOption = Annotated[
    int | None, typer.Option("--batch", min=1, help="The batch size of the example inputs.")
]
FormOption = Annotated[
    Literal["table3", "table8", "table9"],
    typer.Option("--form", help="Which table of Tensor Programs V: table3 has no multipliers."),
]
OptimizerOption = Annotated[
    Literal["adam", "adamw", "sgd"], typer.Option("--optimizer", help="What will train the model.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]


def convert_source(source: Source, *, optimizer: str, form: str, progress: Progress) -> Conversion:
    """The conversion; imported when it is needed."""
    from mufx import api

    return api.convert_source(source, optimizer=optimizer, form=form, progress=progress)


def _version(wanted: bool) -> None:
    if not wanted:
        return
    try:
        typer.echo(f"mufx {version('mufx')}")
    except PackageNotFoundError:
        typer.echo("mufx, not installed")
    raise typer.Exit


@app.callback()
def mufx(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Converts a PyTorch model to the maximal update parametrization (μP)."""


@app.command(help=f"Convert a model, and write model_mup.py and manifest.json. {_EXECUTES}")
def convert(
    spec: SpecArgument,
    base: BaseOption = None,
    target: TargetOption = None,
    vary: VaryOption = None,
    inputs: InputOption = None,
    batch: BatchOption = None,
    form: FormOption = "table3",
    optimizer: OptimizerOption = "adamw",
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="The folder to write; it is created.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing conversion.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Convert and report, but write nothing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Converts the model of a specification."""
    from mufx import output, report

    with _refusals(as_json):
        if out is not None:
            output.check_folder(out, force=force)
        conversion = _converted(spec, base, target, vary, inputs, batch, form, optimizer)
        files = conversion.files()
        writing = out if not dry_run else None
        names = [str(writing / name) for name in files] if writing is not None else []
        records = report.of_conversion(conversion.manifest, names)
        if writing is not None:
            output.write_files(writing, files)
    if as_json:
        _print_json(records.document())
    else:
        report.show(records, _console(stderr=False))


@app.command(help=f"Say why a parameter is scaled as it is. {_EXECUTES}")
def explain(
    spec: SpecArgument,
    parameter: Annotated[str, typer.Argument(metavar="PARAM", help="h.0.attn.c_proj.weight")],
    base: BaseOption = None,
    target: TargetOption = None,
    vary: VaryOption = None,
    inputs: InputOption = None,
    batch: BatchOption = None,
    form: FormOption = "table3",
    optimizer: OptimizerOption = "adamw",
    as_json: JsonOption = False,
) -> None:
    """Explains one parameter of the model of a specification."""
    from mufx import report

    with _refusals(as_json):
        conversion = _converted(spec, base, target, vary, inputs, batch, form, optimizer)
        record = report.of_parameter(conversion.manifest, parameter)
    if as_json:
        _print_json(record.document())
    else:
        report.show_explanation(record, _console(stderr=False))


def _converted(
    spec: str,
    base: str | None,
    target: str | None,
    vary: str | None,
    inputs: list[str] | None,
    batch: int | None,
    form: str,
    optimizer: str,
) -> Conversion:
    """Loads and converts; what the user's code prints goes to stderr."""
    with redirect_stdout(sys.stderr), _progress() as progress:
        progress(f"loading {spec}")
        source = _source(spec, base, target, vary, inputs)
        if batch is not None:
            source = _at_batch(source, batch)
        return convert_source(source, optimizer=optimizer, form=form, progress=progress)


def _source(
    spec: str,
    base: str | None,
    target: str | None,
    vary: str | None,
    inputs: list[str] | None,
) -> Source:
    from mufx.inputs import parse_input
    from mufx.knobs import parse_knobs
    from mufx.source import load

    problems: list[Diagnostic] = []
    low = _parsed(problems, lambda: parse_knobs(base, "--base") if base is not None else None)
    high = _parsed(
        problems, lambda: parse_knobs(target, "--target") if target is not None else None
    )
    specs = [_parsed(problems, partial(parse_input, line)) for line in inputs or ()]
    if problems:
        raise MufxError(*problems)
    grow = [name.strip() for name in vary.split(",")] if vary else []
    return load(spec, low, high, [s for s in specs if s is not None] or None, grow)


def _parsed(problems: list[Diagnostic], parse: Callable[[], _T]) -> _T | None:
    """The result, or None after its problems were added to the others."""
    try:
        return parse()
    except MufxError as problem:
        problems.extend(problem.diagnostics)
        return None


def _at_batch(source: Source, batch: int) -> Source:
    """The same source, with the example inputs of one batch size."""
    made = source.inputs(batch)
    return replace(source, inputs=lambda _: made)


# -- what is printed ----------------------------------------------------------------------------


@contextmanager
def _refusals(as_json: bool) -> Generator[None]:
    """Prints what a `MufxError` says, and ends with the exit status of a refusal."""
    try:
        yield
    except MufxError as problem:
        shown = [_relative(diagnostic) for diagnostic in problem.diagnostics]
        console = _console(stderr=True)
        for diagnostic in shown:
            style = "red" if diagnostic.severity is Severity.ERROR else "yellow"
            head, _, rest = str(diagnostic).partition("\n")
            console.print(head, style=style, markup=False, highlight=False, soft_wrap=True)
            if rest:
                console.print(rest, markup=False, highlight=False, soft_wrap=True)
        if as_json:
            _print_json({"diagnostics": [_record(diagnostic) for diagnostic in shown]})
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


def _print_json(document: Mapping[str, object]) -> None:
    typer.echo(json.dumps(document, indent=2, sort_keys=True))


def _console(*, stderr: bool) -> Console:
    """A console of at most 100 columns; exactly 100 where the output is no terminal."""
    from rich.console import Console

    console = Console(stderr=stderr)
    console.width = min(console.width, WIDTH) if console.is_terminal else WIDTH
    return console


@contextmanager
def _progress() -> Generator[Progress]:
    """Shows the last message on stderr while it runs, where that is a terminal."""
    from rich.markup import escape

    console = _console(stderr=True)
    if not console.is_terminal:
        yield lambda message: None
        return
    with console.status("") as status:
        yield lambda message: status.update(escape(message))


def main() -> None:
    """The `mufx` command."""
    app(prog_name="mufx")
