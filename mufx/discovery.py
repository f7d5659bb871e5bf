"""Finds the model that a specification names.

The root class of a file is the `nn.Module` that no other one of the file uses.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from torch import nn

from mufx.adapters import adapted, example_inputs
from mufx.diagnostics import Diagnostic, MufxError, Place, error
from mufx.factory import Factory, factory_of
from mufx.inputs import MakeInputs
from mufx.knobs import did_you_mean
from mufx.loading import import_file, import_module


@dataclass(frozen=True, slots=True)
class Found:
    """What a specification names: how to build it, and the module and file it is in.

    `inputs` are the example inputs that its adapter makes of knobs.
    """

    factory: Factory
    module: ModuleType
    file: Path
    inputs: MakeInputs | None = None


def find(spec: str) -> Found:
    """The model of `model.py`, `model.py:Name`, `package.module:Name` or `scheme:rest`.

    A file without a name is its `build` function, else its root class.

    Raises:
        MufxError: `MUF001` to `MUF005`, and what the adapter of a scheme raises.
    """
    foreign = adapted(spec)
    if foreign is not None:
        file = Path(str(foreign.module.__file__))
        return Found(foreign.factory, foreign.module, file, example_inputs(spec, foreign))
    path, attribute = _split(spec)
    if path.endswith(".py"):
        module = import_file(Path(path))
        shown = str(module.__file__)
        if attribute:
            factory = factory_of(_attribute(module, attribute, shown), module)
        elif inspect.isfunction(vars(module).get("build")):
            factory = factory_of(vars(module)["build"], module)
        else:
            factory = factory_of(root_class(module, shown, spec), module)
        return Found(factory, module, Path(shown))
    if not attribute:
        raise MufxError(
            error(
                "MUF001",
                f"{spec!r} names no model",
                hint="write model.py, model.py:Class, package.module:Class or hf:model_type",
            )
        )
    module = import_module(path)
    value = _attribute(module, attribute, module.__name__)
    home = inspect.getmodule(value) or module
    home_file = inspect.getsourcefile(home) or str(module.__file__)
    return Found(factory_of(value, home), home, Path(home_file))


def root_class(module: ModuleType, file: str, spec: str) -> type[nn.Module]:
    """The one `nn.Module` class of `module` that no other module class of it uses.

    Raises:
        MufxError: `MUF003` where there is no class, `MUF004` where there are several.
    """
    tree = ast.parse(Path(file).read_bytes())
    lines = {n.name: n.lineno for n in tree.body if isinstance(n, ast.ClassDef)}
    classes = {name: cls for name, cls in module_classes(module).items() if name in lines}
    used = _used_by_others(tree, classes)
    roots = [name for name in classes if name not in used]
    if len(roots) == 1:
        return classes[roots[0]]
    if not classes:
        raise MufxError(
            error(
                "MUF003",
                "no nn.Module class with a forward is defined here",
                hint="name the file that defines the model, or define build(...) in this one",
                place=Place(file, 1),
            )
        )
    candidates = sorted(roots or classes, key=lambda name: lines[name])
    listed = ", ".join(f"{name} (line {lines[name]})" for name in candidates)
    commands = "".join(f"\n          mufx convert {spec}:{name} ..." for name in candidates)
    raise MufxError(
        error(
            "MUF004",
            f"several classes could be the model: {listed}",
            hint=f"name one:{commands}",
            place=Place(file, lines[candidates[0]]),
        )
    )


def module_classes(module: ModuleType) -> dict[str, type[nn.Module]]:
    """The `nn.Module` classes with a forward that `module` itself defines."""
    return {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, nn.Module)
        and value.__module__ == module.__name__
        and value.__name__ == name
        and value.forward is not nn.Module.forward
    }


# -- the specification --------------------------------------------------------------------------


def _split(spec: str) -> tuple[str, str]:
    path, colon, attribute = spec.rpartition(":")
    if colon and attribute.isidentifier():
        return path, attribute
    return spec, ""


def _attribute(module: ModuleType, name: str, shown: str) -> Callable[..., Any]:
    """The class or factory function `name` of a module."""
    place = Place(str(module.__file__), 1) if getattr(module, "__file__", None) else None
    try:
        value: Any = getattr(module, name)
    except AttributeError:
        names = [n for n in dir(module) if not n.startswith("_")]
        raise MufxError(_no_attribute(shown, name, names, place)) from None
    if isinstance(value, type) and issubclass(cast("type[object]", value), nn.Module):
        return value
    if inspect.isroutine(value):
        return value
    what = f"the class {name}" if isinstance(value, type) else f"a {type(value).__name__}"
    raise MufxError(
        error(
            "MUF003",
            f"{shown}:{name} is {what}, neither a model class nor a function that makes a model",
            hint="name the nn.Module class that takes it, or a function that builds the model",
            place=place,
        )
    )


def _no_attribute(shown: str, name: str, names: list[str], place: Place | None) -> Diagnostic:
    return error(
        "MUF003",
        f"{shown} has no {name}",
        hint=f"{did_you_mean(name, names)}name a class or function of the file",
        place=place,
    )


# -- the root class -----------------------------------------------------------------------------


class _Uses(ast.NodeVisitor):
    """The names that a definition uses as values: not in annotations, bases or type tests."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def visit_Name(self, node: ast.Name) -> None:
        self.names.add(node.id)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._visit_all(node.body)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        defaults = [d for d in node.args.kw_defaults if d is not None]
        self._visit_all([*node.args.defaults, *defaults, *node.body])

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self.visit_FunctionDef(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self._visit_all([node.value] if node.value is not None else [])

    def visit_Call(self, node: ast.Call) -> None:
        if not (isinstance(node.func, ast.Name) and node.func.id in ("isinstance", "issubclass")):
            self.generic_visit(node)

    def _visit_all(self, nodes: Iterable[ast.AST]) -> None:
        for node in nodes:
            self.visit(node)


def _used_by_others(tree: ast.Module, classes: Mapping[str, type[nn.Module]]) -> set[str]:
    uses = _uses_of_definitions(tree)
    return {used for name in classes for used in _reachable(name, uses) if used != name}


def _uses_of_definitions(tree: ast.Module) -> dict[str, set[str]]:
    """For every class, function and variable of the file, the names it uses."""
    uses: dict[str, set[str]] = {}
    for statement in tree.body:
        visitor = _Uses()
        visitor.visit(statement)
        for name in _defined_by(statement):
            uses[name] = uses.get(name, set()) | visitor.names
    return uses


def _defined_by(statement: ast.stmt) -> list[str]:
    if isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return [statement.name]
    if isinstance(statement, ast.Assign):
        return [t.id for t in statement.targets if isinstance(t, ast.Name)]
    if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        return [statement.target.id]
    return []


def _reachable(start: str, uses: Mapping[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        for name in uses.get(waiting.pop(), set()) - seen:
            seen.add(name)
            waiting.append(name)
    return seen
