"""What to convert: a factory, its example inputs, and the knobs at base and at target.

`from_callable` takes them from Python, `load` from a specification as on the command line:
`model.py`, `model.py:GPT`, `package.module:attribute` or `hf:llama`.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeGuard, cast

from torch import Tensor, nn

from mufx.building import Built, build, shapes, without_effect
from mufx.diagnostics import Diagnostic, MufxError, Place, error, raise_errors
from mufx.discovery import Found, find
from mufx.factory import Factory, factory_of, place_of
from mufx.garbage import uncollected
from mufx.inputs import InputSpec, MakeInputs, from_specs, from_values, signature_of
from mufx.knobs import (
    Knobs,
    check_knobs,
)
from mufx.proposals import no_inputs, no_sizes
from mufx.trials import calls

BATCH = 2

ExampleInputs = tuple[object, ...] | Mapping[str, object] | Tensor | Callable[..., object]


@dataclass(frozen=True)
class Source:
    """A model as the user wrote it.

    Attributes:
        build: Makes the model from keyword knobs, on the current default device.
        inputs: Example inputs for a batch size and knobs, as `(args, kwargs)`; CPU tensors.
        base: The knobs where the user tunes.
        target: The knobs of what the user trains; the same names as in `base`.
        vary: Where base and target are equal: the knobs that would grow.
        name: The class of the root module.
        spec: What the user typed, or "" for a call from Python.
        digest: The sha256 of the user's file, or of the class's source.
    """

    build: Callable[..., nn.Module]
    inputs: MakeInputs
    base: Mapping[str, object]
    target: Mapping[str, object]
    vary: tuple[str, ...]
    name: str
    spec: str
    digest: str


@uncollected()
def from_callable(
    build: Callable[..., nn.Module],
    inputs: ExampleInputs,
    base: Knobs,
    target: Knobs,
    vary: Sequence[str] = (),
) -> Source:
    """A source from Python values; `build` is called with the knobs as keywords.

    A class or function that takes one configuration object is called with its configuration,
    and the knobs are the configuration's fields.

    Raises:
        MufxError: `MUF0xx` for everything that is wrong with the knobs and the inputs.
    """
    if isinstance(build, nn.Module) or not callable(build):
        raise MufxError(
            error(
                "MUF003",
                f"a {type(build).__name__} instance does not say how to build it at another size",
                hint="pass its class, or a function that makes it from knobs; without one, "
                "mufx.classes.convert_instance takes the instance and what grows in it",
            )
        )
    factory = factory_of(build)
    raise_errors(check_knobs(factory, base, target, vary))
    return _checked(_Request(factory, "", base, target, tuple(vary)), from_values(inputs), None)


@uncollected()
def load(
    spec: str,
    base: Knobs | None = None,
    target: Knobs | None = None,
    inputs: ExampleInputs | Sequence[InputSpec] | None = None,
    vary: Sequence[str] = (),
) -> Source:
    """The source that a specification names; importing executes the user's file.

    What is not given is taken from the file: `base`, `target` and `example_inputs(batch=2)`.

    Raises:
        MufxError: `MUF0xx`, located, with what was found and a command that works.
    """
    found = find(spec)
    names = vars(found.module)
    base = base if base is not None else _sizes(names, "base", found)
    target = target if target is not None else _sizes(names, "target", found)
    given = inputs if inputs is not None else names.get("example_inputs")
    if base is None or target is None:
        lines = _lines(given if given is not None else found.inputs)
        raise MufxError(*no_sizes(found.factory, spec, base, target, lines))
    raise_errors(check_knobs(found.factory, base, target, vary))
    request = _Request(found.factory, spec, base, target, tuple(vary))
    digest = hashlib.sha256(found.file.read_bytes()).hexdigest()
    if given is None:
        return _checked(request, found.inputs, digest)
    if _is_specs(given):
        return _checked(request, given, digest)
    return _checked(request, from_values(given, Place(str(found.file), 1)), digest)


def _is_specs(inputs: object) -> TypeGuard[Sequence[InputSpec]]:
    """Whether these are described inputs, as `--input` gives them."""
    if not isinstance(inputs, list | tuple) or not inputs:
        return False
    return all(isinstance(item, InputSpec) for item in cast("Sequence[object]", inputs))


def _lines(given: object) -> list[str] | None:
    """The `--input` options that a command needs beside the file; None where nothing is known."""
    if _is_specs(given):
        return [str(item) for item in given]
    return [] if given is not None else None


# -- base and target ----------------------------------------------------------------------------


def _sizes(names: Mapping[str, object], which: str, found: Found) -> Knobs | None:
    """`base` or `target` as the file defines it."""
    value = names.get(which)
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise MufxError(
            error(
                "MUF008",
                f"{which} is a {type(value).__name__}, not a dict of knobs",
                hint=f'write {which} = {{"width": 64}}',
                place=Place(str(found.file), 1),
            )
        )
    return {str(name): item for name, item in cast("Mapping[object, object]", value).items()}


# -- what building and running on meta shows ----------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Request:
    factory: Factory
    spec: str
    base: Knobs
    target: Knobs
    vary: tuple[str, ...]


def _checked(
    request: _Request, given: MakeInputs | Sequence[InputSpec] | None, digest: str | None
) -> Source:
    """The source, once both sizes build, every knob has an effect and the inputs fit."""
    base, target = _models(request)
    make = _inputs(request, given, base, target)
    raise_errors(_idle_knobs(request, base, target, make))
    return Source(
        build=request.factory.build,
        inputs=make,
        base=dict(request.base),
        target=dict(request.target),
        vary=request.vary,
        name=type(base).__name__,
        spec=request.spec,
        digest=digest if digest is not None else _digest_of(type(base)),
    )


def _models(request: _Request) -> tuple[nn.Module, nn.Module | None]:
    """The models on `meta`; no target where the constructor needs data, which meta has not.

    Whether such a constructor can be recorded is for the recording to say. The model at base is
    small, so it is built for real, which also shows whether the constructor is to blame.
    """
    try:
        base = build(request.factory, request.base)
    except MufxError:
        return build(request.factory, request.base, device="cpu"), None
    return base, build(request.factory, request.target)


def _inputs(
    request: _Request,
    given: MakeInputs | Sequence[InputSpec] | None,
    base: nn.Module,
    target: nn.Module | None,
) -> MakeInputs:
    if given is None:
        sizes = (request.base, request.target)
        raise MufxError(no_inputs(request.factory, request.spec, sizes, (base, target)))
    forward = type(base).forward
    make = given if callable(given) else from_specs(given, forward)
    args, kwargs = make(BATCH, request.base)
    try:
        inspect.signature(forward).bind(base, *args, **kwargs)
    except TypeError as problem:
        raise MufxError(
            error(
                "MUF013",
                f"the inputs do not fit {signature_of(forward)}: {problem}",
                hint="give the inputs by the names of forward's parameters",
                place=place_of(forward),
            )
        ) from problem
    return make


def _idle_knobs(
    request: _Request, base: nn.Module, target: nn.Module | None, make: MakeInputs
) -> list[Diagnostic]:
    """The knobs that differ and change nothing."""
    if target is None or dict(request.base) == dict(request.target):
        return []
    idle = without_effect(
        request.factory,
        Built(request.base, base),
        Built(request.target, target),
        lambda built, first: calls(built.model, make(BATCH, built.knobs), first),
    )
    differing = [n for n in request.base if request.base[n] != request.target[n]]
    if not idle and shapes(base) == shapes(target):
        idle = differing
    return [
        error(
            "MUF010",
            f"{name} changes nothing from {request.base[name]!r} to {request.target[name]!r}: "
            "no parameter has another shape",
            hint="name the knobs that make the model wider",
            place=request.factory.place,
        )
        for name in idle
    ]


def _digest_of(cls: type) -> str:
    """The sha256 of a class's source, or of its name where it has none (an interactive session)."""
    try:
        text = inspect.getsource(cls)
    except (OSError, TypeError):
        text = f"{cls.__module__}.{cls.__qualname__}"
    return hashlib.sha256(text.encode()).hexdigest()
