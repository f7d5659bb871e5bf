"""What a first step changes is known beforehand: prediction and measurement of the examples.

`docs/check-agreement.md` holds all numbers, and `docs/check.md` why some nodes disagree.
"""

from __future__ import annotations

import pytest

from mufx.check.request import Variant
from tests.agreeing import OPTIMIZERS, difference, first_steps
from tests.checks import CASES

# The part of the nodes in standard parametrization that agrees.
AGREE = {"mlp": 0.8, "gpt": 1.0, "llama": 0.75, "resnet": 1.0, "encoder": 1.0}
# The part of those in the maximal update parametrization that does so without its errors.
NEAR = {"mlp": 1.0, "gpt": 0.95, "llama": 0.85, "resnet": 1.0, "encoder": 0.75}


@pytest.mark.zoo
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", CASES)
def test_a_first_step_is_predicted(name: str, optimizer: str) -> None:
    rows = first_steps(CASES[name], optimizer)

    standard = [row for row in rows if row.variant is Variant.SP]
    maximal = [row for row in rows if row.variant is Variant.MUP]
    assert [row.node for row in maximal if row.disagrees] == []
    assert sum(abs(difference(row)) <= 0.1 for row in maximal) >= NEAR[name] * len(maximal)
    assert sum(not row.disagrees for row in standard) >= AGREE[name] * len(standard)
