"""`mufx check`: trains at several widths, and looks whether what every node learns keeps its size.

Exit status 1 where a node of the converted model departs, or none could be judged.
"""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mufx.commands.converting import loaded
from mufx.commands.options import (
    BaseOption,
    FormOption,
    InputOption,
    JsonOption,
    OptimizerOption,
    ReportOption,
    SpecArgument,
    TargetOption,
    VaryOption,
    WithOption,
)
from mufx.commands.paging import write_page
from mufx.commands.printing import print_json, refusals, terminal

if TYPE_CHECKING:
    from mufx.check.experiment import Experiment
    from mufx.check.request import Variant
    from mufx.check.result import Checked
    from mufx.check.training import Run
    from mufx.html import Document
    from mufx.html.command import Typed

DEPARTS = 1


def check(
    spec: SpecArgument,
    base: BaseOption = None,
    target: TargetOption = None,
    vary: VaryOption = None,
    inputs: InputOption = None,
    widths: Annotated[
        str | None,
        typer.Option("--widths", metavar="W,..", help="64,128,256,512 or 64:512; at least 4."),
    ] = None,
    steps: Annotated[int, typer.Option("--steps", min=4, help="Training steps of a run.")] = 15,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Runs at each width.")] = 3,
    lr: Annotated[float, typer.Option("--lr", help="The rate at base width.")] = 1e-3,
    batch: Annotated[int, typer.Option("--batch", min=1, help="The batch size.")] = 8,
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="FILE:NAME", help="Batches; else data(batch) of the file."),
    ] = None,
    device: Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1.")] = "cpu",
    form: FormOption = "table3",
    optimizer: OptimizerOption = "adamw",
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="A folder for check.json, figures, and finished runs."),
    ] = None,
    page: ReportOption = None,
    others: WithOption = None,
    as_json: JsonOption = False,
) -> None:
    """Checks the conversion of a specification by training."""
    with refusals(as_json):
        from mufx import output
        from mufx.check import checking, experiment, plot, show
        from mufx.check.request import Request, parsed
        from mufx.check.storage import FILE, Runs
        from mufx.discovery import find
        from mufx.html.command import typed
        from mufx.html.joining import agree, earlier

        pages = earlier(others or (), page, "check")
        if out is not None:
            plot.require()
            output.write_files(out, {})
        request = Request(
            widths=parsed(widths),
            steps=steps,
            seeds=seeds,
            lr=lr,
            batch=batch,
            optimizer=optimizer,
            form=form,
            device=device,
            data=data,
        )
        with redirect_stdout(sys.stderr):
            source = loaded(spec, base, target, vary, inputs, None)
            agree(pages, source.digest)
            planned = experiment.prepared(request, source, find(spec))
            file = out / FILE if out is not None else None
            found = checking.checked(planned, partial(Runs, file), _progress)
        if out is not None:
            _write(found, out)
        if page is not None:
            named = typed(spec, {"--vary": vary, "--input": inputs})
            write_page(page, _document(found, planned, named), pages)
    if as_json:
        print_json(found.document())
    else:
        show.show(found, terminal(stderr=False))
    if not found.passes:
        raise typer.Exit(DEPARTS)


def _write(found: Checked, out: Path) -> None:
    from mufx import output
    from mufx.check import plot

    text = json.dumps(found.document(), indent=1, sort_keys=True) + "\n"
    output.write_files(out, {"check.json": text})
    plot.draw(found, out)


def _document(found: Checked, planned: Experiment, named: Typed) -> Document:
    from mufx.html.of_check import of_check

    knobs = planned.models.widths[max(found.widths)]
    return of_check(found, planned.models.conversion(knobs), named)


def _progress(variant: Variant, width: int, seed: int, run: Run) -> None:
    outcome = "done" if run.diverged is None else f"diverged in step {run.diverged}"
    typer.echo(f"{variant} {width} seed {seed}: {outcome}", err=True)
