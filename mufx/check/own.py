"""What a step of each parameter, taken alone, can change where it meets an activation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from mufx.check.watch import watched
from mufx.inputs import Inputs
from mufx.recorder import TorchFunction, tensors

Steps = Mapping[str, Tensor]


@torch.no_grad()
def own_changes(model: nn.Module, probe: Inputs, steps: Steps) -> dict[str, Tensor]:
    """By node and parameter: the most that a small step of this parameter alone can change there.

        fc2:linear#1 fc2.weight     |step| |x|, with the x that the weight meets

    The most, so all products of one sign: how far a first step is aligned with what it meets
    depends on the batch. And alone: what comes through from before keeps its size however little
    the weight learns, and hides it in the change of the whole node.
    """
    moved = {id(p): Moved((n,), p + steps[n]) for n, p in model.named_parameters() if n in steps}
    found: dict[str, Tensor] = {}
    apart = Apart(moved)

    def see(node: str, value: Tensor) -> None:
        for names, change in apart.of(value):
            found[f"{node} {','.join(names)}"] = change

    args, kwargs = probe
    with apart, watched(model, see):
        model(*args, **kwargs)
    return found


@dataclass(frozen=True, slots=True)
class Moved:
    """A parameter after its step, or what is made of parameters alone; and which ones."""

    names: tuple[str, ...]
    after: Tensor


Held = Mapping[int, tuple[Tensor, Moved]]


class Apart(TorchFunctionMode):
    """Repeats every call that takes parameters with each of them moved by its step."""

    def __init__(self, moved: dict[int, Moved]) -> None:
        """`moved` are the parameters by id."""
        super().__init__()
        self._moved = moved
        self._last: list[tuple[int, tuple[str, ...], Tensor]] = []
        self._alive: list[Tensor] = []  # an id is only unique while its object lives

    def of(self, value: Tensor) -> Iterator[tuple[tuple[str, ...], Tensor]]:
        """The parts of the result of the last call with parameters, where `value` is that."""
        for address, names, change in self._last:
            if address == value.data_ptr() and change.shape == value.shape:
                yield names, change

    def __torch_function__(
        self,
        func: TorchFunction,
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        """Runs the call, and what it would be with a parameter moved."""
        kwargs = kwargs or {}
        given = tensors((args, kwargs))
        held = {id(t): (t, self._moved[id(t)]) for t in given if id(t) in self._moved}
        if not held:
            return func(*args, **kwargs)
        if all(id(t) in held for t in given):
            return self._derived(func, args, kwargs, held)
        still = tensors(self._repeated(func, args, kwargs, {}))
        each = [
            (moved.names, tensors(self._repeated(func, args, kwargs, {id(t): t + _size(t, moved)})))
            for t, moved in held.values()
        ]
        result = func(*args, **kwargs)
        made = tensors(result)
        self._last = [
            (made[i].data_ptr(), names, after[i] - still[i])
            for names, after in each
            for i in range(len(made))
            if made[i].is_floating_point()
        ]
        return result

    def _repeated(
        self, func: TorchFunction, args: Any, kwargs: Mapping[str, Any], moved: Mapping[int, Tensor]
    ) -> object:
        """With the same draws, and with no activation below 0; what was given is not written to."""

        def swapped(value: Tensor) -> Tensor:
            if id(value) in self._moved:
                return moved.get(id(value), value)
            return value.abs() if value.is_floating_point() else value.clone()

        args, kwargs = tree_map_only(Tensor, swapped, (args, dict(kwargs)))
        with _same_draws(tensors((args, kwargs))):
            return func(*args, **kwargs)

    def _derived(
        self, func: TorchFunction, args: Any, kwargs: Mapping[str, Any], held: Held
    ) -> object:
        """A value made of parameters alone moves as they do."""
        given = (args, dict(kwargs))
        after = tree_map_only(Tensor, lambda t: held[id(t)][1].after, given)
        with _same_draws(tensors(given)):
            moved = tensors(func(*after[0], **after[1]))
        result = func(*args, **kwargs)
        names = tuple(name for _, one in held.values() for name in one.names)
        for old, new in zip(tensors(result), moved, strict=True):
            self._moved.setdefault(id(old), Moved(names, new))
            self._alive.append(old)
        return result


def _size(value: Tensor, moved: Moved) -> Tensor:
    return (moved.after - value).abs()


def _same_draws(given: Sequence[Tensor]) -> AbstractContextManager[None]:
    """The draws inside are drawn again after it."""
    return torch.random.fork_rng({t.device for t in given if t.device.type == "cuda"})
