"""`mufx classes`: which axes of a model always grow together."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Annotated

import typer

from mufx.commands.options import InputOption, JsonOption, SpecArgument
from mufx.commands.printing import print_json, refusals, terminal, working

if TYPE_CHECKING:
    from mufx.classes import ClassTable
    from mufx.classes.instance import Instance


def classes(
    spec: SpecArgument,
    knobs: Annotated[
        str | None,
        typer.Option("--target", metavar="K=V,..", help="Knobs, where the model is to be built."),
    ] = None,
    inputs: InputOption = None,
    batch: Annotated[
        int, typer.Option("--batch", min=1, help="The batch size of the example inputs.")
    ] = 2,
    as_json: JsonOption = False,
) -> None:
    """Prints the classes of axes of one instance of a model."""
    with refusals(as_json):
        table = _table(spec, knobs, inputs, batch)
    if as_json:
        print_json(table.document())
    else:
        from mufx.classes.show import show

        show(table, terminal(stderr=False))


def _table(spec: str, knobs: str | None, inputs: list[str] | None, batch: int) -> ClassTable:
    """What the user's code prints goes to stderr."""
    with redirect_stdout(sys.stderr), working() as progress:
        from mufx.classes.finding import find_identities
        from mufx.classes.listing import listed

        progress(f"loading {spec}")
        instance = loaded_instance(spec, knobs, inputs, batch)
        progress("following axes")
        identities = find_identities(instance.model, instance.inputs)
        return listed(identities, type(instance.model).__name__)


def loaded_instance(spec: str, knobs: str | None, inputs: list[str] | None, batch: int) -> Instance:
    """The instance that a specification and its options, as they were typed, describe."""
    from mufx.classes.instance import load
    from mufx.inputs import parse_input
    from mufx.knobs import parse_knobs

    given = parse_knobs(knobs, "--target") if knobs is not None else None
    return load(spec, [parse_input(line) for line in inputs or ()], batch, given)
