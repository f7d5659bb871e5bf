"""Writes a conversion's files: all of them or none, and never over files that are not mufx's."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from mufx.diagnostics import MufxError, error

CONVERSION = ("model_mup.py", "optim_mup.py", "manifest.json", "tables_mup.pt")
FILES = (*CONVERSION, "report.html")
_IGNORED = {"__pycache__"}  # importing the emitted file leaves it


def check_folder(folder: Path, *, force: bool) -> None:
    """Whether a conversion may be written to `folder`.

    Raises:
        MufxError: `MUF015` where it is no folder, holds files that are not of a conversion, or
            holds a conversion and `force` is not set.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise _unusable(f"{folder} is not a folder", "name a new folder")
    held = {path.name for path in folder.iterdir()} - _IGNORED
    others = sorted(held - set(FILES))
    if others:
        shown = ", ".join(others[:5]) + (", ..." if len(others) > 5 else "")
        raise _unusable(f"{folder} holds other files: {shown}", "name a new or an empty folder")
    if held and not force:
        raise _unusable(f"{folder} holds a conversion already", "add --force to replace it")


def write_files(
    folder: Path, files: Mapping[str, str | bytes], replacing: Iterable[str] = ()
) -> None:
    """Writes texts and bytes under their names; a failure leaves the folder as it was.

    Every one is first written in full beside its place and then renamed. What is there under a
    name of `replacing`, and is not written, goes.

    Raises:
        MufxError: `MUF015` where the file system refuses.
    """
    created = not folder.exists()
    drafts: dict[str, Path] = {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            drafts[name] = _draft(folder, name, content)
        for name, draft in drafts.items():
            draft.replace(folder / name)
        for name in set(replacing) - files.keys():
            (folder / name).unlink(missing_ok=True)
    except OSError as problem:
        for draft in drafts.values():
            draft.unlink(missing_ok=True)
        if created and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
        raise _unusable(
            f"{folder} cannot be written: {problem.strerror or problem}",
            "name a folder that can be written",
        ) from problem


def _draft(folder: Path, name: str, content: str | bytes) -> Path:
    """A finished file under a temporary name."""
    draft = folder / f".{name}.{os.getpid()}"
    try:
        with draft.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    return draft


def _unusable(what: str, hint: str) -> MufxError:
    return MufxError(error("MUF015", what, hint=hint))
