"""`mufx explain`: why a parameter is scaled as it is."""

from __future__ import annotations

from typing import Annotated

import typer

from mufx.commands.converting import converted
from mufx.commands.options import (
    BaseOption,
    BatchOption,
    FormOption,
    InputOption,
    JsonOption,
    OptimizerOption,
    SpecArgument,
    TargetOption,
    VaryOption,
)
from mufx.commands.printing import print_json, refusals, terminal


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

    with refusals(as_json):
        conversion = converted(spec, base, target, vary, inputs, batch, form, optimizer)
        record = report.of_parameter(conversion.manifest, parameter)
    if as_json:
        print_json(record.document())
    else:
        report.show_explanation(record, terminal(stderr=False))
