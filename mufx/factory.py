"""How to build a model from keyword knobs, with a class or a function of the user's.

The knobs are the parameters of the callable, or the fields of the one configuration it takes.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from mufx.diagnostics import MufxError, Place, error
from mufx.loading import folder_of, imports_from

REQUIRED = inspect.Parameter.empty
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_NO_CONFIG = {"builtins", "torch", "typing", "types", "numpy", "pathlib", "collections"}


@dataclass(frozen=True, slots=True)
class Knob:
    """A parameter of the constructor, or a field of its configuration."""

    name: str
    annotation: object = REQUIRED  # REQUIRED where there is none
    default: object = REQUIRED  # REQUIRED where there is none


@dataclass(frozen=True, slots=True)
class Factory:
    """Builds a model from keyword knobs.

    `takes_any` says that it accepts knobs beyond the listed ones (`**kwargs`); `folder` is where
    the user's code imports its neighbours from.
    """

    build: Callable[..., nn.Module]
    knobs: tuple[Knob, ...]
    takes_any: bool
    name: str
    place: Place
    folder: Path


@dataclass(frozen=True, slots=True)
class _Config:
    """A configuration class, and the constructor's parameter that takes it."""

    parameter: str
    cls: type
    instance: object | None = None  # the parameter's default; of a dictionary, its values


def factory_of(target: Callable[..., Any], module: ModuleType | None = None) -> Factory:
    """How to build a model with `target`, a class or a function.

    `module` is where unannotated configurations are looked up.

    Raises:
        MufxError: `MUF005` where an unannotated configuration cannot be told.
    """
    place = place_of(target)
    module = module if module is not None else inspect.getmodule(target)
    folder = folder_of(module) if module is not None else Path.cwd()
    parameters, takes_any = _parameters(target)
    config = _config_of(target, parameters, module, place)
    knobs, takes_any = (parameters, takes_any) if config is None else _fields(config)

    def build(**knobs: object) -> nn.Module:
        with imports_from(folder):
            given = knobs if config is None else {config.parameter: _configured(config, knobs)}
            model: nn.Module = target(**given)
        return model

    return Factory(
        build=build,
        knobs=tuple(knobs),
        takes_any=takes_any,
        name=getattr(target, "__name__", type(target).__name__),
        place=place,
        folder=folder,
    )


def place_of(target: object) -> Place:
    """Where a class or function is defined; the line of its constructor is not needed."""
    name = getattr(target, "__name__", type(target).__name__)
    try:
        found = inspect.unwrap(target) if inspect.isfunction(target) else target
        file = inspect.getsourcefile(typing.cast("type", found))
        line = inspect.getsourcelines(typing.cast("type", found))[1]
    except (TypeError, OSError):
        return Place("<unknown>", 0, cls=name)
    return Place(file or "<unknown>", line, cls=name)


# -- configurations -------------------------------------------------------------------


def _parameters(target: Callable[..., Any]) -> tuple[list[Knob], bool]:
    signature = inspect.signature(target)
    hints = _hints(_code_of(target))
    knobs = [
        Knob(name, hints.get(name, p.annotation), p.default)
        for name, p in signature.parameters.items()
        if p.kind in _NAMED
    ]
    kinds = {p.kind for p in signature.parameters.values()}
    return knobs, inspect.Parameter.VAR_KEYWORD in kinds


def _code_of(target: object) -> Any:
    """The function that holds the parameters' annotations."""
    return getattr(target, "__init__", target) if isinstance(target, type) else target


def _hints(target: object) -> dict[str, Any]:
    try:
        return typing.get_type_hints(target)
    except Exception:  # an annotation that only a type checker can read
        return {}


def _config_of(
    target: Callable[..., Any], parameters: list[Knob], module: ModuleType | None, place: Place
) -> _Config | None:
    declared = getattr(target, "config_class", None)
    if isinstance(declared, type) and parameters:
        return _Config(parameters[0].name, declared)
    required = [p for p in parameters if p.default is REQUIRED]
    typed = [(p, _config_class(p)) for p in parameters]
    configs = [_Config(p.name, cls, _instance(p, cls)) for p, cls in typed if cls is not None]
    if len(configs) == 1 and all(p.name == configs[0].parameter for p in required):
        return configs[0]
    if len(required) != 1 or module is None:
        return None
    read = _keys_read(target, required[0].name)
    if read and _may_be_dict(required[0].annotation):
        return _dict_config(required[0].name, read, module, place)
    if required[0].annotation is not REQUIRED:
        return None
    return _unannotated_config(target, required[0].name, module, place)


def _may_be_dict(annotation: object) -> bool:
    return annotation is REQUIRED or (typing.get_origin(annotation) or annotation) in _DICTS


_DICTS = (dict, Mapping)


