"""Public models: converted at unequal widths, with golden roles."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass, replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mufx.api import Conversion, convert_source
from mufx.diagnostics import MufxError
from mufx.inputs import Inputs
from mufx.recording import Size
from tests.zoo.roles import roles
from tests.zoo.specs import SPECS, Spec

Golden = Callable[[str, str], None]
# What the libraries warn of is theirs.
pytestmark = pytest.mark.filterwarnings("ignore::Warning:transformers.*", "ignore::FutureWarning")

# Images of one size only: where the size is another, the first two interpolate their positions, a
# branch that was not recorded, and the others fail themselves.
ONE_SIZE = frozenset({"dinov2", "dit", "siglip_vision_model", "audio-spectrogram-transformer"})


def each(specs: Iterable[Spec]) -> pytest.MarkDecorator:
    """The fast ones in `make test`, the others in `make zoo`."""
    return pytest.mark.parametrize(
        "spec",
        [
            pytest.param(spec, id=spec.name, marks=[] if spec.fast else [pytest.mark.zoo])
            for spec in specs
        ],
    )


converting = each(spec for spec in SPECS if spec.refused is None)
refused = each(spec for spec in SPECS if spec.refused is not None)


@cache
def at_base(spec: Spec) -> Conversion:
    """The conversion to base width, where the model stays itself."""
    source = spec.source()
    vary = tuple(name for name, value in spec.base.items() if value != spec.target[name])
    return convert_source(replace(source, target=source.base, vary=vary))


def tensors(value: Any) -> list[Tensor]:
    """All tensors of a result, in order."""
    if isinstance(value, Tensor):
        return [value]
    if is_dataclass(value):
        value = [getattr(value, f.name) for f in fields(value)]
    if isinstance(value, Mapping):
        value = list(value.values())
    return [t for item in value or () for t in tensors(item)] if value is not None else []


def doubled(spec: Spec) -> Inputs:
    """Inputs twice as long in all sizes but the batch's that the recording left free."""
    args, kwargs = spec.example(3)
    recording = at_base(spec).program.train.recording
    names = [node.name for node in recording.graph.nodes if node.op == "placeholder"]
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    for name, dim in recording.symbols.values():
        value, tensor = recording.values[name], given[name]
        assert value is not None
        assert isinstance(tensor, Tensor)
        if dim > 0 and isinstance(value.shape[dim], Size):
            given[name] = torch.cat([tensor, tensor], dim)
    return tuple(given[name] for name in names[: len(args)]), {n: given[n] for n in kwargs}


def outputs(model: nn.Module, inputs: Inputs) -> list[Tensor]:
    args, kwargs = inputs
    torch.manual_seed(7)
    return tensors(model(*copy.deepcopy(args), **copy.deepcopy(kwargs)))


@converting
def test_every_parameter_has_the_role_that_was_read(spec: Spec, golden: Golden) -> None:
    golden(f"zoo/{spec.name}.roles.txt", roles(convert_source(spec.source())))


@converting
def test_at_base_the_emitted_model_is_the_original(spec: Spec) -> None:
    torch.manual_seed(3)
    original = spec.build()
    emitted = at_base(spec).module(seed=3)

    assert_same(dict(emitted.state_dict()), dict(original.state_dict()))
    for training in (True, False):
        inputs = spec.example(3)
        got = outputs(emitted.train(training), inputs)
        assert_same(got, outputs(original.train(training), inputs))
    if spec.name not in ONE_SIZE:
        inputs = doubled(spec)
        assert_same(outputs(emitted, inputs), outputs(original, inputs))


def assert_same(got: object, expected: object) -> None:
    torch.testing.assert_close(got, expected, rtol=0, atol=0, equal_nan=True)


@refused
def test_what_cannot_be_converted_is_refused_at_its_place(spec: Spec) -> None:
    with pytest.raises(MufxError) as caught:
        convert_source(spec.source())

    problem = caught.value.diagnostics[0]
    assert problem.code == spec.refused
    assert problem.place is not None
    assert problem.hint
