"""The page of the command line, from the commands themselves."""

from __future__ import annotations

from typing import Any

import typer
from mkdocs.structure.files import File
from typer.cli import get_docs_for_click

from mufx.cli import app

HEAD = """# The command line

What `SPEC` and its file may hold stands in the [quickstart](quickstart.md#your-own-model). A
refusal ends with exit status 2; see [what mufx refuses](refusals.md).

"""


def on_files(files: Any, config: Any) -> Any:
    """Adds the page."""
    files.append(File.generated(config, "cli.md", content=page()))
    return files


def page() -> str:
    """The page: one section for each command."""
    command = typer.main.get_command(app)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="mufx")
    _, _, commands = text.partition("\n## ")
    return f"{HEAD}## {commands}"
