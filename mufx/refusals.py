"""Regions of a forward pass that a recording would silently flatten, and what mufx says instead."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from typing import Any

import torch
import torch.utils.checkpoint
from torch import Tensor
from torch.amp.autocast_mode import autocast
from torch.autograd.function import Function
from torch.utils import _pytree as pytree

from mufx.derivatives import flattened, restates_derivative
from mufx.diagnostics import Diagnostic, MufxError, Place, error, note
from mufx.recording import Origin


@contextmanager
def refusing_flattened_regions(
    origin: Callable[[], Origin], report: Callable[[Diagnostic], None]
) -> Generator[None]:
    """Raises `MUF102`, with its place, where the model enters a region that has no node.

    Custom autograd functions and checkpoint regions would be recorded as the operations inside
    them, without their backward or their recomputation; an autocast region would be lost. A
    function whose backward is the derivative of its forward loses nothing: it is flattened, and
    `report` is told once (`MUF112`). Of a scripted function the Python one is recorded, which
    computes the same.
    """
    told: set[type[Any]] = set()

    def refuse(what: str, hint: str) -> MufxError:
        return MufxError(error("MUF102", f"{what} would be lost", hint=hint, place=origin().place))

    def apply(cls: type[Any], /, *args: object, **kwargs: object) -> Any:
        if kwargs or not restates_derivative(cls, args):
            raise refuse(
                f"the backward of the autograd function {cls.__name__}",
                "give the model a plain forward for the conversion; the function can replace it "
                "in the emitted file",
            )
        if cls not in told:
            told.add(cls)
            report(_flattened(cls, origin().place))
        return flattened(cls, args)

    def checkpoint(*args: object, **kwargs: object) -> None:
        raise refuse(
            "an activation checkpoint",
            "switch checkpointing off for the conversion and wrap the emitted blocks instead",
        )

    def enter(self: Any) -> None:
        if self._enabled != torch.is_autocast_enabled(self.device):
            raise refuse(
                f"an autocast region (enabled={self._enabled})",
                "put the training step under autocast, not a part of the forward",
            )

    def scripted(self: Any, *args: object, **kwargs: object) -> Any:
        return _unscripted(self, refuse)(*args, **kwargs)

    def leave(self: object, *problem: object) -> None:
        del self, problem

    regions: list[tuple[Any, str, Any]] = [
        (Function, "apply", classmethod(apply)),
        (torch.utils.checkpoint, "_checkpoint_without_reentrant_generator", checkpoint),
        (torch.jit.ScriptFunction, "__call__", scripted),
        (autocast, "__enter__", enter),
        (autocast, "__exit__", leave),
    ]
    with replaced(regions):
        yield


def _unscripted(function: Any, refuse: Callable[[str, str], MufxError]) -> Callable[..., Any]:
    """The Python function that a scripted one was made from; one compiled from text has none."""
    python: Callable[..., Any] | None = getattr(function, "_torchdynamo_inline", None)
    if python is None:
        raise refuse(
            f"the code of the TorchScript function {function.name}",
            "give mufx the Python function that it was made from",
        )
    return python


def _flattened(function: type[Any], place: Place) -> Diagnostic:
    return note(
        "MUF112",
        f"the autograd function {function.__name__} becomes the operations of its forward; its "
        "backward was compared with their derivative and is the same",
        hint="put the function back into the emitted file where its memory or speed matters",
        place=place,
    )


def refuse_lost_gradient(
    call: Callable[[], object], inputs: Iterable[Tensor], results: Iterable[Tensor], origin: Origin
) -> None:
    """Raises `MUF102` if a call without gradients has cut a gradient that its operands have.

    `torch.no_grad` has no node, so the emitted model would train through the region. `detach`
    cuts the same gradient, and has one. What takes only shape and type of an operand cuts none.
    """
    if torch.is_grad_enabled() or not any(t.requires_grad for t in inputs):
        return
    if any(t.is_floating_point() for t in results) and _passes_gradient_on(call):
        raise MufxError(
            error(
                "MUF102",
                "a region without gradients (torch.no_grad) would be lost",
                hint=_instead_of_region(origin),
                place=origin.place,
            )
        )


def _passes_gradient_on(call: Callable[[], object]) -> bool:
    """Whether a call has a gradient where gradients are computed; it is carried out again."""
    with torch.inference_mode(False), torch.enable_grad():
        try:
            results = call()
        except RuntimeError:  # it writes into a parameter, or reads what inference made
            return True
    return any(isinstance(t, Tensor) and t.requires_grad for t in pytree.tree_leaves(results))


def _instead_of_region(origin: Origin) -> str:
    """What the user can do, who did not write the modules of torch (spectral norm)."""
    cls = origin.call.cls if origin.call is not None else None
    if cls is not None and cls.__module__.startswith("torch."):
        return f"the region is torch's own: convert the model without {cls.__name__.strip('_')}"
    return "call detach() on what should get no gradient, outside of the region or instead of it"


@contextmanager
def replaced(replacements: list[tuple[Any, str, Any]]) -> Generator[None]:
    """Sets attributes, (owner, name, value) each, and puts the old ones back."""
    saved = [(owner, name, vars(owner)[name]) for owner, name, _ in replacements]
    for owner, name, new in replacements:
        setattr(owner, name, new)
    try:
        yield
    finally:
        for owner, name, old in saved:
            setattr(owner, name, old)
