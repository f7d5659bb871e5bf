"""`mufx.apply` over the zoo: the original with the factors in its weights is the emitted module."""

from __future__ import annotations

import pytest
import torch

from mufx.api import convert_source
from tests.zoo.specs import SPECS, Spec
from tests.zoo.test_zoo import outputs

pytestmark = [
    pytest.mark.zoo,
    pytest.mark.filterwarnings("ignore::Warning:transformers.*", "ignore::FutureWarning"),
]

# A tied readout after a gain of 1 + weight; queries and keys that such gains follow.
REFUSED = {"gemma", "gemma2", "gemma3_text"}


@pytest.mark.parametrize("spec", [s for s in SPECS if s.refused is None], ids=lambda s: s.name)
def test_the_original_with_rescaled_weights_is_the_emitted_module(spec: Spec) -> None:
    conversion = convert_source(spec.source())
    manifest = conversion.manifest
    assert bool(manifest.unabsorbed) == (spec.name in REFUSED)
    if manifest.unabsorbed:
        return
    own, emitted = spec.build(at_target=True), conversion.module()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in own.named_parameters():
            value = emitted.get_parameter(name)
            value.add_(torch.randn(value.shape, generator=generator) * 0.05)
            parameter.copy_(value * manifest.parameters[name].absorbed)
    inputs = spec.example(3)
    for training in (True, False):
        got = outputs(own.train(training), inputs)
        wanted = outputs(emitted.train(training), inputs)
        for one, other in zip(got, wanted, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4, equal_nan=True)
