"""From a request to a finished sweep; `mufx sweep` prints what comes back."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import optuna

from mufx import output
from mufx.discovery import find
from mufx.report import GroupRow, of_conversion
from mufx.source import Source
from mufx.sweep import plot
from mufx.sweep.models import knobs_among
from mufx.sweep.objective import Objective
from mufx.sweep.preparing import Request, prepared
from mufx.sweep.settings import Parametrization, Plan
from mufx.sweep.storage import Storage, open_storage
from mufx.sweep.study import Progress, Result, Study
from mufx.sweep.summary import Summary, summarise
from mufx.sweep.values import written
from mufx.sweep.widths import growing

STUDY = "sweep"
REPORT = "sweep.json"


@dataclass(frozen=True)
class Sweep:
    """A finished sweep, and the groups to train the target with."""

    plan: Plan
    summary: Summary
    width_knob: str
    target: Mapping[str, object]
    groups: tuple[GroupRow, ...]

    def document(self) -> dict[str, object]:
        """Everything as JSON takes it."""
        return {
            "settings": self.plan.settings.document(),
            "seeds": list(self.plan.seeds),
            "draws": self.plan.draws,
            "width": self.width_knob,
            "target": dict(self.target),
            **self.summary.document(),
        }

    @property
    def caption(self) -> str:
        """What a figure has to state."""
        settings = self.plan.settings
        fixed = f", {written(settings.fixed)}" if settings.fixed else ""
        count = len(self.plan.seeds)
        bars = " (bars: their range, without what they differ by at all values)"
        seeds = f"{count} seeds{bars}" if count > 1 else "one seed"
        return (
            f"{settings.model}, {settings.optimizer}{fixed}, {settings.steps} steps of batch "
            f"{settings.batch}, warmup {settings.warmup:g}, {settings.decay} rate; "
            f"{seeds}; cross: diverged; below: the optimum and its standard error where it is "
            "known, an arrow where it may lie beyond"
        )

    def write(self, folder: Path) -> None:
        """Writes sweep.json and the figure, as PNG and SVG, into a folder, which is made.

        Raises:
            MufxError: `MUF015` where the file system refuses.
        """
        text = json.dumps(self.document(), indent=1, sort_keys=True) + "\n"
        output.write_files(folder, {REPORT: text})
        plot.draw(self.summary, self.width_knob, self.caption, folder)


def check_folder(folder: Path) -> None:
    """Whether results can be written to a folder; hours of training come before.

    Raises:
        MufxError: `MUF015` where it is a file or cannot be made.
    """
    output.write_files(folder, {})


@dataclass(frozen=True)
class Worker:
    """One worker of a study: how to run its points, and where they are kept.

    What the user's code prints goes to stderr.
    """

    request: Request
    source: Source
    objective: Objective
    plan: Plan
    storage: Storage
    study: optuna.Study

    @staticmethod
    def of(request: Request, source: Source) -> Worker:
        """The worker that a request asks for.

        Raises:
            MufxError: `MUF75x`, and everything that a conversion refuses.
        """
        with redirect_stdout(sys.stderr):
            objective, plan = prepared(request, source, find(request.spec))
        url = request.study or f"{Path(request.spec.partition(':')[0]).stem}.sweep.db"
        storage = open_storage(url, request.heartbeat)
        study = storage.open(STUDY, plan.settings.document(), request.sampler)
        return Worker(request, source, objective, plan, storage, study)

    def work(self, plan: Plan, progress: Progress) -> list[Result]:
        """Runs the points of a plan that are not done, together with every other worker."""
        with redirect_stdout(sys.stderr):
            return Study(plan, self.study, self.storage).work(self.objective, progress)

    def sweep(self, progress: Progress) -> Sweep:
        """Runs the sweep, then more seeds of what came out best where the request asks for them."""
        results = self.work(self.plan, progress)
        summary = summarise(self.plan, results)
        if self.request.confirm and summary.tuned is not None:
            more = self.plan.at(summary.tuned, range(self.request.confirm), Parametrization.MUP)
            summary = summarise(self.plan, results, self.work(more, progress))
        knob = next(iter(growing(self.source)))
        return Sweep(self.plan, summary, knob, self.source.target, self._groups())

    def _groups(self) -> tuple[GroupRow, ...]:
        """Those of the model at target."""
        fixed = knobs_among(self.plan.settings.fixed, self.request.optimizer)
        with redirect_stdout(sys.stderr):
            target = self.objective.models.conversion(dict(self.source.target), fixed)
        return of_conversion(target.manifest, ()).groups


def swept(request: Request, source: Source, progress: Progress) -> Sweep:
    """Runs a sweep, together with every other worker of its study.

    Raises:
        MufxError: `MUF75x`, and everything that a conversion refuses.
    """
    return Worker.of(request, source).sweep(progress)
