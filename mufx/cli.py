"""The command line: one line for each command of `mufx.commands`.

torch is only imported when a command runs, so that `mufx --help` answers at once.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

from mufx.commands.audit import audit
from mufx.commands.check import check
from mufx.commands.classes import classes
from mufx.commands.convert import convert
from mufx.commands.explain import explain
from mufx.commands.options import EXECUTES
from mufx.commands.sweep import sweep

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Converts a PyTorch model to the maximal update parametrization (μP). "
    "Every command imports the user's file, so it executes it.",
)


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


app.command(
    help=f"Convert a model, and write model_mup.py, optim_mup.py and manifest.json. {EXECUTES}"
)(convert)
app.command(
    help="Judge a model, or an existing μP implementation with its optimizer, without training. "
    f"{EXECUTES}"
)(audit)
app.command(help=f"Train at several widths, and fit how what each node learns grows. {EXECUTES}")(
    check
)
app.command(help=f"Say why a parameter is scaled as it is. {EXECUTES}")(explain)
app.command(help=f"Sweep the learning rate over widths, SP beside μP. {EXECUTES}")(sweep)
app.command(help=f"List the axes of a model that always grow together. {EXECUTES}")(classes)


def main() -> None:
    """The `mufx` command."""
    app(prog_name="mufx")
