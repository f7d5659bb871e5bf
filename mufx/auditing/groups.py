"""The groups of a live optimizer, read per parameter.

The user's function makes the optimizer of a model on `meta`, at base and at target width. What
it gives every parameter is read off the groups; no step is taken with a gradient.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn, optim

from mufx.auditing.laws import law_of
from mufx.diagnostics import MufxError, Place, error
from mufx.factory import place_of
from mufx.loading import described, folder_of, place_in_user_code, preserved_rng, quiet
from mufx.program import Optimizer

MakeOptimizer = Callable[[nn.Module], object]

_STEPS = 1024  # of a schedule: enough to see a floor, and milliseconds
_NAMES = 5  # of parameters in a message


@dataclass(frozen=True, slots=True)
class Setting:
    """What one parameter is trained with.

    Attributes:
        lr: The learning rate when training starts; a tensor is read as its value.
        given_lr: The rate that the group was made with, before a scheduler or anything else.
        weight_decay: The optimizer's argument.
        eps: Of the Adam family; 0 for SGD.
        group: The index of its group.
        shares_lr: Whether its rate is one tensor with another group's.
    """

    lr: float
    given_lr: float
    weight_decay: float
    eps: float
    group: int
    shares_lr: bool


@dataclass(frozen=True, slots=True)
class Live:
    """The optimizer of one model.

    `path` holds, for each group, the learning rate at every sampled step of its scheduler.
    """

    kind: Optimizer
    settings: Mapping[str, Setting]
    path: tuple[tuple[float, ...], ...]


def read(make: MakeOptimizer, model: nn.Module) -> Live:
    """Makes the optimizer of a model and reads its groups.

    Args:
        make: Returns a `torch.optim.Optimizer`, a learning-rate scheduler, or a tuple of both.
        model: On `meta`, at base or at target width.

    Raises:
        MufxError: `MUF601` where `make` raises or returns something else, `MUF602` where
            parameters that train are in no group, `MUF603` for an update rule without a table.
    """
    place = place_of(make)
    with _made_with() as given, preserved_rng(), quiet():
        made = _called(make, model, place)
        optimizer, schedule = _parts(made, place)
        settings = _settings(optimizer, model, given, place)
        path = tuple(_path(optimizer, schedule))
    return Live(_kind(optimizer, place), settings, path)


def _called(make: MakeOptimizer, model: nn.Module, place: Place) -> object:
    try:
        return make(model)
    except MufxError:
        raise
    except Exception as problem:
        module = inspect.getmodule(make)
        folder = folder_of(module) if module is not None else None
        raised = place_in_user_code(problem, folder) if folder is not None else None
        raise MufxError(
            error(
                "MUF601",
                f"{place.cls} raised on the model: {described(problem)}",
                hint="it is called with the model on the meta device: leave out fused=True, and "
                "read shapes, not values",
                place=raised or place,
            )
        ) from problem


def _parts(made: object, place: Place) -> tuple[optim.Optimizer, Any]:
    """The optimizer, and the scheduler where there is one."""
    found: list[object] = (
        list(cast("tuple[object, ...]", made)) if isinstance(made, tuple) else [made]
    )
    schedule = next((f for f in found if isinstance(f, optim.lr_scheduler.LRScheduler)), None)
    optimizer = next((f for f in found if isinstance(f, optim.Optimizer)), None)
    if optimizer is None and schedule is not None:
        optimizer = schedule.optimizer
    if optimizer is None:
        raise MufxError(
            error(
                "MUF601",
                f"{place.cls} returns a {type(made).__name__}, not an optimizer",
                hint="return a torch.optim.Optimizer, or one with its learning-rate scheduler",
                place=place,
            )
        )
    return optimizer, schedule


@contextmanager
def _made_with() -> Generator[dict[int, list[float]]]:
    """By optimizer: the learning rates its groups were added with.

    A scheduler may replace them when it is made; the groups do not keep what they were.
    """
    given: dict[int, list[float]] = {}
    original = optim.Optimizer.add_param_group

    def add(self: optim.Optimizer, param_group: dict[str, Any]) -> None:
        original(self, param_group)
        given.setdefault(id(self), []).append(float(self.param_groups[-1]["lr"]))

    optim.Optimizer.add_param_group = add  # type: ignore[method-assign]
    try:
        yield given
    finally:
        optim.Optimizer.add_param_group = original  # type: ignore[method-assign]


def _settings(
    optimizer: optim.Optimizer, model: nn.Module, given: Mapping[int, list[float]], place: Place
) -> dict[str, Setting]:
    names = {id(p): name for name, p in model.named_parameters()}
    groups: list[dict[str, Any]] = optimizer.param_groups
    rates = [g["lr"] for g in groups]
    tensors = [id(r) for r in rates if isinstance(r, torch.Tensor)]
    made_with = given.get(id(optimizer), [float(r) for r in rates])
    settings: dict[str, Setting] = {}
    foreign = 0
    for index, group in enumerate(groups):
        setting = Setting(
            float(group["lr"]),
            made_with[index],
            float(group.get("weight_decay", 0.0)),
            float(group.get("eps", 0.0)),
            index,
            tensors.count(id(group["lr"])) > 1,
        )
        for parameter in group["params"]:
            foreign += id(parameter) not in names
            settings[names.get(id(parameter), "")] = setting
    missing = [n for n, p in model.named_parameters() if p.requires_grad and n not in settings]
    if missing or foreign:
        raise MufxError(_incomplete(missing, foreign, place))
    return settings


def _incomplete(missing: list[str], foreign: int, place: Place) -> Any:
    listed = ", ".join(missing[:_NAMES]) + (
        f" and {len(missing) - _NAMES} more" * (len(missing) > _NAMES)
    )
    what = [f"leaves out {listed}"] if missing else []
    what += [f"has {foreign} that are not the model's"] if foreign else []
    return error(
        "MUF602",
        f"of the parameters, the optimizer of {place.cls} {' and '.join(what)}",
        hint="give every parameter of the model it is called with a group, or set "
        "requires_grad=False on what does not train",
        place=place,
    )


def _path(optimizer: optim.Optimizer, schedule: Any) -> Iterator[tuple[float, ...]]:
    """The rates of all groups over the schedule."""
    yield tuple(float(g["lr"]) for g in optimizer.param_groups)
    if schedule is None or isinstance(schedule, optim.lr_scheduler.ReduceLROnPlateau):
        return
    for _ in range(_STEPS):
        optimizer.step()  # no parameter has a gradient: nothing moves
        try:
            schedule.step()
        except ValueError:  # past the end of the schedule
            return
        yield tuple(float(g["lr"]) for g in optimizer.param_groups)


def _kind(optimizer: optim.Optimizer, place: Place) -> Optimizer:
    law = law_of(optimizer)
    if law is not None:
        return law
    name = type(optimizer).__name__
    raise MufxError(
        error(
            "MUF603",
            f"there is no table for the update rule of {name}",
            hint="audit the model alone with --optimizer adam, adamw or sgd, whichever it is "
            "like; or say so where it is defined: from mufx.auditing.laws import update_law; "
            f'update_law({name}, like="adamw")',
            place=place,
        )
    )
