"""From a request to a finished check; `mufx check` prints what comes back."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from functools import partial
from hashlib import sha256
from typing import Final

import numpy as np
import torch

from mufx.api import trace
from mufx.applying import applied, apply
from mufx.check.data import Feed, feed
from mufx.check.predicting import of_converted, of_standard
from mufx.check.slopes import Slope, Verdict, fitted
from mufx.check.storage import Runs
from mufx.check.training import Run, run
from mufx.diagnostics import Diagnostic, MufxError, Place, error
from mufx.discovery import Found
from mufx.optim import param_groups
from mufx.source import BATCH, Source
from mufx.sweep.batches import Loss
from mufx.sweep.models import Made, Models
from mufx.sweep.settings import Parametrization, Point
from mufx.sweep.widths import growing, widths_of

WIDTHS: Final = 4
_AGREES: Final = 0.1
_CLASSES: Final[Mapping[str, Callable[..., torch.optim.Optimizer]]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}
_DEPARTURES: Final = (Verdict.GROWS, Verdict.VANISHES, Verdict.DIVERGED)


class Variant(StrEnum):
    """What is trained: the user's class; the emitted module; the user's class with `mufx.apply`."""

    SP = "sp"
    MUP = "mup"
    APPLIED = "applied"


@dataclass(frozen=True, slots=True)
class Request:
    """A check as it is typed; see the options of `mufx check`."""

    widths: tuple[int, ...] | None = None
    steps: int = 15
    seeds: int = 3
    lr: float = 1e-3
    batch: int = 8
    optimizer: str = "adamw"
    form: str = "table3"
    device: str = "cpu"
    data: str | None = None


@dataclass(frozen=True, slots=True)
class NodeRow:
    """One node of one variant: slopes of its size and its change, and what was predicted."""

    variant: Variant
    node: str
    size: Slope
    change: Slope
    predicted: float | None

    @property
    def verdict(self) -> Verdict:
        """What the slope of the change says by itself."""
        return self.change.verdict

    @property
    def departs(self) -> bool:
        """Whether a μP node does what neither μP nor a folded multiplier would do.

        `mufx.apply` moves factors into parameters, and what those compute then falls on purpose;
        nothing is predicted for it, so only growth counts there.
        """
        judged = self.change.relative_to(self.predicted or 0.0)
        falls = judged is Verdict.VANISHES and self.variant is Variant.APPLIED
        return self.variant is not Variant.SP and judged in _DEPARTURES and not falls

    @property
    def disagrees(self) -> bool:
        """Whether slope and prediction are further apart than 0.1 and what the seeds allow."""
        if self.predicted is None or self.change.value is None:
            return False
        return abs(self.change.value - self.predicted) > _AGREES + 2 * self.change.error


@dataclass(frozen=True)
class Checked:
    """A finished check."""

    model: str
    knob: str
    widths: tuple[int, ...]
    request: Request
    rows: tuple[NodeRow, ...]
    runs: Mapping[Variant, Mapping[int, tuple[Run, ...]]]
    skipped: Mapping[Variant, str]
    synthetic: bool

    def of(self, variant: Variant) -> tuple[NodeRow, ...]:
        """The nodes of one variant."""
        return tuple(row for row in self.rows if row.variant is variant)

    @property
    def departures(self) -> tuple[NodeRow, ...]:
        """The μP nodes that depart; a conversion that is right has none."""
        return tuple(row for row in self.rows if row.departs)

    @property
    def diverged(self) -> tuple[tuple[Variant, int, int, int], ...]:
        """Every run with a loss that was not finite: variant, width, seed, step."""
        return tuple(
            (variant, width, seed, made.diverged)
            for variant, by_width in self.runs.items()
            for width, runs in by_width.items()
            for seed, made in enumerate(runs)
            if made.diverged is not None
        )

    @property
    def passes(self) -> bool:
        """Whether no μP node departs and no μP run diverged."""
        return not self.departures and all(v is Variant.SP for v, *_ in self.diverged)

    def largest(self, variant: Variant) -> float:
        """The largest slope of a change, less its prediction where that is one of μP."""
        return max(self._left(variant), default=0.0)

    def median(self, variant: Variant) -> float:
        """The median size of the same."""
        left = self._left(variant)
        return float(np.median(np.abs(left))) if left else 0.0

    def _left(self, variant: Variant) -> list[float]:
        return [
            row.change.value - (0.0 if variant is Variant.SP else row.predicted or 0.0)
            for row in self.of(variant)
            if row.change.value is not None
        ]

    def document(self) -> dict[str, object]:
        """Everything as JSON takes it."""
        return {
            "model": self.model,
            "width": self.knob,
            "widths": list(self.widths),
            "settings": {**asdict(self.request), "widths": list(self.widths)},
            "synthetic": self.synthetic,
            "passes": self.passes,
            "skipped": {v.value: why for v, why in self.skipped.items()},
            "diverged": [
                {"variant": v.value, "width": w, "seed": s, "step": step}
                for v, w, s, step in self.diverged
            ],
            "nodes": [_record(row) for row in self.rows],
        }


def _record(row: NodeRow) -> dict[str, object]:
    diverged = row.change.diverged
    return {
        "variant": row.variant.value,
        "node": row.node,
        "slope": row.change.value,
        "error": None if diverged else row.change.error,
        "size_slope": row.size.value,
        "predicted": row.predicted,
        "verdict": row.verdict.value,
        "departs": row.departs,
        "disagrees": row.disagrees,
    }


@dataclass
class Experiment:
    """Trains one run of any variant; what `checked` repeats over widths and seeds."""

    models: Models
    feed: Feed
    request: Request

    def __call__(self, variant: Variant, width: int, seed: int) -> Run:
        """One run: the seed gives the init, and then the batches."""
        model, optimizer = self._made(variant, width, seed)
        device = self.models.device
        first, *rest = self.feed.batches(seed, self.request.steps + 1, device)
        args, kwargs = first
        probe = args[: self.feed.loss.positional], kwargs
        return run(model, optimizer, self.feed.loss, rest, probe, seed)

    def _made(self, variant: Variant, width: int, seed: int) -> Made:
        values = {"lr": self.request.lr}
        if variant is not Variant.APPLIED:
            return self.models.made(Point(Parametrization(variant), width, seed), values)
        manifest = self.models.conversion(self.models.widths[width]).manifest
        plain, _ = self.models.made(Point(Parametrization.SP, width, seed), values)
        groups = param_groups(plain, apply(plain, manifest), lr=self.request.lr, weight_decay=0.0)
        return plain, _CLASSES[self.request.optimizer](groups)


Progress = Callable[[Variant, int, int, Run], None]


def prepared(request: Request, source: Source, found: Found) -> Experiment:
    """Every width converted, so that it is known to, and data of every step at hand.

    Raises:
        MufxError: `MUF76x` for what is wrong with the request, `MUF752` for widths at which a
            knob is not whole, `MUF753` to `MUF755` for the data, and all a conversion refuses.
    """
    place = found.factory.place
    widths = widths_of(source, request.widths, place)
    if len(widths) < WIDTHS:
        raise MufxError(_too_few(list(widths), place))
    _check_base(source, list(widths), place)
    models = Models(source, widths, request.optimizer, request.form, device_of(request.device))
    for knobs in widths.values():
        models.conversion(knobs)
    loss = Loss(len(source.inputs(BATCH)[0]), place)
    fed = feed(source, found.module, request.data, request.batch, loss)
    fed.batches(0, request.steps + 1, torch.device("cpu"))
    return Experiment(models, fed, request)


def checked(
    experiment: Experiment, runs: Callable[[str], Runs], progress: Progress = lambda *_: None
) -> Checked:
    """Trains every variant at every width with every seed, and fits the slopes."""
    models, request = experiment.models, experiment.request
    kept = runs(digest(experiment))
    widths = tuple(models.widths)
    widest = models.conversion(models.widths[widths[-1]])
    skipped = _skipped(experiment)
    done: dict[Variant, dict[int, tuple[Run, ...]]] = {}
    for variant in (v for v in Variant if v not in skipped):
        for width in widths:
            for seed in range(request.seeds):
                make = partial(experiment, variant, width, seed)
                made = kept.get(variant, width, seed, make)
                progress(variant, width, seed, made)
                done.setdefault(variant, {}).setdefault(width, ())
                done[variant][width] = (*done[variant][width], made)
    knob = next(iter(growing(models.source)))
    m = widths[-1] / float(str(models.source.base[knob]))
    original = trace(widest.program.source, optimizer=request.optimizer, form=request.form)
    predicted = {
        Variant.SP: of_standard(widest.program, original, m),
        Variant.MUP: of_converted(widest.program, m),
        Variant.APPLIED: {},
    }
    rows = tuple(row for v, by in done.items() for row in _rows(v, by, predicted[v]))
    name, synthetic = models.source.name, experiment.feed.data is None
    return Checked(name, knob, widths, request, rows, done, skipped, synthetic)


def _rows(
    variant: Variant, runs: Mapping[int, tuple[Run, ...]], predicted: Mapping[str, float]
) -> list[NodeRow]:
    sizes = fitted({w: [r.sizes for r in made] for w, made in runs.items()})
    changes = fitted({w: [r.changes for r in made] for w, made in runs.items()})
    return [
        NodeRow(variant, node, sizes[node], change, predicted.get(node))
        for node, change in changes.items()
    ]


def _skipped(experiment: Experiment) -> dict[Variant, str]:
    """`apply` where the correction of some width fits into no parameter."""
    models = experiment.models
    try:
        for knobs in models.widths.values():
            applied(models.conversion(knobs).manifest)
    except MufxError as problem:
        return {Variant.APPLIED: problem.diagnostics[0].message}
    return {}


def digest(experiment: Experiment) -> str:
    """Of everything that makes runs comparable: the source, what was decided, data, settings."""
    models, request = experiment.models, replace(experiment.request, widths=None, seeds=0)
    texts = [models.conversion(k).files() for k in models.widths.values()]
    data = experiment.feed.data.digest if experiment.feed.data is not None else None
    parts = [models.source.digest, dict(models.source.base), asdict(request), data]
    decided = [sorted(files.values()) for files in texts]
    return sha256(json.dumps([parts, decided], default=repr).encode()).hexdigest()


def device_of(name: str) -> torch.device:
    """A device that is there.

    Raises:
        MufxError: `MUF761`.
    """
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as problem:
        what = f"--device {name}: {str(problem).splitlines()[0]}"
        raise MufxError(error("MUF761", what, hint="write --device cpu or --device cuda")) from None
    return device


def parsed(widths: str | None) -> tuple[int, ...] | None:
    """Widths as they are typed.

    Raises:
        MufxError: `MUF761` for what is no list of positive integers.
    """
    if widths is None:
        return None
    parts = [part.strip() for part in widths.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        what, hint = f"--widths {widths} is no list of widths", "write --widths 64,128,256,512"
        raise MufxError(error("MUF761", what, hint=hint))
    return tuple(int(part) for part in parts)


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


def _too_few(widths: list[int], place: Place) -> Diagnostic:
    return error(
        "MUF760",
        f"{len(widths)} widths ({', '.join(map(str, widths))}) give no slope with an uncertainty",
        hint=f"give at least {WIDTHS}: --widths 64,128,256,512",
        place=place,
    )
