"""`mufx sweep`: learning rate against loss over widths, SP beside μP."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

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
from mufx.sweep import extra

if TYPE_CHECKING:
    from mufx.sweep.study import Result


def sweep(
    spec: SpecArgument,
    base: BaseOption = None,
    target: TargetOption = None,
    vary: VaryOption = None,
    inputs: InputOption = None,
    over: Annotated[
        list[str] | None,
        typer.Option(
            "--over",
            metavar="NAME=VALUES",
            help="Repeatable; a setting of the optimizer or a knob: lr=2^-12:2^-4, dropout=0,0.1.",
        ),
    ] = None,
    widths: Annotated[
        str | None,
        typer.Option("--widths", metavar="W,..", help="64,128,256 or 64:1024; base to target."),
    ] = None,
    fixed: Annotated[
        str | None, typer.Option("--set", metavar="K=V,..", help="What is not swept: beta2=0.95.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="FILE:NAME", help="Batches; else data(batch) of the file."),
    ] = None,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Training steps of a run.")] = 100,
    batch: Annotated[int, typer.Option("--batch", min=1, help="The batch size.")] = 16,
    warmup: Annotated[
        float,
        typer.Option("--warmup", min=0, max=1, help="Fraction of the steps in which lr rises."),
    ] = 0.0,
    decay: Annotated[
        Literal["constant", "linear", "cosine"],
        typer.Option("--decay", help="How lr falls after it; linear and cosine end at zero."),
    ] = "constant",
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Runs at each value.")] = 3,
    confirm: Annotated[
        int,
        typer.Option(
            "--confirm", min=0, help="Seeds at the recommended values, in μP at every width."
        ),
    ] = 0,
    sampler: Annotated[
        Literal["grid", "random", "tpe"],
        typer.Option("--sampler", help="grid, or draws between the first and the last value."),
    ] = "grid",
    draws: Annotated[
        int, typer.Option("--draws", min=1, help="With a sampler: runs of a width and seed.")
    ] = 12,
    study: Annotated[
        str | None,
        typer.Option("--study", metavar="FILE|URL", help="Where trials are kept; any Optuna URL."),
    ] = None,
    heartbeat: Annotated[
        int, typer.Option("--heartbeat", min=1, help="Seconds; a worker missing 3 counts as dead.")
    ] = 20,
    device: Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1.")] = "cpu",
    form: FormOption = "table3",
    optimizer: OptimizerOption = "adamw",
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="A folder for sweep.json, .png and .svg.")
    ] = None,
    page: ReportOption = None,
    others: WithOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sweeps hyperparameters of the model of a specification."""
    with refusals(as_json):
        extra.require()
        from mufx.html.joining import agree, earlier
        from mufx.sweep import sweeping, text
        from mufx.sweep.preparing import Request

        pages = earlier(others or (), page, "sweep")
        if out is not None:
            sweeping.check_folder(out)
        with redirect_stdout(sys.stderr):
            source = loaded(spec, base, target, vary, inputs, None)
        agree(pages, source.digest)
        request = Request(
            spec=spec,
            over=tuple(over or ("lr=2^-12:2^-4",)),
            widths=widths,
            fixed=fixed,
            data=data,
            steps=steps,
            batch=batch,
            warmup=warmup,
            decay=decay,
            seeds=seeds,
            confirm=confirm,
            draws=draws if sampler != "grid" else None,
            sampler=sampler,
            study=study,
            heartbeat=heartbeat,
            device=device,
            form=form,
            optimizer=optimizer,
        )
        found = sweeping.swept(request, source, _progress)
        if out is not None:
            found.write(out)
        if page is not None:
            from mufx.html.command import typed
            from mufx.html.of_sweep import of_sweep

            named = typed(spec, {"--vary": vary, "--input": inputs})
            write_page(page, of_sweep(found, named), pages)
    if as_json:
        print_json(found.document())
    else:
        text.show(found, terminal(stderr=False))


def _progress(result: Result, done: int, total: int) -> None:
    from mufx.sweep.values import written

    point = result.point
    outcome = f"diverged in step {result.diverged}" if result.diverged else f"{result.loss:.4f}"
    line = f"{point.parametrization} {point.width} seed {point.seed}, {written(result.values)}"
    typer.echo(f"{done}/{total} {line}: {outcome}", err=True)
