"""Classes of one instance against two sizes of it, on all models of the zoo."""

from __future__ import annotations

import pytest
import torch

from tests.agreement import Pair, disagreements
from tests.zoo.specs import SPECS, Spec

pytestmark = pytest.mark.zoo

RECORDED = [spec for spec in SPECS if spec.refused is None]


@pytest.mark.parametrize("spec", RECORDED, ids=lambda spec: spec.name)
def test_classes_and_two_sizes_agree(spec: Spec) -> None:
    source = spec.source()
    with torch.device("meta"):
        base, target = (source.build(**knobs) for knobs in (source.base, source.target))
    wrong, count = disagreements(Pair(base, target, source.inputs(2, source.base)))
    assert not wrong, f"{len(wrong)} nodes, {count} axes"
    assert count > 100
