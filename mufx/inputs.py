"""Example inputs: from a user's function or values, or described on the command line."""

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
from mufx.knobs import did_you_mean
from mufx.loading import described, place_in_user_code, preserved_rng

Inputs = tuple[tuple[object, ...], dict[str, object]]
MakeInputs = Callable[[int], Inputs]

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


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One described tensor: `name:dtype[sizes]<high`; a size of None is the batch size."""

    name: str  # "" for a positional one
    dtype: torch.dtype
    shape: tuple[int | None, ...]
    high: int | None = None

    def __str__(self) -> str:
        """The description, as `parse_input` reads it."""
        sizes = ",".join("batch" if size is None else str(size) for size in self.shape)
        name = f"{self.name}:" if self.name else ""
        high = f"<{self.high}" if self.high is not None else ""
        return f"{name}{str(self.dtype).removeprefix('torch.')}[{sizes}]{high}"

    def tensor(self, batch: int) -> torch.Tensor:
        """A CPU tensor: integers below `high`, standard normal floats, or all True."""
        shape = [batch if size is None else size for size in self.shape]
        generator = torch.Generator().manual_seed(0)
        if self.dtype is torch.bool:
            return torch.ones(shape, dtype=torch.bool)
        if self.high is not None:
            return torch.randint(self.high, shape, generator=generator, dtype=self.dtype)
        return torch.randn(shape, generator=generator, dtype=self.dtype)


def parse_input(text: str) -> InputSpec:
    """Reads `idx:int64[2,16]<50257`; the size `batch` stands for the batch size.

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
    if any(not (size == "batch" or size.isdecimal()) for size in shape):
        raise _malformed(text, "has a size that is neither a number nor `batch`")
    whole = not (_DTYPES[dtype].is_floating_point or _DTYPES[dtype].is_complex)
    bounded = whole and dtype != "bool"
    if bounded and (high is None or int(high) < 1):
        raise _malformed(text, "is of integers and needs an upper bound of at least 1")
    if high is not None and not bounded:
        raise _malformed(text, "has an upper bound, which only integers have")
    return InputSpec(
        name=name or "",
        dtype=_DTYPES[dtype],
        shape=tuple(None if size == "batch" else int(size) for size in shape),
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

    def make(batch: int) -> Inputs:
        args = tuple(s.tensor(batch) for s in specs if not s.name)
        return args, {s.name: s.tensor(batch) for s in specs if s.name}

    return make


def from_values(given: object, place: Place | None = None) -> MakeInputs:
    """Inputs from a tuple of args, a dict of kwargs, a tensor, or a callable `(batch=2)`.

    Values are the same at every batch size. `place` is where they are defined.

    Raises:
        MufxError: `MUF013` for anything else; a callable's errors show when it is called.
    """
    if callable(given) and not isinstance(given, torch.Tensor):
        function = given
        return lambda batch: _split(_called(function, batch), place_of(function))
    values = _split(given, place)
    return lambda batch: values


def _called(function: Callable[..., object], batch: int) -> object:
    place = place_of(function)
    with preserved_rng():
        try:
            return function(batch) if _takes_batch(function) else function()
        except Exception as problem:
            raise MufxError(
                error(
                    "MUF013",
                    f"the example inputs raised {described(problem)}",
                    hint="example_inputs(batch=2) returns args, kwargs or one tensor",
                    place=place_in_user_code(problem, Path(place.file).parent) or place,
                )
            ) from problem


def _takes_batch(function: Callable[..., object]) -> bool:
    try:
        inspect.signature(function).bind(1)
    except TypeError:
        return False
    return True


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
