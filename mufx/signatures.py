"""How torch's functions name the operands that a call has to give."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch


def in_position(
    func: Callable[..., object], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    """The call with its required arguments in their positions, where tensors are given by name.

        torch.bmm(input=x, mat2=w), x.bmm(mat2=w)  ->  torch.bmm(x, w), x.bmm(w)

    So a rule finds every operand, however the model was written. Optional arguments keep their
    names, and so does `dim` in `x.sum(dim=1)`. What einsum is given in a list stands one by one.
    """
    if func is torch.einsum and len(args) == 2 and isinstance(args[1], (tuple, list)):
        return (args[0], *args[1]), kwargs
    for required in _required(func) if kwargs else ():
        left = required[len(args) :]
        named = {name: value for name in left if (value := _given(name, kwargs)) is not None}
        if left and len(named) == len(left) and any(map(_holds_tensors, named.values())):
            taken = {*left, *(_ALIASES[name] for name in left if name in _ALIASES)}
            rest = {name: value for name, value in kwargs.items() if name not in taken}
            return (*args, *named.values()), rest
    return args, kwargs


_ALIASES = {"self": "input"}  # what torch.bmm(input=...) calls the self of Tensor.bmm


def _given(name: str, kwargs: Mapping[str, Any]) -> Any:
    return kwargs.get(name, kwargs.get(_ALIASES.get(name, name)))


def _holds_tensors(value: object) -> bool:
    if isinstance(value, (tuple, list)):
        return any(map(_holds_tensors, value))
    return isinstance(value, torch.Tensor)


@cache
def _required(func: Callable[..., object]) -> tuple[tuple[str, ...], ...]:
    """The names of the arguments without a default: of a Python function, or by overload."""
    try:
        parameters = inspect.signature(func).parameters.values()
    except (TypeError, ValueError):
        name = getattr(func, "__name__", "")
        schemas = torch._C._jit_get_schemas_for_operator(f"aten::{name}")
        return tuple(dict.fromkeys(map(_required_by, schemas)))
    given = (p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD)
    return (tuple(p.name for p in given if p.default is p.empty),)


def _required_by(schema: torch._C.FunctionSchema) -> tuple[str, ...]:
    given = (a for a in schema.arguments if not a.kwarg_only and not a.has_default_value())
    return tuple(a.name for a in given)
