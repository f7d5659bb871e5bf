"""The page of what mufx refuses: the codes, the reasons in docs/refusals/, and real messages.

A section `## MUF101` says why, and shows what causes it: files (fenced python with a title) and
commands (fenced console). The commands are run in an empty folder that holds the section's files
and those of the page's start. What mufx prints is written under them.
"""

from __future__ import annotations

import logging
import os
import re
import runpy
import sys
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File
from typer.testing import CliRunner

from mufx.cli import app
from mufx.diagnostics import CODES, MufxError

FOLDER = Path(__file__).parents[1] / "refusals"

HEADING = re.compile(r"^## (MUF\d{3})$", re.MULTILINE)
FILE = re.compile(r'^```python title="([^"]+)"\n(.*?)^```$', re.MULTILINE | re.DOTALL)
CONSOLE = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def on_files(files: Any, config: Any) -> Any:
    """Adds the page."""
    files.append(File.generated(config, "refusals.md", content=page()))
    return files


def page() -> str:
    """The page: its start, then the chapters in the order of the codes."""
    start = (FOLDER / "start.md").read_text(encoding="utf-8")
    shared = dict(FILE.findall(start))
    chapters = [path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("[0-9]*.md"))]
    left = [f"{_title(code)}\n" for code in CODES if code not in sections()]
    return "\n".join([start, *(chapter(text, shared) for text in chapters), *left])


def chapter(text: str, shared: Mapping[str, str]) -> str:
    """One file of sections: the codes get their titles, the commands what they print."""
    head, *sections = HEADING.split(text)
    files = {**shared, **dict(FILE.findall(head))}
    shown = [head]
    for code, body in zip(sections[::2], sections[1::2], strict=True):
        shown.append(f"{_title(code)}{run(code, body, files)}")
    return "".join(shown)


def _title(code: str) -> str:
    return f"### {code}: {CODES[code]} {{ #{code.lower()} }}"


def sections() -> dict[str, str]:
    """The sections as they are written, by code."""
    texts = (path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("[0-9]*.md")))
    parts = [part for text in texts for part in HEADING.split(text)[1:]]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def run(code: str, body: str, shared: Mapping[str, str]) -> str:
    """The section with what its commands print, which has to be the code."""
    with tempfile.TemporaryDirectory() as name, working_in(Path(name)) as folder:
        for file, content in (dict(shared) | dict(FILE.findall(body))).items():
            (folder / file).write_text(content, encoding="utf-8")

        def answered(block: re.Match[str]) -> str:
            commands = block[1].splitlines()
            answers = [f"{command}\n{printed(command, folder)}" for command in commands]
            if f" {code}: " not in answers[-1] and not tabulated(code, commands[-1], folder):
                raise ValueError(f"the example of {code} prints {answers[-1]}")
            return "```console\n" + "\n".join(answers) + "\n```"

        return CONSOLE.sub(answered, body)


def tabulated(code: str, command: str, folder: Path) -> bool:
    """Whether the command finds the code and prints it as a row of a table."""
    return command.startswith("$ mufx audit") and f'"{code}"' in printed(
        f"{command} --json", folder
    )


def printed(command: str, folder: Path) -> str:
    """What one command prints, with paths as from its folder."""
    program, *arguments = _words(command.removeprefix("$ "))
    output = _mufx(arguments) if program == "mufx" else _python(arguments)
    text = output.replace(f"{folder.resolve()}/", "")
    return "\n".join(line.rstrip() for line in text.splitlines() if line.strip())


def _words(command: str) -> list[str]:
    return [word.strip("'") for word in re.findall(r"'[^']*'|\S+", command)]


def _mufx(arguments: list[str]) -> str:
    logging.disable(logging.WARNING)  # handlers would hold on to this run's stderr
    result = CliRunner().invoke(app, arguments)
    logging.disable(logging.NOTSET)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def _python(arguments: list[str]) -> str:
    """A script in this process; what it refuses is printed as Python does."""
    output = StringIO()
    with redirect_stdout(output), redirect_stderr(output):
        try:
            runpy.run_path(arguments[0], run_name="__main__")
        except MufxError as problem:
            print(f"mufx.diagnostics.MufxError: {problem}")
    return output.getvalue()


@contextmanager
def working_in(folder: Path) -> Generator[Path]:
    """Works in a folder, which modules are imported from; forgets them afterwards."""
    before, path, known = Path.cwd(), list(sys.path), dict(sys.modules)
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    try:
        yield folder
    finally:
        os.chdir(before)
        sys.path[:] = path
        modules: dict[str, Any] = dict(sys.modules)  # None is what no import may find
        for name, module in modules.items():
            file = getattr(module, "__file__", None) or ""
            if module is None or file.startswith(str(folder)):
                del sys.modules[name]
        sys.modules.update(known)
