"""From a request to a finished check; `mufx check` prints what comes back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

from mufx.api import trace
from mufx.applying import applied
from mufx.check.designing import by_design
from mufx.check.experiment import Experiment, digest, planned
from mufx.check.predicting import Prediction
from mufx.check.request import Request, Variant
from mufx.check.result import Checked, NodeRow, Part
from mufx.check.slopes import Slope, fitted
from mufx.check.storage import Runs
from mufx.check.training import Run
from mufx.diagnostics import MufxError
from mufx.source import Source
from mufx.sweep.batches import Data
from mufx.sweep.widths import growing

Progress = Callable[[Variant, int, int, Run], None]
Trained = Mapping[Variant, Mapping[int, tuple[Run, ...]]]


def silent(*_: object) -> None:
    """Tells nobody."""


def check_source(source: Source, request: Request, data: Data | None = None) -> Checked:
    """The check of a source from Python, kept in memory only.

        checked = check_source(mufx.load("model.py"), Request(widths=(64, 128, 256, 512)))
        assert checked.passes

    Args:
        source: What `mufx.load` or `mufx.from_callable` returns.
        request: Widths, steps, seeds, rate and optimizer.
        data: Batches; None for one batch of example inputs with random targets.

    Raises:
        MufxError: see `mufx.check.experiment.planned`.
    """
    return checked(planned(source, request, data), partial(Runs, None))


def checked(
    experiment: Experiment, runs: Callable[[str], Runs], progress: Progress = silent
) -> Checked:
    """Trains every variant at every width with every seed, and fits the slopes."""
    models, request = experiment.models, experiment.request
    skipped = _skipped(experiment)
    variants = [v for v in request.variants if v not in skipped]
    kept = {width: runs(digest(experiment, width)) for width in models.widths}
    done = _trained(experiment, variants, kept, progress)
    told = _predictions(experiment)
    rows = tuple(row for v, by_width in done.items() for row in _rows(v, by_width, told[v]))
    name, knob, synthetic = models.source.name, _knob(models.source), experiment.feed.data is None
    return Checked(name, knob, tuple(models.widths), request, rows, done, skipped, synthetic)


def _trained(
    experiment: Experiment,
    variants: Iterable[Variant],
    kept: Mapping[int, Runs],
    progress: Progress,
) -> Trained:
    done: dict[Variant, dict[int, tuple[Run, ...]]] = {}
    for variant in variants:
        done[variant] = {}
        for width in experiment.models.widths:
            for seed in range(experiment.request.seeds):
                make = partial(experiment, variant, width, seed)
                made = kept[width].get(variant, width, seed, make)
                progress(variant, width, seed, made)
                done[variant][width] = (*done[variant].get(width, ()), made)
    return done


@dataclass(frozen=True)
class Told:
    """What is known beforehand, by node: exponents in the width.

    Attributes:
        design: Of all change, by design.
        first: Of the change in a first step.
        starts: Of the size before it, where that is known exactly.
        inputs: Of the smallest activation that a parameter meets there.
    """

    design: Mapping[str, float] = field(default_factory=dict[str, float])
    first: Mapping[str, float] = field(default_factory=dict[str, float])
    starts: Mapping[str, float] = field(default_factory=dict[str, float])
    inputs: Mapping[str, float] = field(default_factory=dict[str, float])


def _predictions(experiment: Experiment) -> dict[Variant, Told]:
    """By variant: what is known beforehand, from base to the largest width."""
    models, request = experiment.models, experiment.request
    width, knobs = max(models.widths.items())
    program = models.conversion(knobs).program
    m = width / float(str(models.source.base[_knob(models.source)]))
    original = trace(program.source, optimizer=request.optimizer, form=request.form)
    standard = Prediction(program, original.train, converted=False, batch=request.batch)
    converted = Prediction(program, program.train, converted=True, batch=request.batch)
    design = by_design(program, m)
    return {
        Variant.SP: Told(first=standard.exponents(m)),
        Variant.MUP: Told(design, converted.exponents(m), *converted.starts(m, design)),
        Variant.APPLIED: Told(),
    }


def _knob(source: Source) -> str:
    return next(iter(growing(source)))


def _rows(variant: Variant, runs: Mapping[int, tuple[Run, ...]], told: Told) -> list[NodeRow]:
    firsts = fitted({w: [r.first for r in made] for w, made in runs.items()})
    starts = fitted({w: [r.starts for r in made] for w, made in runs.items()})
    sizes = fitted({w: [r.sizes for r in made] for w, made in runs.items()})
    changes = fitted({w: [r.changes for r in made] for w, made in runs.items()})
    parts = _parts(runs, told)
    return [
        NodeRow(
            variant,
            node,
            starts[node],
            sizes[node],
            change,
            told.design.get(node, 0.0),
            firsts.get(node, Slope(None)),
            told.first.get(node),
            told.starts.get(node),
            parts.get(node, ()),
        )
        for node, change in changes.items()
    ]


def _parts(runs: Mapping[int, tuple[Run, ...]], told: Told) -> dict[str, tuple[Part, ...]]:
    found: dict[str, tuple[Part, ...]] = {}
    slopes = fitted({w: [r.own for r in made] for w, made in runs.items()})
    for key, slope in slopes.items():
        node, _, parameter = key.rpartition(" ")
        if node in told.inputs:
            expected = told.design.get(node, 0.0) + min(0.0, told.inputs[node])
            found[node] = (*found.get(node, ()), Part(parameter, slope, expected))
    return found


def _skipped(experiment: Experiment) -> dict[Variant, str]:
    """`apply` where the correction of some width fits into no parameter."""
    models = experiment.models
    if Variant.APPLIED not in experiment.request.variants:
        return {}
    try:
        for knobs in models.widths.values():
            applied(models.conversion(knobs).manifest)
    except MufxError as problem:
        return {Variant.APPLIED: problem.diagnostics[0].message}
    return {}
