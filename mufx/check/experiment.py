"""What a check trains: a model of any variant at any width, and its batches."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from hashlib import sha256
from typing import Final

import torch

from mufx.api import Conversion, convert_source
from mufx.applying import apply
from mufx.check.data import Feed, feed
from mufx.check.request import Request, Variant
from mufx.check.training import Run, first_step, run
from mufx.check.widths import check_widths
from mufx.devices import device_of
from mufx.diagnostics import MufxError, Place, error
from mufx.discovery import Found
from mufx.factory import place_of
from mufx.optim import param_groups
from mufx.source import BATCH, Source
from mufx.sweep.batches import Data, Loss, data_of, load_data
from mufx.sweep.models import Made, Models
from mufx.sweep.settings import Parametrization, Point
from mufx.sweep.widths import Knobs, growing

_CLASSES: Final[Mapping[str, Callable[..., torch.optim.Optimizer]]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}


@dataclass
class Experiment:
    """Trains one run of any variant; what `checked` repeats over widths and seeds."""

    models: Models
    feed: Feed
    request: Request

    def __call__(self, variant: Variant, width: int, seed: int) -> Run:
        """One run: the seed gives the init, and then the batches."""
        device = self.models.device
        knobs = self.models.widths[width]
        first, *rest = self.feed.batches(seed, self.request.steps + 1, device, knobs)
        loss = self.feed.loss
        probe = loss.arguments(first)
        small, own = first_step(*self._made(variant, width, seed), loss, first, probe, seed)
        done = run(*self._made(variant, width, seed), loss, rest, probe, seed)
        return replace(done, first=small, own=own)

    def _made(self, variant: Variant, width: int, seed: int) -> Made:
        values = {"lr": self.request.lr}
        if variant is not Variant.APPLIED:
            return self.models.made(Point(Parametrization(variant), width, seed), values)
        manifest = self.models.conversion(self.models.widths[width]).manifest
        plain, _ = self.models.made(Point(Parametrization.SP, width, seed), values)
        groups = param_groups(plain, apply(plain, manifest), lr=self.request.lr, weight_decay=0.0)
        return plain, _CLASSES[self.request.optimizer](groups)


def prepared(request: Request, source: Source, found: Found) -> Experiment:
    """What a request from the command line asks for: data is `--data`, else `data` of the file.

    Raises:
        MufxError: see `planned`.
    """
    data = None
    if request.data is not None:
        data = load_data(request.data)
    elif callable(vars(found.module).get("data")):
        data = data_of(found.module)
    return planned(source, request, data, found.factory.place)


def planned(
    source: Source,
    request: Request,
    data: Data | None = None,
    place: Place | None = None,
    convert: Callable[..., Conversion] = convert_source,
) -> Experiment:
    """Every width converted, so that it is known to, and data of every step at hand.

    Raises:
        MufxError: `MUF76x` for what is wrong with the request, `MUF752` for widths at which a
            knob is not whole, `MUF753` to `MUF755` for the data, and all a conversion refuses.
    """
    _check_rate(request.lr)
    place = place or place_of(source.build)
    device = device_of(request.device, "MUF761")
    models = Models(source, {}, request.optimizer, request.form, device, convert)
    if request.widths is None and growing(source):
        models.conversion(dict(source.target))
    models.widths = check_widths(source, request.widths, partial(_fits, models), place)
    _check_base(source, list(models.widths), place)
    for width, knobs in models.widths.items():
        _check_width(models, width, knobs, place)
    loss = Loss.of(source.inputs(BATCH, source.base), place)
    fed = feed(source, data, request.batch, loss)
    if fed.classes is not None:
        _check_classes(models.conversion(models.widths[max(models.widths)]), place)
    fed.batches(0, request.steps + 1, torch.device("cpu"), source.base)
    return Experiment(models, fed, request)


def _check_classes(conversion: Conversion, place: Place) -> None:
    """Random targets are classes of the last axis: with more of them the task is another one."""
    trace = conversion.program.train
    axes = trace.axes[trace.graph.output_node().all_input_nodes[0].name]
    if axes[-1].grows:
        base, target = axes[-1].base, axes[-1].target
        raise MufxError(
            error(
                "MUF755",
                f"forward returns no loss, and its output is as wide as the model ({base} to "
                f"{target} numbers), so a loss made of it is another task at every width",
                hint="check a model with its readout, or let forward return a loss",
                place=place,
            )
        )


def digest(experiment: Experiment, width: int) -> str:
    """Of all that makes runs at one width comparable: source, what was decided, data, settings.

    The other widths are not in it: one more leaves the runs at those that were there.
    """
    models, request = (
        experiment.models,
        replace(experiment.request, widths=None, seeds=0, variants=()),
    )
    files = models.conversion(models.widths[width]).files().values()
    decided = sorted(text for text in files if isinstance(text, str))  # tables are the source's
    data = experiment.feed.data.digest if experiment.feed.data is not None else None
    parts = [models.source.digest, dict(models.source.base), asdict(request), data]
    return sha256(json.dumps([parts, decided], default=repr).encode()).hexdigest()


def _check_rate(lr: float) -> None:
    if not 0 < lr < math.inf:
        hint = "give the rate that is trained with at base width: --lr 1e-3"
        raise MufxError(error("MUF761", f"--lr {lr:g} trains nothing", hint=hint))


def _check_base(source: Source, widths: list[int], place: Place) -> None:
    knob = next(iter(growing(source)))
    base = float(str(source.base[knob]))
    if widths[-1] <= base:
        raise MufxError(
            error(
                "MUF760",
                f"no width is above the base, {knob}={base:g}: μP and SP are the same there",
                hint=f"give --widths from {base:g} up, or a smaller --base",
                place=place,
            )
        )


def _fits(models: Models, knobs: Knobs) -> bool:
    try:
        models.conversion(knobs)
    except MufxError:
        return False
    return True


def _check_width(models: Models, width: int, knobs: Knobs, place: Place) -> None:
    """A width that the model does not take is the width's fault where target converts."""
    try:
        models.conversion(knobs)
    except MufxError as problem:
        if not _fits(models, dict(models.source.target)):
            raise
        said = ", ".join(f"{name}={knobs[name]}" for name in growing(models.source))
        why = problem.diagnostics[0].message
        hint = "leave out --widths, or name widths at which the model can be built"
        what = f"width {width} is no size of the model: at {said}, {why}"
        raise MufxError(error("MUF760", what, hint=hint, place=place)) from None
