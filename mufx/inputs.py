"""Example inputs: from a user's function or values, or described on the command line.

An input may be as wide as the model. Functions are given the knobs that they name, and a size that
is described by a knob's name is that knob's.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch

from mufx.diagnostics import MufxError, Place, error
from mufx.factory import place_of
from mufx.knobs import Knobs, did_you_mean
from mufx.loading import described, place_in_user_code, preserved_rng

Inputs = tuple[tuple[object, ...], dict[str, object]]
MakeInputs = Callable[[int, Knobs], Inputs]
"""Inputs for a batch size and the knobs of a model."""

_DTYPES: dict[str, torch.dtype] = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.bool,
        torch.uint8,
        torch.int32,
        torch.int64,
        torch.float16,
        torch.bfloat16,
        torch.float32,
        torch.float64,
        torch.complex64,
    )
}
_SYNTAX = re.compile(r"(?:(\w+)\s*:)?\s*(\w+)\s*\[([^\]]*)\]\s*(?:<\s*(\d+))?")
_EXAMPLE = "idx:int64[2,16]<50257"
_BATCH = "batch"  # the size that is no knob's


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One described tensor: `name:dtype[sizes]<high`; a size may be `batch` or a knob's name."""

    name: str  # "" for a positional one
    dtype: torch.dtype
    shape: tuple[int | str, ...]
    high: int | None = None

    def __str__(self) -> str:
        """The description, as `parse_input` reads it."""
        sizes = ",".join(map(str, self.shape))
        name = f"{self.name}:" if self.name else ""
        high = f"<{self.high}" if self.high is not None else ""
        return f"{name}{str(self.dtype).removeprefix('torch.')}[{sizes}]{high}"

    def tensor(self, batch: int, knobs: Knobs) -> torch.Tensor:
        """A CPU tensor: integers below `high`, standard normal floats, or all True.

        Raises:
            MufxError: `MUF013` for a size that is no whole knob.
        """
        shape = [self._size(size, {**knobs, _BATCH: batch}) for size in self.shape]
        generator = torch.Generator().manual_seed(0)
        if self.dtype is torch.bool:
            return torch.ones(shape, dtype=torch.bool)
        if self.high is not None:
            return torch.randint(self.high, shape, generator=generator, dtype=self.dtype)
        return torch.randn(shape, generator=generator, dtype=self.dtype)

    def _size(self, size: int | str, knobs: Knobs) -> int:
        known = size if isinstance(size, int) else knobs.get(size)
        if isinstance(known, int):
            return known
        names = ", ".join(name for name, value in knobs.items() if isinstance(value, int))
        raise MufxError(
            error(
                "MUF013",
                f"--input '{self}' has a size {size}, which is none of {names}",
                hint="name a knob of --base and --target that is a whole number, or give a number",
            )
        )


def parse_input(text: str) -> InputSpec:
    """Reads `idx:int64[2,16]<50257`; the size `batch` stands for the batch size, others for knobs.

    Raises:
        MufxError: `MUF013` where the text is not of this form.
    """
    match = _SYNTAX.fullmatch(text.strip())
    if match is None:
        raise _malformed(text, "is not name:dtype[sizes]")
    name, dtype, sizes, high = match.groups()
    if dtype not in _DTYPES:
        raise _malformed(text, f"has none of these dtypes: {', '.join(_DTYPES)}")
    shape = [size.strip() for size in sizes.split(",")] if sizes.strip() else []
    if any(not (size.isidentifier() or size.isdecimal()) for size in shape):
        raise _malformed(text, "has a size that is neither a number, nor `batch`, nor a knob")
    whole = not (_DTYPES[dtype].is_floating_point or _DTYPES[dtype].is_complex)
    bounded = whole and dtype != "bool"
    if bounded and (high is None or int(high) < 1):
        raise _malformed(text, "is of integers and needs an upper bound of at least 1")
    if high is not None and not bounded:
        raise _malformed(text, "has an upper bound, which only integers have")
    return InputSpec(
        name=name or "",
        dtype=_DTYPES[dtype],
        shape=tuple(int(size) if size.isdecimal() else size for size in shape),
        high=int(high) if high is not None else None,
    )


