"""The dynamic check of a row: every output learns random targets of one batch by heart."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import torch
from torch import Tensor, nn

from mufx.check.checking import checked
from mufx.check.data import Feed
from mufx.check.experiment import Experiment
from mufx.check.request import Request, Variant
from mufx.check.result import Checked
from mufx.check.storage import Runs
from mufx.factory import place_of
from mufx.inputs import Inputs
from mufx.recorder import tensors
from mufx.sweep.batches import Loss
from mufx.sweep.models import Models
from mufx.sweep.widths import widths_of
from tests.zoo.falls import explained
from tests.zoo.specs import Spec
from tests.zoo.widening import FACTORS, widened

RESULTS: Final = Path(__file__).parents[2] / "build" / "zoo"
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Distance(Loss):
    """The mean squared distance of all outputs to numbers that were drawn once.

    A hidden state that a model without a head returns is an output as well: its targets stand in
    for a readout, one random number a coordinate.
    """

    def __call__(self, model: nn.Module, batch: Inputs) -> Tensor:
        """The sum over outputs that depend on a parameter."""
        args, kwargs = batch
        found = [t for t in tensors(model(*args, **kwargs)) if t.requires_grad]
        drawn = torch.Generator().manual_seed(17)
        distances = [(t - torch.randn(t.shape, generator=drawn)).square().mean() for t in found]
        return torch.stack(distances).sum()


def measured(spec: Spec) -> Checked:
    """A row in both parametrizations at the widths of `FACTORS`."""
    source = widened(spec)
    place = place_of(source.build)
    widths = widths_of(source, FACTORS, place)
    request = Request(
        widths=FACTORS,
        steps=spec.steps,
        seeds=spec.seeds,
        lr=spec.lr,
        batch=2,
        variants=(Variant.SP, Variant.MUP),
    )
    models = Models(source, widths, request.optimizer, request.form, _CPU)
    loss = Distance(len(source.inputs(request.batch, source.base)[0]), place)
    return checked(
        Experiment(models, Feed(source, None, request.batch, loss), request), partial(Runs, None)
    )


def kept(spec: Spec, found: Checked) -> None:
    """Keeps what the page of coverage says of a check."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    numbers = {
        "largest": found.largest(Variant.MUP),
        "median": found.median(Variant.MUP),
        "standard": found.largest(Variant.SP),
        "falls": [asdict(fall) for fall in explained(found)],
    }
    (RESULTS / f"{spec.name}.json").write_text(json.dumps(numbers), encoding="utf-8")


def results(spec: Spec) -> Mapping[str, Any] | None:
    """The same; None where the check did not run."""
    file = RESULTS / f"{spec.name}.json"
    if not file.is_file():
        return None
    return cast("Mapping[str, Any]", json.loads(file.read_text(encoding="utf-8")))
