"""From a request to a finished sweep; `mufx sweep` prints what comes back."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from mufx import output
from mufx.discovery import find
from mufx.report import GroupRow, of_conversion
from mufx.source import Source
from mufx.sweep import plot
from mufx.sweep.models import knobs_among
from mufx.sweep.objective import Objective
from mufx.sweep.preparing import Request, prepared
from mufx.sweep.settings import Plan
from mufx.sweep.storage import open_storage
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
        seeds = f"{count} seeds (bars: their range)" if count > 1 else "one seed"
        return (
            f"{settings.model}, {settings.optimizer}{fixed}, {settings.steps} steps of batch "
            f"{settings.batch}, warmup {settings.warmup:g}, {settings.decay} rate; "
            f"{seeds}; star: optimum; cross: diverged"
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


def swept(request: Request, source: Source, progress: Progress) -> Sweep:
    """Runs a sweep, together with every other worker of its study.

    What the user's code prints goes to stderr.

    Raises:
        MufxError: `MUF75x`, and everything that a conversion refuses.
    """
    with redirect_stdout(sys.stderr):
        objective, plan = prepared(request, source, find(request.spec))
        results = _worked(request, objective, plan, progress)
        fixed = knobs_among(plan.settings.fixed, request.optimizer)
        target = objective.models.conversion(dict(source.target), fixed)
    groups = of_conversion(target.manifest, ()).groups
    knob = next(iter(growing(source)))
    return Sweep(plan, summarise(plan, results), knob, source.target, groups)


def _worked(request: Request, objective: Objective, plan: Plan, progress: Progress) -> list[Result]:
    url = request.study or f"{Path(request.spec.partition(':')[0]).stem}.sweep.db"
    storage = open_storage(url, request.heartbeat)
    study = storage.open(STUDY, plan.settings.document(), request.sampler)
    return Study(plan, study, storage).work(objective, progress)
