"""Builds a model on `meta` at some knobs, to see what a knob does.

A knob is told by what it does: whether another value changes a parameter's shape, or a call of the
forward pass. On `meta` any size is free.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from mufx.diagnostics import MufxError, Place, error
from mufx.factory import REQUIRED, Factory
from mufx.knobs import Knobs, fits, written
from mufx.loading import described, place_in_user_code, preserved_rng, quiet
from mufx.undrawn import Undrawn

_CALLS = (60, 600, None)  # what a knob changes shows early; a whole deep model takes seconds
_TRIAL = 64  # a width to try a knob with that has no default


def build(factory: Factory, knobs: Knobs, device: str = "meta") -> nn.Module:
    """The model at these knobs; the global random number generators stay as they were.

    Raises:
        MufxError: `MUF011` where building raises, `MUF003` where it makes no `nn.Module`, `MUF018`
            where its first input would decide a size.
    """
    try:
        with preserved_rng(), quiet(), torch.device(device), Undrawn():
            model = typing.cast("object", factory.build(**knobs))
    except Exception as problem:
        raise MufxError(
            error(
                "MUF011",
                f"{factory.name} cannot be built at {written(knobs) or 'its defaults'}: "
                f"{described(problem)}",
                hint="choose values that the model accepts, at base and at target",
                place=place_in_user_code(problem, factory.folder) or factory.place,
            )
        ) from problem
    if not isinstance(model, nn.Module):
        raise MufxError(
            error(
                "MUF003",
                f"{factory.name} returns a {type(model).__name__}, not an nn.Module",
                hint="name a class or function that makes the model",
                place=factory.place,
            )
        )
    _refuse_lazy(model, factory)
    return model


def _refuse_lazy(model: nn.Module, factory: Factory) -> None:
    """A tensor without a size has no init to read and no axis that could be seen to grow."""
    for path, module in model.named_modules():
        tensors = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
        lazy = next((name for name, tensor in tensors if is_lazy(tensor)), None)
        if lazy is None:
            continue
        cls = type(module).__name__
        raise MufxError(
            error(
                "MUF018",
                f"{f'{path}.{lazy}' if path else lazy} has no size before the first input",
                hint=f"write {cls.removeprefix('Lazy')}, with the number of features that come in",
                place=Place(factory.place.file, factory.place.line, path, cls),
            )
        )


def shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shape of every parameter; a tied one under each of its names."""
    return {n: tuple(p.shape) for n, p in model.named_parameters(remove_duplicate=False)}


@dataclass(frozen=True, slots=True)
class Built:
    """A model and the knobs it was built at."""

    knobs: Knobs
    model: nn.Module


Behaviour = Callable[[Built, int | None], object | None]
"""What a model's forward pass does in its first calls, or in all of them."""


def without_effect(
    factory: Factory,
    base: Built,
    target: Built,
    behaviour: Behaviour,
) -> list[str]:
    """The knobs whose step from base to target, taken alone, changes nothing.

    A change is one of a parameter's shape, or of `behaviour`, which is None where it cannot be
    told (a number of heads changes no parameter, but what the forward pass does).
    """
    return [
        name
        for name, value in base.knobs.items()
        if value != target.knobs[name] and not _has_effect(factory, name, base, target, behaviour)
    ]


def _has_effect(
    factory: Factory,
    name: str,
    base: Built,
    target: Built,
    behaviour: Behaviour,
) -> bool:
    """Compares two models that differ in one knob: at base, else at target."""
    for one, there in ((base, target), (target, base)):
        try:
            knobs = {**one.knobs, name: there.knobs[name]}
            other = Built(knobs, build(factory, knobs))
        except MufxError:  # a combination that the model does not accept says nothing
            continue
        if shapes(one.model) != shapes(other.model):
            return True
        return any(_differs(one, other, behaviour, calls) for calls in _CALLS)
    return True


def _differs(one: Built, other: Built, behaviour: Behaviour, calls: int | None) -> bool:
    seen = behaviour(one, calls)
    return seen is None or seen != behaviour(other, calls)


@dataclass(frozen=True, slots=True)
class Proposal:
    """Knobs found to change shapes, and sizes at which the model was seen to build."""

    found: Mapping[str, int]  # knob -> how many parameters change their shape
    values: Knobs
    sizes: tuple[Knobs, Knobs] | None  # base and target


def propose(factory: Factory, given: Knobs) -> Proposal | None:
    """Tries every knob that may be a width; None where the model cannot be built to try them."""
    values = _trial_values(factory, given)
    required = {k.name: values.get(k.name) for k in factory.knobs if k.default is REQUIRED}
    fixed = {**required, **given}
    try:
        reference = shapes(build(factory, fixed))
    except MufxError:
        return None
    found = {
        name: count
        for name, value in values.items()
        if (count := _changed(factory, {**fixed, name: 2 * value}, reference))
    }
    for name in sorted(found, key=lambda n: -found[n]):
        for base, target in _pairs(values[name]):
            low, high = {**fixed, name: base}, {**fixed, name: target}
            if all(_changed(factory, knobs, reference) is not None for knobs in (low, high)):
                return Proposal(found, values, (low, high))
    return Proposal(found, values, None)


def _pairs(value: int) -> list[tuple[int, int]]:
    """Sizes to propose around a value: it is the target where it is large, else the base."""
    pairs = [(value, 4 * value), (value, 2 * value)]
    return [(value // 4, value), *pairs] if value >= 4 * _TRIAL else pairs


def _trial_values(factory: Factory, given: Knobs) -> dict[str, int]:
    """The knobs that may be a width, and a value of each: given, its default, or a trial."""
    values: dict[str, int] = {}
    for knob in factory.knobs:
        value = given.get(knob.name, knob.default)
        if value is REQUIRED and fits(_TRIAL, knob):
            value = _TRIAL
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            values[knob.name] = value
    return values


def _changed(
    factory: Factory, knobs: Knobs, reference: Mapping[str, tuple[int, ...]]
) -> int | None:
    """How many parameters have another shape; None where they are others, or cannot be built."""
    try:
        found = shapes(build(factory, knobs))
    except MufxError:
        return None
    if found.keys() != reference.keys():
        return None
    return sum(found[name] != reference[name] for name in reference)
