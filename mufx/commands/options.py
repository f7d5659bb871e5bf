"""The arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

EXECUTES = "Imports the user's file, so it executes it."
_SPEC_HELP = (
    "model.py, model.py:Class, package.module:Class, or hf:llama for a model of transformers. "
    "It is imported, so it is executed."
)

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
ReportOption = Annotated[
    Path | None, typer.Option("--report", metavar="FILE", help="Write a page: report.html.")
]
WithOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--with",
        metavar="FILE",
        help="With --report: an earlier page of mufx check or mufx sweep, whose plots this one "
        "shows as well; repeatable.",
    ),
]
InitOption = Annotated[
    list[str] | None,
    typer.Option(
        "--init",
        metavar="PARAMETER=LAW",
        help="With --grow: how an init follows the width: fixed, fan_in, or target over base; "
        "'*=fan_in', repeatable.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
