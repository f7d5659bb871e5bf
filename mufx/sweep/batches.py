"""The user's batches, and the loss on one.

`data(batch)` returns an iterable of batches, each as `example_inputs` returns one: a tensor, a
tuple of arguments or a dict. A tuple that is one longer ends with the target of a cross-entropy.
Parameters of the names of knobs are given them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mufx.devices import moved
from mufx.diagnostics import Diagnostic, MufxError, Place, error
from mufx.factory import place_of
from mufx.inputs import Inputs, at_sizes
from mufx.knobs import Knobs
from mufx.loading import described, import_file, import_module, imports_from, place_in_user_code
from mufx.sweep.neighbours import digest_of

_NAME = "data"
_HINT = (
    "define data(batch): it yields batches for ever, each the arguments of forward, and one more, "
    "the target, where forward returns no loss"
)


@dataclass(frozen=True)
class Data:
    """The user's function of batches.

    Attributes:
        make: Returns an iterable of batches of a size; may draw from torch's global generator.
        place: Where it is defined.
        digest: The sha256 of its file, and of the neighbours that it imports.
    """

    make: Callable[..., object]
    place: Place
    digest: str


def load_data(spec: str) -> Data:
    """The function that a specification names: `text.py:windows`; without a name it is `data`.

    Raises:
        MufxError: `MUF001` and `MUF002` for the file, `MUF753` where it has no such function.
    """
    path, colon, name = spec.rpartition(":")
    if not (colon and name.isidentifier()):
        path, name = spec, _NAME
    module = import_file(Path(path)) if path.endswith(".py") else import_module(path)
    return data_of(module, name)


def data_of(module: ModuleType, name: str = _NAME) -> Data:
    """The function of batches that a module defines.

    Raises:
        MufxError: `MUF753` where it has none.
    """
    file = str(module.__file__)
    make = vars(module).get(name)
    if not callable(make):
        raise MufxError(
            error(
                "MUF753",
                f"no function {name} gives the batches to train on",
                hint=f"{_HINT}, or name one: --data text.py:batches",
                place=Place(file, 1),
            )
        )
    return Data(make, place_of(make), digest_of(module))


def batches(
    data: Data, batch: int, steps: int, device: torch.device, knobs: Knobs
) -> Iterator[Inputs]:
    """The first `steps` batches, as arguments on the device.

    Raises:
        MufxError: `MUF753` where the user's code raises or gives no batches, `MUF754` where it
            gives fewer than `steps`.
    """
    iterator = _iterator(data, batch, knobs)
    for step in range(steps):
        try:
            with imports_from(_folder(data)):
                given = next(iterator)
        except StopIteration:
            raise MufxError(_ended(data, step, steps)) from None
        except Exception as problem:
            raise MufxError(_failed(data, problem)) from problem
        yield moved(_arguments(given, data.place), device)


def _iterator(data: Data, batch: int, knobs: Knobs) -> Iterator[object]:
    try:
        with imports_from(_folder(data)):
            made = at_sizes(data.make, batch, knobs)
            if isinstance(made, Iterable) and not isinstance(made, Tensor):
                return iter(made)
    except Exception as problem:
        raise MufxError(_failed(data, problem)) from problem
    what = f"{data.place.cls} returns a {type(made).__name__}, not batches"
    raise MufxError(error("MUF753", what, hint=_HINT, place=data.place))


def _arguments(given: object, place: Place) -> Inputs:
    if isinstance(given, Tensor):
        return (given,), {}
    if isinstance(given, tuple | list):
        return tuple(cast("tuple[object, ...]", given)), {}
    if isinstance(given, Mapping):
        items = cast("Mapping[object, object]", given).items()
        return (), {str(name): value for name, value in items}
    what = f"a batch is a {type(given).__name__}, not a tensor, a tuple or a dict"
    raise MufxError(error("MUF753", what, hint=_HINT, place=place))


def _folder(data: Data) -> Path:
    return Path(data.place.file).parent


def _ended(data: Data, step: int, steps: int) -> Diagnostic:
    given = f"{step} batch{'es' * (step != 1)}"
    return error(
        "MUF754",
        f"{data.place.cls} ended after {given}, and {steps} steps need {steps}",
        hint=f"yield batches for ever (itertools.cycle), or take --steps {max(step, 1)}",
        place=data.place,
    )


def _failed(data: Data, problem: Exception) -> Diagnostic:
    return error(
        "MUF753",
        f"{data.place.cls} raised {described(problem)}",
        hint=_HINT,
        place=place_in_user_code(problem, _folder(data)) or data.place,
    )


# -- the loss -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Loss:
    """The loss of a model on a batch: its own, else the cross-entropy against the target.

    `positional` and `named` are how many arguments the example inputs have, by position and by
    name; a batch may give all of them by position. One with one more ends with the target, class
    indices in the shape of the logits without their last axis (-100: no class).
    """

    positional: int
    place: Place
    named: int = 0

    @staticmethod
    def of(inputs: Inputs, place: Place) -> Loss:
        """For batches like these example inputs."""
        return Loss(len(inputs[0]), place, len(inputs[1]))

    def arguments(self, batch: Inputs) -> Inputs:
        """What the model takes of a batch: all but a target."""
        args, kwargs = batch
        return args[: self._count(kwargs)], kwargs

    def _count(self, kwargs: Mapping[str, object]) -> int:
        return self.positional if kwargs else self.positional + self.named

    def __call__(self, model: nn.Module, batch: Inputs) -> Tensor:
        """A scalar.

        Raises:
            MufxError: `MUF755` where the model returns no loss and the batch holds no target.
        """
        (given, _), (args, kwargs) = batch, self.arguments(batch)
        target = given[len(args)] if len(given) == self._count(kwargs) + 1 else None
        output: object = model(*args, **kwargs)
        own = _own_loss(output)
        if own is not None:
            return own
        logits = _first(output)
        if not (isinstance(target, Tensor) and isinstance(logits, Tensor)):
            raise MufxError(self._no_loss(output))
        return F.cross_entropy(logits.flatten(0, -2), target.flatten())

    def _no_loss(self, output: object) -> Diagnostic:
        return error(
            "MUF755",
            f"forward returns a {type(output).__name__} without a loss, and a batch holds "
            f"{self.positional + self.named} arguments and no target",
            hint=_HINT,
            place=self.place,
        )


def _own_loss(output: object) -> Tensor | None:
    """The output's `loss`, or the one scalar in it; None where there is neither."""
    if isinstance(output, Mapping):
        loss = cast("Mapping[object, object]", output).get("loss")
    else:
        loss = getattr(output, "loss", None)
    if isinstance(loss, Tensor):
        return loss
    parts = cast("tuple[object, ...]", output) if isinstance(output, tuple | list) else (output,)
    scalars = [p for p in parts if isinstance(p, Tensor) and p.ndim == 0 and p.is_floating_point()]
    return scalars[0] if len(scalars) == 1 else None


def _first(output: object) -> object:
    if isinstance(output, tuple | list) and output:
        return cast("tuple[object, ...]", output)[0]
    return getattr(output, "logits", output)
