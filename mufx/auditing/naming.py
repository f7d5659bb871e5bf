"""The optimizer that a command line names."""

from __future__ import annotations

import inspect
from pathlib import Path
from types import ModuleType

from mufx.auditing.groups import MakeOptimizer
from mufx.diagnostics import Diagnostic, MufxError, Place, error
from mufx.discovery import find
from mufx.knobs import did_you_mean
from mufx.loading import import_file, import_module
from mufx.program import Optimizer


def optimizer_of(name: str, spec: str) -> str | MakeOptimizer:
    """An update rule by name, or the function that makes the optimizer.

    Args:
        name: "adam", "adamw" or "sgd"; a function of the model's file; `file.py:function` or
            `package.module:function`.
        spec: The model's specification.

    Raises:
        MufxError: `MUF001`, `MUF002` for a file or module that cannot be imported, `MUF601` for
            one without such a function.
    """
    if name in tuple(Optimizer):
        return name
    path, _, attribute = name.rpartition(":")
    module = _module(path) if path else find(spec).module
    value = vars(module).get(attribute)
    if not callable(value):
        raise MufxError(_unknown(attribute, module))
    made: MakeOptimizer = value
    return made


def _module(path: str) -> ModuleType:
    return import_file(Path(path)) if path.endswith(".py") else import_module(path)


def _unknown(attribute: str, module: ModuleType) -> Diagnostic:
    named = vars(module).items()
    own = module.__name__
    functions = [n for n, v in named if inspect.isfunction(v) and v.__module__ == own]
    found = ", ".join(functions) or "none"
    return error(
        "MUF601",
        f"there is no function {attribute} to make an optimizer with",
        hint=f"{did_you_mean(attribute, functions)}name adam, adamw or sgd, or a function of the "
        f"model; the file's functions are: {found}",
        place=Place(str(module.__file__), 1),
    )