def _malformed(text: str, why: str) -> MufxError:
    return MufxError(error("MUF013", f"--input {text!r} {why}", hint=f"write --input '{_EXAMPLE}'"))


def from_specs(specs: Sequence[InputSpec], forward: Callable[..., object]) -> MakeInputs:
    """Inputs as described: those that name a parameter of `forward` go by keyword, in order.

    Raises:
        MufxError: `MUF013` for each name that `forward` does not have.
    """
    parameters = inspect.signature(forward).parameters
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    unknown = [s.name for s in specs if s.name and s.name not in parameters and not takes_any]
    if unknown:
        raise MufxError(
            *(
                error(
                    "MUF013",
                    f"forward has no parameter {name}: {signature_of(forward)}",
                    hint=f"{did_you_mean(name, parameters)}name a parameter of forward",
                    place=place_of(forward),
                )
                for name in unknown
            )
        )

    def make(batch: int, knobs: Knobs) -> Inputs:
        args = tuple(s.tensor(batch, knobs) for s in specs if not s.name)
        return args, {s.name: s.tensor(batch, knobs) for s in specs if s.name}

    return make


def from_values(given: object, place: Place | None = None) -> MakeInputs:
    """Inputs from a tuple of args, a dict of kwargs, a tensor, or a callable `(batch=2)`.

    A callable may also have parameters of the names of knobs. Values are the same at every size.
    `place` is where they are defined.

    Raises:
        MufxError: `MUF013` for anything else; a callable's errors show when it is called.
    """
    if callable(given) and not isinstance(given, torch.Tensor):
        function = given
        return lambda batch, knobs: _split(_called(function, batch, knobs), place_of(function))
    values = _split(given, place)
    return lambda batch, knobs: values


def at_sizes(function: Callable[..., object], batch: int, knobs: Knobs) -> object:
    """Calls a user's function with the knobs that it names, and the batch size if it takes one."""
    signature = inspect.signature(function)
    given = {name: value for name, value in knobs.items() if _is_named(signature, name)}
    try:
        signature.bind(batch, **given)
    except TypeError:
        return function(**given)
    return function(batch, **given)


def _is_named(signature: inspect.Signature, name: str) -> bool:
    parameter = signature.parameters.get(name)
    by_keyword = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return parameter is not None and parameter.kind in by_keyword


def _called(function: Callable[..., object], batch: int, knobs: Knobs) -> object:
    place = place_of(function)
    with preserved_rng():
        try:
            return at_sizes(function, batch, knobs)
        except Exception as problem:
            raise MufxError(
                error(
                    "MUF013",
                    f"the example inputs raised {described(problem)}",
                    hint="example_inputs(batch=2) returns args, kwargs or one tensor",
                    place=place_in_user_code(problem, Path(place.file).parent) or place,
                )
            ) from problem


def _split(value: object, place: Place | None) -> Inputs:
    if isinstance(value, torch.Tensor):
        return (value,), {}
    if isinstance(value, tuple):
        return cast("tuple[object, ...]", value), {}
    if isinstance(value, Mapping):
        items = cast("Mapping[object, object]", value).items()
        return (), {str(name): item for name, item in items}
    raise MufxError(
        error(
            "MUF013",
            f"the example inputs are a {type(value).__name__}",
            hint="give a tuple of args, a dict of kwargs or one tensor",
            place=place,
        )
    )


def signature_of(forward: Callable[..., object]) -> str:
    """`forward(self, idx, targets=None)`, without annotations."""
    signature = inspect.signature(forward)
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values()]
    shown = signature.replace(parameters=bare, return_annotation=inspect.Signature.empty)
    return f"forward{shown}"
