"""`mufx classes`: which axes of a model always grow together, and what follows if they do."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from mufx.commands.options import InputOption, JsonOption, OptimizerOption, SpecArgument
from mufx.commands.printing import print_json, refusals, terminal, working

if TYPE_CHECKING:
    from mufx.api import Conversion
    from mufx.auditing.judgement import Audited
    from mufx.classes.instance import Instance
    from mufx.html.axes import Grown

_BATCH = 2

GrowOption = Annotated[
    list[str] | None,
    typer.Option(
        "--grow",
        metavar="CLASS=FACTOR",
        help="A class that is FACTOR times as large as at base width, repeatable: residual=4.",
    ),
]
NumberOption = Annotated[
    list[str] | None,
    typer.Option(
        "--number",
        metavar="PLACE=ANSWER",
        help="Whether the number at model.py:57, or a buffer, grows or is fixed; repeatable.",
    ),
]


def classes(
    spec: SpecArgument,
    grow: GrowOption = None,
    number: NumberOption = None,
    knobs: Annotated[
        str | None,
        typer.Option("--target", metavar="K=V,..", help="Knobs, where the model is to be built."),
    ] = None,
    inputs: InputOption = None,
    batch: Annotated[
        int, typer.Option("--batch", min=1, help="The batch size of the example inputs.")
    ] = _BATCH,
    optimizer: OptimizerOption = "adamw",
    as_json: JsonOption = False,
) -> None:
    """Prints the classes of one instance; with --grow, its optimizer groups."""
    with refusals(as_json):
        if grow:
            _plan(spec, grow, number or [], knobs, inputs, batch, optimizer, as_json)
        else:
            _table(spec, knobs, inputs, batch, as_json)


def _table(
    spec: str, knobs: str | None, inputs: list[str] | None, batch: int, as_json: bool
) -> None:
    from mufx.classes.finding import find_identities
    from mufx.classes.listing import listed
    from mufx.classes.show import show

    with redirect_stdout(sys.stderr), working() as progress:
        progress(f"loading {spec}")
        instance = loaded_instance(spec, knobs, inputs, batch)
        progress("following axes")
        identities = find_identities(instance.model, instance.inputs)
        table = listed(identities, type(instance.model).__name__)
    if as_json:
        print_json(table.document())
    else:
        show(table, terminal(stderr=False))


def _plan(
    spec: str,
    grow: list[str],
    number: list[str],
    knobs: str | None,
    inputs: list[str] | None,
    batch: int,
    optimizer: str,
    as_json: bool,
) -> None:
    from mufx.classes.finding import find_identities
    from mufx.classes.options import parse_grow, parse_numbers
    from mufx.classes.planning import planned, staying
    from mufx.classes.program import program_of
    from mufx.classes.show import show_plan
    from mufx.program import Optimizer

    factors, answers = parse_grow(grow), parse_numbers(number)
    with redirect_stdout(sys.stderr), working() as progress:
        progress(f"loading {spec}")
        instance = loaded_instance(spec, knobs, inputs, batch)
        progress("labelling")
        identities = find_identities(instance.model, instance.inputs)
        program = program_of(instance.model, instance.inputs, identities, factors, answers)
        plan = planned(replace(program, optimizer=Optimizer(optimizer)))
    if as_json:
        print_json(plan.document())
    else:
        show_plan(plan, staying(identities, factors), terminal(stderr=False))


def audited_instance(
    spec: str,
    grow: list[str],
    number: list[str] | None,
    knobs: str | None,
    inputs: list[str] | None,
    batch: int | None,
    optimizer: str,
) -> tuple[Audited, Grown]:
    """Audits one instance; what the user's code prints goes to stderr."""
    from mufx.auditing.naming import optimizer_of
    from mufx.classes.finding import find_identities
    from mufx.classes.judging import audited
    from mufx.classes.options import parse_grow, parse_numbers
    from mufx.classes.program import program_of
    from mufx.html.axes import Grown

    factors, answers = parse_grow(grow), parse_numbers(number or [])
    with redirect_stdout(sys.stderr), working() as progress:
        progress(f"loading {spec}")
        instance = loaded_instance(spec, knobs, inputs, batch or _BATCH)
        progress("labelling")
        identities = find_identities(instance.model, instance.inputs)
        program = program_of(instance.model, instance.inputs, identities, factors, answers)
        found = audited(program, instance.model, optimizer_of(optimizer, spec))
    return found, Grown(instance.model, identities, factors)


def converted_instance(
    spec: str,
    grow: list[str],
    number: list[str],
    init: list[str],
    knobs: str | None,
    inputs: list[str] | None,
    batch: int | None,
    form: str,
    optimizer: str,
) -> tuple[Conversion, Grown]:
    """Converts one instance; what the user's code prints goes to stderr."""
    from mufx.classes.converting import converted
    from mufx.classes.finding import find_identities
    from mufx.classes.inits import parse_inits
    from mufx.classes.options import parse_grow, parse_numbers
    from mufx.classes.program import program_of
    from mufx.html.axes import Grown
    from mufx.program import Form, Optimizer

    factors, numbers, inits = parse_grow(grow), parse_numbers(number), parse_inits(init)
    with redirect_stdout(sys.stderr), working() as progress:
        progress(f"loading {spec}")
        instance = loaded_instance(spec, knobs, inputs, batch or _BATCH)
        progress("labelling and rewriting")
        identities = find_identities(instance.model, instance.inputs)
        program = program_of(instance.model, instance.inputs, identities, factors, numbers)
        program = replace(program, optimizer=Optimizer(optimizer), form=Form(form))
        found = converted(program, instance.model, instance.inputs, inits)
    return found, Grown(instance.model, identities, factors)


def loaded_instance(spec: str, knobs: str | None, inputs: list[str] | None, batch: int) -> Instance:
    """The instance that a specification and its options, as they were typed, describe."""
    from mufx.classes.instance import load
    from mufx.inputs import parse_input
    from mufx.knobs import parse_knobs

    given = parse_knobs(knobs, "--target") if knobs is not None else None
    return load(spec, [parse_input(line) for line in inputs or ()], batch, given)
