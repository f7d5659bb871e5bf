"""Adapters: models of a library, named by a scheme, as `hf:llama` is one of `transformers`.

An adapter is a function from what follows the colon to an `Adapted`. A package adds its own as an
entry point of the group `mufx.adapters`, whose name is the scheme:

    [project.entry-points."mufx.adapters"]
    mylib = "mylib.mufx:adapt"
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import cast

from mufx.diagnostics import MufxError, error
from mufx.factory import Factory
from mufx.inputs import Inputs, MakeInputs
from mufx.loading import described, preserved_rng

ModelInputs = Callable[[Mapping[str, object], int], Mapping[str, object]]
"""Example inputs of forward, by name, from the knobs and a batch size; CPU tensors."""


@dataclass(frozen=True, slots=True)
class Adapted:
    """A model of a library: how to build it from knobs, inputs that fit, and where it is from."""

    factory: Factory
    inputs: ModelInputs
    module: ModuleType


Adapter = Callable[[str], Adapted]

_OURS = {"hf": "mufx.adapters.huggingface:adapt"}
_GROUP = "mufx.adapters"


def adapted(spec: str) -> Adapted | None:
    """The model of `scheme:rest`; None where no adapter has the scheme.

    Raises:
        MufxError: What the adapter refuses; `MUF017` where it cannot be loaded, raises something
            else, or returns no `Adapted`.
    """
    scheme, colon, rest = spec.partition(":")
    where = _schemes().get(scheme) if colon else None
    return None if where is None else _called(_loaded(scheme, where), rest, f"{scheme}: is {where}")


def example_inputs(spec: str, found: Adapted) -> MakeInputs:
    """The example inputs that an adapter makes.

    They raise `MUF013` where the adapter has none that fit.
    """

    def make(batch: int, knobs: Mapping[str, object]) -> Inputs:
        try:
            with preserved_rng():
                return (), dict(found.inputs(dict(knobs), batch))
        except Exception as problem:
            raise MufxError(
                error(
                    "MUF013",
                    f"there are no example inputs for {spec}: its adapter raised "
                    f"{described(problem)}",
                    hint="describe each input: --input 'input_ids:int64[2,16]<100'",
                    place=found.factory.place,
                )
            ) from problem

    return make


def _schemes() -> dict[str, str]:
    """Where the adapter of each scheme is; ours cannot be replaced."""
    return {point.name: point.value for point in entry_points(group=_GROUP)} | _OURS


def _loaded(scheme: str, where: str) -> Adapter:
    try:
        return cast("Adapter", EntryPoint(scheme, where, _GROUP).load())
    except Exception as problem:
        raise _unusable(f"{scheme}: is {where}", f"cannot be imported: {problem}") from problem


def _called(adapter: Adapter, rest: str, what: str) -> Adapted:
    try:
        made = cast("object", adapter(rest))
    except MufxError:
        raise
    except Exception as problem:
        raise _unusable(what, f"raised on {rest!r}: {described(problem)}") from problem
    if not isinstance(made, Adapted):
        raise _unusable(what, f"returns a {type(made).__name__}, not an Adapted")
    return made


def _unusable(what: str, why: str) -> MufxError:
    return MufxError(
        error(
            "MUF017",
            f"the adapter of {what}, which {why}",
            hint="mend or remove the package that registers it",
        )
    )