def _dict_config(parameter: str, read: set[str], module: ModuleType, place: Place) -> _Config:
    """The one dictionary of the file with all the keys that the constructor reads."""
    found = {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, dict) and read <= value.keys() and not name.startswith("__")
    }
    if len(found) > 1:
        raise MufxError(
            error(
                "MUF005",
                f"{', '.join(found)} of the file have the keys that {place.cls} reads of "
                f"{parameter} ({', '.join(sorted(read))})",
                hint=f"define build(...) in the file: it makes {parameter} and returns the model",
                place=place,
            )
        )
    defaults: dict[str, object] = dict.fromkeys(sorted(read), REQUIRED)
    return _Config(parameter, dict, next(iter(found.values()), defaults))


def _config_class(parameter: Knob) -> type | None:
    """The configuration class that a parameter is annotated with, or defaulted to."""
    if parameter.annotation is not REQUIRED:
        options = _options(parameter.annotation)
        classes = [o for o in options if o is not types.NoneType]
        if len(classes) == 1 and isinstance(classes[0], type) and _is_config(classes[0]):
            return classes[0]
        return None
    cls = type(parameter.default)
    return cls if parameter.default is not REQUIRED and dataclasses.is_dataclass(cls) else None


def _options(annotation: object) -> tuple[object, ...]:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)


def _instance(parameter: Knob, cls: type) -> object | None:
    return parameter.default if isinstance(parameter.default, cls) else None


def _is_config(cls: type[Any]) -> bool:
    package = str(cls.__module__).partition(".")[0]
    if package in _NO_CONFIG or issubclass(cls, nn.Module | Enum):
        return False
    try:
        return bool(_fields(_Config("", cls))[0])
    except (TypeError, ValueError):  # a class without a signature
        return False


def _unannotated_config(
    target: Callable[..., Any], parameter: str, module: ModuleType, place: Place
) -> _Config | None:
    """The one class of the file with all the fields that the constructor reads from `parameter`."""
    read = _attributes_read(target, parameter)
    if not read:
        return None
    classes = [c for c in vars(module).values() if isinstance(c, type) and _is_config(c)]
    fitting = [c for c in classes if read <= {k.name for k in _fields(_Config("", c))[0]}]
    if len(fitting) == 1:
        return _Config(parameter, fitting[0])
    found = ", ".join(c.__name__ for c in fitting) or "no class"
    raise MufxError(
        error(
            "MUF005",
            f"{parameter} of {place.cls} has no annotation, and {found} of the file has the "
            f"fields that the constructor reads ({', '.join(sorted(read))})",
            hint=f"annotate {parameter} with its class, or define build(...) in the file",
            place=place,
        )
    )


def _attributes_read(target: Callable[..., Any], parameter: str) -> set[str]:
    return {
        node.attr
        for node in _nodes_of(target)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Load)
        and isinstance(node.value, ast.Name)
        and node.value.id == parameter
    }


def _keys_read(target: Callable[..., Any], parameter: str) -> set[str]:
    """The keys of `config["width"]`."""
    return {
        node.slice.value
        for node in _nodes_of(target)
        if isinstance(node, ast.Subscript)
        and isinstance(node.ctx, ast.Load)
        and isinstance(node.value, ast.Name)
        and node.value.id == parameter
        and isinstance(node.slice, ast.Constant)
        and isinstance(node.slice.value, str)
    }


def _nodes_of(target: Callable[..., Any]) -> Iterable[ast.AST]:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(_code_of(target))))
    except (OSError, TypeError, SyntaxError):
        return ()
    return ast.walk(tree)


def _fields(config: _Config) -> tuple[list[Knob], bool]:
    """The fields of a configuration class, and whether it takes any other ones."""
    cls, instance = config.cls, config.instance
    if isinstance(instance, dict):  # what is made of it may read more keys than are known
        items = typing.cast("dict[str, object]", instance).items()
        return [Knob(name, default=value) for name, value in items], True
    knobs, takes_any = _parameters(cls)
    if not knobs and not takes_any:
        hints = _hints(cls)
        knobs = [Knob(n, hints.get(n, REQUIRED), v) for n, v in _class_attributes(cls).items()]
    if instance is not None:
        knobs = [dataclasses.replace(k, default=getattr(instance, k.name)) for k in knobs]
    return knobs, takes_any


def _class_attributes(cls: type) -> dict[str, object]:
    return {n: v for n, v in vars(cls).items() if not n.startswith("_") and not callable(v)}


def _configured(config: _Config, knobs: Mapping[str, object]) -> object:
    if isinstance(config.instance, dict):
        return {**config.instance, **knobs}
    if config.instance is not None:
        return dataclasses.replace(typing.cast("Any", config.instance), **knobs)
    if _parameters(config.cls)[0] or _parameters(config.cls)[1]:
        return config.cls(**knobs)
    made = config.cls()
    for name, value in knobs.items():
        setattr(made, name, value)
    return made
