"""What mufx says to a user: a stable code, a place in their source, an explanation and a hint.

Diagnostics are values. They are collected while a step runs and raised once, together, as
`MufxError`. An exception of another kind that leaves mufx is a defect of ours.
"""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache
from pathlib import Path


class Severity(StrEnum):
    """How much a diagnostic matters: only an `ERROR` stops a conversion."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands in the user's source and in their module tree."""

    file: str
    line: int
    module: str = ""
    cls: str = ""

    def __str__(self) -> str:
        """`file:line`, as editors and terminals make it clickable."""
        return f"{self.file}:{self.line}"

    def portable(self) -> Place:
        """The same place on any machine: relative to a package's folder, or to the working one.

        Installed packages come first: a virtual environment often lies in the working folder.
        """
        path = Path(self.file)
        for folder in (*_installed(), Path.cwd(), *map(Path, sys.path)):
            if folder.is_absolute() and folder.name and path.is_relative_to(folder):
                return replace(self, file=path.relative_to(folder).as_posix())
        return replace(self, file=path.name)


@cache
def _installed() -> tuple[Path, ...]:
    """Where packages are installed; asking takes longer than a pass over a layer."""
    return tuple(Path(sysconfig.get_path(name)) for name in ("purelib", "platlib"))


CODES: dict[str, str] = {
    # 0xx source, knobs and usage
    "MUF001": "a specification that names no file and no module",
    "MUF002": "a file that raises when it is imported",
    "MUF003": "a file or name that holds no model",
    "MUF004": "several classes could be the model",
    "MUF005": "a constructor whose configuration cannot be told",
    "MUF006": "sizes that are not given",
    "MUF007": "an unknown knob",
    "MUF008": "a knob's value that cannot be read or has another type",
    "MUF009": "base and target name different knobs",
    "MUF010": "a knob without effect",
    "MUF011": "knobs that the model does not accept",
    "MUF012": "no example inputs",
    "MUF013": "example inputs that cannot be used",
    "MUF014": "nothing says which knobs would grow",
    "MUF015": "an output folder that cannot be used",
    "MUF016": "an unknown parameter",
    "MUF017": "an adapter that cannot be used",
    "MUF018": "a size that the first input decides",
    "MUF019": "a page that cannot be joined with another",
    # 1xx recording and alignment
    "MUF101": "the forward pass depends on the data",
    "MUF102": "a region that a recording would flatten",
    "MUF103": "a tensor of unknown origin",
    "MUF104": "the model could not be built without memory",
    "MUF105": "the forward pass failed on the example inputs",
    "MUF106": "base and target record different graphs",
    "MUF107": "a number that follows no power of the width",
    "MUF108": "a batch or sequence size that is fixed by the model",
    "MUF109": "the initialisation cannot be recorded",
    "MUF110": "no probe size along the way from base to target",
    "MUF111": "types that stay as they were recorded",
    "MUF112": "an autograd function that becomes its forward",
    "MUF113": "a branch on the device",
    "MUF114": "a tensor that is a plain attribute",
    "MUF115": "numbers that Python or numpy draws",
    # 2xx labels
    "MUF201": "an operation without a rule",
    "MUF202": "a parameter used in a way that has no rule",
    "MUF203": "uses of one parameter that exclude each other",
    "MUF204": "a parameter whose init has no width-consistent rule",
    "MUF205": "a parameter that no operation uses",
    "MUF206": "an axis of which only a part grows",
    "MUF207": "keys and values that keep their size while queries grow",
    # 3xx ratios and corrections
    "MUF301": "a size that grows with width and has no place to be corrected",
    "MUF302": "a finite output that grows with width",
    "MUF303": "the proof found a ratio that leaves 1",
    "MUF304": "a multiplication that stays in the forward pass",
    # 4xx emission
    "MUF401": "an operation that has no public name",
    "MUF402": "an argument that cannot be written as source",
    "MUF403": "a size that no tensor of the module has",
    "MUF410": "initial values that come from outside of torch",
    # 5xx manifest and optimizer groups
    "MUF501": "a manifest that cannot be read",
    "MUF502": "an unknown schema version",
    "MUF503": "a manifest that was edited by hand",
    "MUF504": "a parameter in no group or in two",
    "MUF505": "a manifest beside another emitted file",
    "MUF506": "a module that is not the manifest's",
    "MUF507": "a weight decay without a width-consistent rule",
    "MUF508": "a correction that no parameter can take over",
    "MUF509": "a model that is not as its constructor leaves it",
    # 60x an audit that cannot be made; 61x what an audit finds
    "MUF601": "an optimizer that cannot be made for the model",
    "MUF602": "an optimizer without all parameters of the model",
    "MUF603": "an optimizer without a table",
    "MUF604": "nothing grows that could be judged",
    "MUF610": "an init that does not follow the width",
    "MUF611": "a learning rate that does not follow the width",
    "MUF612": "a multiplier that is missing, or that does not follow the width",
    "MUF613": "a weight decay that does not follow the width",
    "MUF614": "an eps that does not follow the width",
    "MUF615": "an attention scale without the constant of base width",
    "MUF616": "μP that is not active",
    "MUF617": "learning rates that something has made equal",
    "MUF618": "a schedule that does not keep the ratio of learning rates",
    # 75x the sweep
    "MUF750": "optional packages that a sweep needs",
    "MUF751": "hyperparameters or values that cannot be swept",
    "MUF752": "widths that are too few, or at which a knob is not whole",
    "MUF753": "no batches to train on",
    "MUF754": "batches that end before the steps do",
    "MUF755": "a model without a loss, and a batch without a target",
    "MUF756": "a database that cannot hold a study",
    "MUF757": "a study of another model or of other settings",
    # 76x the dynamic check
    "MUF760": "widths that give no slope",
    "MUF761": "a setting of a check that cannot be read",
    "MUF762": "an optional package that the figures of a check need",
    # 7xx classes of axes of one instance
    "MUF701": "an unknown class of axes",
    "MUF702": "an axis that is not one class",
    "MUF703": "a growth that leaves no whole size",
    "MUF704": "an operation through which a growing axis is lost",
    "MUF705": "axes that are equal and would not grow alike",
    "MUF706": "a number that may follow the width",
    "MUF707": "an answer that does not fit a number",
    "MUF708": "a value that an instance on meta does not have",
    "MUF709": "an instance that does not say how it is built",
    "MUF710": "an init that one instance does not show",
    "MUF711": "an init that may follow the width",
    "MUF712": "an answer that does not fit an init",
    "MUF713": "values that tell no init",
}


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One finding: `code` is a key of `CODES` and never changes its meaning."""

    code: str
    message: str
    hint: str
    place: Place | None = None
    severity: Severity = Severity.ERROR

    def __post_init__(self) -> None:
        """A code that is not declared is a defect of ours."""
        assert self.code in CODES, self.code

    def __str__(self) -> str:
        """Two or three lines: place, severity and code, message; the module; the hint."""
        where = f"{self.place}: " if self.place is not None else ""
        lines = [f"{where}{self.severity} {self.code}: {self.message}"]
        if self.place is not None and self.place.module:
            lines.append(f"  in module: {self.place.module} ({self.place.cls})")
        if self.hint:
            lines.append(f"  hint: {self.hint}")
        return "\n".join(lines)


def error(code: str, message: str, *, hint: str, place: Place | None = None) -> Diagnostic:
    """A diagnostic that stops the conversion."""
    return Diagnostic(code, message, hint, place)


def warning(code: str, message: str, *, hint: str, place: Place | None = None) -> Diagnostic:
    """A diagnostic that a user should read, and that stops nothing."""
    return Diagnostic(code, message, hint, place, Severity.WARNING)


def note(code: str, message: str, *, hint: str = "", place: Place | None = None) -> Diagnostic:
    """A diagnostic that explains a decision."""
    return Diagnostic(code, message, hint, place, Severity.NOTE)


class MufxError(Exception):
    """One or more diagnostics, raised once; `str()` prints all of them."""

    def __init__(self, *diagnostics: Diagnostic) -> None:
        """Takes at least one diagnostic."""
        assert diagnostics, "an error needs a diagnostic"
        super().__init__(*diagnostics)
        self.diagnostics: tuple[Diagnostic, ...] = diagnostics

    def __str__(self) -> str:
        """The diagnostics, a blank line between them."""
        return "\n\n".join(str(d) for d in self.diagnostics)


def raise_errors(diagnostics: Iterable[Diagnostic]) -> None:
    """Raises `MufxError` with all errors among `diagnostics`, if there is one."""
    errors = [d for d in diagnostics if d.severity is Severity.ERROR]
    if errors:
        raise MufxError(*errors)
