"""Runs a model's forward on `meta`, where it costs nothing, to see what it does with inputs."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map, tree_map_only

from mufx.inputs import Inputs, parse_input
from mufx.loading import preserved_rng, quiet

_LIMIT = 64  # combinations of inputs to try for a message


def calls(model: nn.Module, inputs: Inputs, first: int | None = None) -> object | None:
    """What the forward pass calls, with shapes and numbers; None where it does not run.

    All of it, or the `first` so many calls.
    """
    seen = _Calls(first)
    return seen.log if _runs(model, inputs, seen) else None


def described_inputs(forward: Callable[..., object]) -> list[str]:
    """`--input` lines of which only the names are known."""
    return [f"{name}:DTYPE[SIZES]" for name in _wanted(forward)]


def left_out(forward: Callable[..., object]) -> list[str]:
    """The parameters of forward that are None where nothing is given for them."""
    parameters = list(inspect.signature(forward).parameters.values())[1:]
    return [p.name for p in parameters if p.default is None]


def proposed_inputs(base: nn.Module, target: nn.Module) -> list[str]:
    """`--input` lines that run at both sizes, for the required parameters of forward; or none."""
    names = _wanted(type(base).forward)
    kinds = _kinds(base)
    for choice in itertools.islice(itertools.product(kinds, repeat=len(names)), _LIMIT):
        lines = [f"{name}:{kind}" for name, kind in zip(names, choice, strict=True)]
        inputs: Inputs = (
            (),
            {
                name: parse_input(f"{name}:{kind}").tensor(2, {})
                for name, kind in zip(names, choice, strict=True)
            },
        )
        seen = _Calls()
        if _runs(base, inputs, seen) and _runs(target, inputs, _Calls()):
            return [_bounded(line, seen) for line in lines]
    return []


class _Calls(TorchFunctionMode):
    """Logs torch calls, all or the first `limit`: names, and arguments without their data."""

    def __init__(self, limit: int | None = None) -> None:
        super().__init__()
        self.limit = limit
        self.log: list[tuple[str, str]] = []
        self.vocabularies: list[int] = []

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        if len(self.log) == self.limit:
            raise _EnoughError
        given = tree_map(_outline, (args, dict(kwargs or {})))
        self.log.append((getattr(func, "__name__", repr(func)), repr(given)))
        if func is nn.functional.embedding:
            self.vocabularies.append(args[1].shape[0])
        return func(*args, **(kwargs or {}))


class _EnoughError(Exception):
    """The calls that were asked for are logged."""


def _outline(value: object) -> object:
    if isinstance(value, torch.Tensor):
        return (str(value.dtype), *value.shape)
    return value if isinstance(value, bool | int | float | str) else type(value).__name__


def _runs(model: nn.Module, inputs: Inputs, mode: TorchFunctionMode) -> bool:
    try:
        args, kwargs = tree_map_only(torch.Tensor, _on_meta, inputs)
        with preserved_rng(), quiet(), torch.no_grad(), torch.device("meta"), mode:
            model(*args, **kwargs)
    except _EnoughError:
        return True
    except Exception:  # whatever a forward pass may raise: it does not run on these inputs
        return False
    return True


def _on_meta(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to("meta")


def _wanted(forward: Callable[..., object]) -> list[str]:
    """The required parameters of forward, else its first one."""
    parameters = [
        p
        for p in list(inspect.signature(forward).parameters.values())[1:]
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]
    required = [p.name for p in parameters if p.default is p.empty]
    return required or [p.name for p in parameters[:1]]


def _kinds(model: nn.Module) -> list[str]:
    """Kinds of tensors that the leaves of the model take."""
    kinds: dict[str, None] = {}
    for leaf in model.modules():
        if isinstance(leaf, nn.Embedding):
            kinds[f"int64[2,16]<{leaf.num_embeddings}"] = None
        elif isinstance(leaf, nn.Linear):
            kinds[f"float32[2,{leaf.in_features}]"] = None
            kinds[f"float32[2,16,{leaf.in_features}]"] = None
        elif isinstance(leaf, nn.Conv2d):
            kinds[f"float32[2,{leaf.in_channels},32,32]"] = None
            kinds[f"float32[2,{leaf.in_channels},224,224]"] = None
        elif isinstance(leaf, nn.Conv1d):
            kinds[f"float32[2,{leaf.in_channels},64]"] = None
    return sorted(kinds, key=lambda kind: not kind.startswith("int"))


def _bounded(line: str, seen: _Calls) -> str:
    """An integer line with the size of the first table that the forward pass looks up."""
    name, bound, _ = line.partition("<")
    return f"{name}<{seen.vocabularies[0]}" if bound and seen.vocabularies else line
