"""Modules of torch that the emitted file can simply construct again."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn

from mufx.emit.text import hole


def leaf_expression(module: nn.Module) -> str | None:
    """The constructor call that makes this module, `nn.Linear(64, 256, bias=False)`.

    Every parameter of the constructor is read from the attribute of its name; what that gives is
    built on `meta` and compared. `None` if it is not the same module, or not one of `torch.nn`.
    """
    public = public_class(module)
    if public is None:
        return None
    arguments = _arguments(module, public)
    if arguments is None:
        return None
    rebuilt = _build(public, arguments)
    if rebuilt is None or not _same(module, rebuilt):
        return None
    shown = _shortest(module, public, arguments)
    return f"nn.{public.__name__}({_text(public, shown)})"


def public_class(module: nn.Module) -> type[nn.Module] | None:
    """The class of `torch.nn` whose forward the module has; `None` where it has one of its own."""
    cls = type(module)
    bases = (base for base in cls.__mro__ if issubclass(base, nn.Module))
    public = next((base for base in bases if getattr(nn, base.__name__, None) is base), nn.Module)
    return None if public is nn.Module or cls.forward is not public.forward else public


def _signature(cls: type[nn.Module]) -> dict[str, inspect.Parameter]:
    for base in cls.__mro__:
        init: Any = base.__dict__.get("__init__")
        if init is None:
            continue
        parameters = list(inspect.signature(init).parameters.values())[1:]
        variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        if not any(p.kind in variadic for p in parameters):
            return {p.name: p for p in parameters}
    return {}


def _arguments(module: nn.Module, cls: type[nn.Module]) -> dict[str, Any] | None:
    found: dict[str, Any] = {}
    for name, parameter in _signature(cls).items():
        if name in ("device", "dtype", "mode") or name.startswith("_"):
            continue
        missing = object()
        value = getattr(module, name, missing)
        if value is missing:
            continue
        if isinstance(value, torch.Tensor):
            value = True
        if value is None and isinstance(parameter.default, bool):
            value = False
        if not _is_plain(value):
            return None
        if type(value) is type(parameter.default) and value == parameter.default:
            continue  # GRU and RNN have a default that they do not take
        found[name] = value
    dtype = next((p.dtype for p in module.parameters()), torch.float32)
    if dtype is not torch.float32:
        found["dtype"] = dtype
    return found


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple):
        return all(_is_plain(v) for v in value)
    return value is None or isinstance(value, (bool, int, float, str))


def _build(cls: type[nn.Module], arguments: dict[str, Any]) -> nn.Module | None:
    try:
        with torch.device("meta"):
            return cls(**arguments)
    except (TypeError, ValueError, AssertionError, RuntimeError):
        return None


def _same(module: nn.Module, other: nn.Module) -> bool:
    def facts(m: nn.Module) -> object:
        tensors = [(k, v.shape, v.dtype) for k, v in m.state_dict(keep_vars=True).items()]
        learned = [(k, p.requires_grad) for k, p in m.named_parameters()]
        return tensors, learned, m.extra_repr()

    def plain(m: nn.Module) -> dict[str, object]:
        return {
            f"{path}.{k}": v
            for path, part in m.named_modules()
            for k, v in vars(part).items()
            if k != "training" and _is_plain(v)
        }

    # What others have set on the module beside torch's own attributes changes nothing.
    return facts(module) == facts(other) and plain(other).items() <= plain(module).items()


def _shortest(module: nn.Module, cls: type[nn.Module], arguments: dict[str, Any]) -> dict[str, Any]:
    """Without arguments that are defaults, and (3, 3) as 3 where that is the same."""
    shown = dict(arguments)
    parameters = _signature(cls)
    for name in list(shown):
        parameter = parameters.get(name)
        if parameter is not None and parameter.default is not inspect.Parameter.empty:
            trial = {k: v for k, v in shown.items() if k != name}
            rebuilt = _build(cls, trial)
            if rebuilt is not None and _same(module, rebuilt):
                shown = trial
    for name, value in list(shown.items()):
        if isinstance(value, tuple) and value and len(set(value)) == 1:
            trial = {**shown, name: value[0]}
            rebuilt = _build(cls, trial)
            if rebuilt is not None and _same(module, rebuilt):
                shown = trial
    return shown


def _text(cls: type[nn.Module], arguments: dict[str, Any]) -> str:
    parts: list[str] = []
    positional = True
    for name, parameter in _signature(cls).items():
        required = parameter.default is inspect.Parameter.empty
        if name not in arguments:
            positional = positional and name == "mode"
            continue
        value = _value(arguments[name], name)
        positional = positional and required
        parts.append(value if positional else f"{name}={value}")
    return ", ".join(parts)


def _value(value: object, name: str) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(_value(v, name) for v in value)}{',' * (len(value) == 1)})"
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, (bool, int, float)):
        return hole(value, name)
    return str(value)
