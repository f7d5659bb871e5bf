"""One instance of a model, from a specification: an `nn.Module` of a file, or a model built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from mufx.building import build
from mufx.construction import record_construction
from mufx.diagnostics import MufxError, Place, error
from mufx.discovery import find
from mufx.factory import Factory
from mufx.inputs import Inputs, InputSpec, from_specs, from_values, signature_of
from mufx.loading import import_file, import_module
from mufx.source import BATCH


@dataclass(frozen=True)
class Instance:
    """A model as it is, and example inputs."""

    model: nn.Module
    inputs: Inputs
    spec: str = ""


def load(
    spec: str,
    specs: Sequence[InputSpec] = (),
    batch: int = BATCH,
    knobs: Mapping[str, object] | None = None,
) -> Instance:
    """The instance that a specification names; importing executes the user's file.

    `model.py:net` may be an `nn.Module`. Anything else is built on `meta`, with `knobs`, with
    the file's `target`, or as its constructor has it; buffers get their values.

    Raises:
        MufxError: `MUF0xx`, located.
    """
    model, names, file = _live(spec) or _built(spec, knobs)
    given = names.get("example_inputs")
    if specs:
        make = from_specs(specs, type(model).forward)
    elif given is not None:
        make = from_values(given, Place(file, 1))
    else:
        raise MufxError(
            error(
                "MUF012",
                f"nothing says what to call {signature_of(type(model).forward)} with",
                hint="define example_inputs(batch=2) in the file, or describe each input: "
                "--input 'idx:int64[2,16]<50257'",
                place=Place(file, 1),
            )
        )
    return Instance(model, make(batch), spec)


Loaded = tuple[nn.Module, Mapping[str, object], str]


def _live(spec: str) -> Loaded | None:
    """The module object that a specification names, if it is one."""
    path, _, attribute = spec.rpartition(":")
    if not path or not attribute.isidentifier():
        return None
    module = import_file(Path(path)) if path.endswith(".py") else import_module(path)
    value = vars(module).get(attribute)
    if not isinstance(value, nn.Module):
        return None
    return value, vars(module), str(module.__file__)


def _built(spec: str, knobs: Mapping[str, object] | None) -> Loaded:
    found = find(spec)
    names = vars(found.module)
    given = names.get("target")
    own = {str(k): v for k, v in given.items()} if isinstance(given, Mapping) else {}
    return _tabled(found.factory, knobs if knobs is not None else own), names, str(found.file)


def _tabled(factory: Factory, knobs: Mapping[str, object]) -> nn.Module:
    """A model on `meta` whose buffers have their values."""
    build(factory, knobs)  # whatever is wrong is said best here
    construction = record_construction(lambda: factory.build(**knobs))
    for module_path, module in construction.model.named_modules():
        for key, buffer in module._buffers.items():
            name = f"{module_path}.{key}" if module_path else key
            if buffer is not None and not construction.draws(name):
                module._buffers[key] = construction.value(name)
    return construction.model
