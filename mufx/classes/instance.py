"""One instance of a model, from a specification: an `nn.Module` of a file, or a model built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from torch import nn

from mufx.adapters import adapted, example_inputs
from mufx.building import build
from mufx.construction import record_construction
from mufx.diagnostics import MufxError, Place, error, raise_errors
from mufx.discovery import find
from mufx.factory import Factory
from mufx.inputs import (
    Inputs,
    InputSpec,
    MakeInputs,
    from_specs,
    from_values,
    signature_of,
)
from mufx.knobs import check_values
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
    the file's `target`, or as its constructor has it; buffers get their values. A model of a
    scheme, as `hf:llama`, is built with `knobs`, or as its configuration has it.

    Raises:
        MufxError: `MUF0xx`, located.
    """
    loaded = _adapted(spec, knobs) or _live(spec) or _built(spec, knobs)
    forward = type(loaded.model).forward
    if specs:
        make = from_specs(specs, forward)
    elif loaded.inputs is not None:
        make = loaded.inputs
    else:
        raise MufxError(
            error(
                "MUF012",
                f"nothing says what to call {signature_of(forward)} with",
                hint="define example_inputs(batch=2) in the file, or describe each input: "
                "--input 'idx:int64[2,16]<50257'",
                place=Place(loaded.file, 1),
            )
        )
    return Instance(loaded.model, make(batch, loaded.knobs), spec)


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A model, its knobs, the inputs that come with it, and the file that it is from."""

    model: nn.Module
    knobs: Mapping[str, object]
    inputs: MakeInputs | None
    file: str


def _adapted(spec: str, knobs: Mapping[str, object] | None) -> _Loaded | None:
    """The model of a scheme, as `hf:llama`."""
    found = adapted(spec)
    if found is None:
        return None
    given = dict(knobs or {})
    raise_errors(check_values(found.factory, "target", given))
    model = _tabled(found.factory, given)
    return _Loaded(model, given, example_inputs(spec, found), str(found.module.__file__))


def _live(spec: str) -> _Loaded | None:
    """The module object that a specification names, if it is one."""
    path, _, attribute = spec.rpartition(":")
    if not path or not attribute.isidentifier():
        return None
    module = import_file(Path(path)) if path.endswith(".py") else import_module(path)
    value = vars(module).get(attribute)
    if not isinstance(value, nn.Module):
        return None
    return _Loaded(value, {}, _inputs(module), str(module.__file__))


def _built(spec: str, knobs: Mapping[str, object] | None) -> _Loaded:
    found = find(spec)
    given = vars(found.module).get("target")
    own = {str(k): v for k, v in given.items()} if isinstance(given, Mapping) else {}
    chosen = knobs if knobs is not None else own
    model = _tabled(found.factory, chosen)
    return _Loaded(model, chosen, _inputs(found.module), str(found.file))


def _inputs(module: ModuleType) -> MakeInputs | None:
    """What the user's file says of example inputs."""
    given: object = vars(module).get("example_inputs")
    return None if given is None else from_values(given, Place(str(module.__file__), 1))


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
