"""`mufx audit`: judges a model and its optimizer, without training."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mufx.commands.classes import GrowOption, NumberOption, audited_instance
from mufx.commands.converting import loaded
from mufx.commands.options import (
    BaseOption,
    BatchOption,
    InputOption,
    JsonOption,
    ReportOption,
    SpecArgument,
    TargetOption,
    VaryOption,
    WithOption,
)
from mufx.commands.paging import write_page
from mufx.commands.printing import print_json, refusals, terminal, working
from mufx.diagnostics import Severity

if TYPE_CHECKING:
    from mufx.auditing.judgement import Audited
    from mufx.html.axes import Grown

FOUND = 1  # the exit status where something was found


def audit(
    spec: SpecArgument,
    base: BaseOption = None,
    target: TargetOption = None,
    vary: VaryOption = None,
    inputs: InputOption = None,
    batch: BatchOption = None,
    optimizer: Annotated[
        str,
        typer.Option(
            "--optimizer",
            metavar="NAME",
            help="adam, adamw or sgd for a model in standard parametrization; or a function of "
            "the model that returns its optimizer: name, file.py:name or package.module:name.",
        ),
    ] = "adamw",
    fail_on: Annotated[
        Literal["error", "warning", "note"],
        typer.Option("--fail-on", help="The mildest finding that makes the exit status 1."),
    ] = "warning",
    grow: GrowOption = None,
    number: NumberOption = None,
    page: ReportOption = None,
    others: WithOption = None,
    as_json: JsonOption = False,
) -> None:
    """Audits the model of a specification: exit status 0 clean, 1 findings, 2 usage."""
    with refusals(as_json):
        from mufx.html.joining import earlier

        pages = earlier(others or (), page)
        grown: Grown | None = None
        if grow:
            found, grown = audited_instance(spec, grow, number, target, inputs, batch, optimizer)
        else:
            found = _audited(spec, base, target, vary, inputs, batch, optimizer)
        if page is not None:
            from mufx.html.of_audit import of_audit

            write_page(page, of_audit(found, grown), pages)
    report = found.report
    if as_json:
        print_json(report.document())
    else:
        from mufx.auditing.show import show

        show(report, terminal(stderr=False))
    if report.failing(Severity(fail_on)):
        raise typer.Exit(FOUND)


def _audited(
    spec: str,
    base: str | None,
    target: str | None,
    vary: str | None,
    inputs: list[str] | None,
    batch: int | None,
    optimizer: str,
) -> Audited:
    """Loads and audits; what the user's code prints goes to stderr."""
    from mufx.auditing.entry import audited_source
    from mufx.auditing.naming import optimizer_of

    with redirect_stdout(sys.stderr), working() as progress:
        progress(f"loading {spec}")
        source = loaded(spec, base, target, vary, inputs, batch)
        made = optimizer_of(optimizer, spec)
        return audited_source(source, optimizer=made, progress=progress)
