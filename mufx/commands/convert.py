"""`mufx convert`: writes the converted module and its manifest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mufx.commands.classes import GrowOption, NumberOption, converted_instance
from mufx.commands.converting import converted
from mufx.commands.options import (
    BaseOption,
    BatchOption,
    FormOption,
    InitOption,
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
    from mufx.html.axes import Grown
    from mufx.html.command import Given


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
    grow: GrowOption = None,
    number: NumberOption = None,
    init: InitOption = None,
    page: ReportOption = None,
    others: WithOption = None,
    as_json: JsonOption = False,
) -> None:
    """Converts the model of a specification."""
    from mufx import output, report

    with refusals(as_json):
        from mufx.html.joining import agree, earlier

        pages = earlier(others or (), page)
        if out is not None:
            output.check_folder(out, force=force)
        grown: Grown | None = None
        if grow:
            answers = (grow, number or [], init or [])
            conversion, grown = converted_instance(
                spec, *answers, target, inputs, batch, form, optimizer
            )
        else:
            conversion = converted(spec, base, target, vary, inputs, batch, form, optimizer)
        agree(pages, conversion.manifest.source.digest)
        files = conversion.files()
        writing = out if not dry_run else None
        names = [str(writing / name) for name in files] if writing is not None else []
        records = report.of_conversion(conversion.manifest, names)
        if writing is not None:
            output.write_files(writing, files, replacing=output.CONVERSION)
        if page is not None and not dry_run:
            from mufx.html.command import typed
            from mufx.html.of_conversion import of_conversion

            given: dict[str, Given] = {"--input": inputs, "--batch": batch}
            if grow:
                given |= {"--grow": grow, "--number": number, "--init": init, "--target": target}
            else:
                given |= {"--vary": vary}
            named = typed(spec, given, instance=bool(grow))
            write_page(page, of_conversion(conversion, grown, named), pages)
    if as_json:
        print_json(records.document())
    else:
        report.show(records, terminal(stderr=False))
