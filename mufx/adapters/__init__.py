"""Adapters: models of a library, named by a scheme, as `hf:llama` is one of `transformers`.

An adapter is a function from what follows the colon to an `Adapted`. A package adds its own as an
entry point of the group `mufx.adapters`, whose name is the scheme:

    [project.entry-points."mufx.adapters"]
    mylib = "mylib.mufx:adapt"
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from types import ModuleType
from typing import cast

from mufx.diagnostics import MufxError, error
from mufx.factory import Factory

ModelInputs = Callable[[Mapping[str, object], int], Mapping[str, object]]
"""Example inputs of forward, by name, from the knobs at base and a batch size; CPU tensors."""


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
        MufxError: `MUF017` where the adapter cannot be loaded, and what the adapter raises.
    """
    scheme, colon, rest = spec.partition(":")
    where = _schemes().get(scheme) if colon else None
    return None if where is None else _loaded(scheme, where)(rest)


def _schemes() -> dict[str, str]:
    """Where the adapter of each scheme is; ours cannot be replaced."""
    return {point.name: point.value for point in entry_points(group=_GROUP)} | _OURS


def _loaded(scheme: str, where: str) -> Adapter:
    module, _, attribute = where.partition(":")
    try:
        return cast("Adapter", getattr(import_module(module), attribute))
    except (ImportError, AttributeError) as problem:
        raise MufxError(
            error(
                "MUF017",
                f"the adapter of {scheme}: is {where}, which cannot be imported: {problem}",
                hint="mend or remove the package that registers it",
            )
        ) from problem
