"""The study: the points and what came of them, in a database that many workers share.

Every point is put into a queue, and a worker takes it from there in one transaction. A worker
that is killed no longer beats, and its point goes back into the queue. Two workers may refill the
queue at once: a point belongs to the lowest of its trials that lives, and the other is dropped.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from mufx.sweep.settings import Plan, Point
from mufx.sweep.storage import Storage, without_warnings
from mufx.sweep.training import Outcome
from mufx.sweep.values import Hyperparameter, Value

_LIVE = (TrialState.WAITING, TrialState.RUNNING, TrialState.COMPLETE)
_POINT, _VALUES, _DIVERGED, _WORKER = "point", "values", "diverged", "worker"

Values = dict[str, Value]
Run = Callable[[Point, Mapping[str, Value]], Outcome]


@dataclass(frozen=True, slots=True)
class Result:
    """A finished point: the values it ran with and its loss, inf where it diverged."""

    point: Point
    values: Mapping[str, Value]
    loss: float
    diverged: int | None = None


Progress = Callable[[Result, int, int], None]


def silent(*_: object) -> None:
    """Tells nobody."""


@dataclass
class Study:
    """A sweep and its database."""

    plan: Plan
    study: optuna.Study
    storage: Storage

    def work(self, run: Run, progress: Progress = silent) -> list[Result]:
        """Runs points until every one of the plan is done, by this worker or by another.

        `run` trains a point that this worker took. `progress` is told the result, and how many
        points are done, of how many. A point whose run raises, here or elsewhere, stays to be
        done: whoever comes next takes it.
        """
        points = self._points
        while True:
            self.storage.release_dead(self.study)
            live = self._live()
            done = [k for k in points if k in live and live[k].state is TrialState.COMPLETE]
            if len(done) == len(points):
                return [_result(live[key]) for key in points]
            self._queue([point for key, point in points.items() if key not in live])
            result = self._next(run)
            if result is not None:
                progress(result, len(done) + 1, len(points))

    @cached_property
    def _points(self) -> dict[str, Point]:
        return {point.key: point for point in self.plan.points()}

    def _next(self, run: Run) -> Result | None:
        """Runs one point of the queue; None where others have taken all of them."""
        if not self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            time.sleep(self.storage.beat / 20)
            return None
        taken: list[FrozenTrial] = []
        with without_warnings():
            self.study.optimize(
                lambda trial: self._take(trial, run),
                n_trials=1,
                callbacks=[lambda _, trial: taken.append(trial)],
            )
        finished = [trial for trial in taken if trial.state is TrialState.COMPLETE]
        return _result(finished[0]) if finished else None

    def _take(self, trial: Trial, run: Run) -> float:
        point = self._points.get(trial.user_attrs.get(_POINT, ""))
        if point is None:  # the queue was empty, or held another plan's: who plans it queues it
            raise optuna.TrialPruned
        if self._live()[point.key].number != trial.number:
            raise optuna.TrialPruned
        values = {h.name: _value(trial, point, h) for h in self.plan.over}
        trial.set_user_attr(_WORKER, f"{socket.gethostname()}:{os.getpid()}")
        trial.set_user_attr(_VALUES, values)
        outcome = run(point, values)
        if outcome.diverged is not None:
            trial.set_user_attr(_DIVERGED, outcome.diverged)
        return outcome.loss

    def _live(self) -> dict[str, FrozenTrial]:
        """By point: the lowest trial that waits, runs or is complete."""
        found: dict[str, FrozenTrial] = {}
        for trial in self.study.get_trials(deepcopy=False, states=_LIVE):
            key = trial.user_attrs.get(_POINT)
            if key is not None:
                found.setdefault(key, trial)
        return found

    def _queue(self, points: Sequence[Point]) -> None:
        for point in points:
            values = {_parameter(point, name): value for name, value in point.values}
            self.study.enqueue_trial(values, user_attrs={_POINT: point.key})


def _value(trial: Trial, point: Point, over: Hyperparameter) -> Value:
    """The point's own value, or one that the sampler draws; the study records either.

    Every line has parameters of its own, so that a sampler learns from the line's trials alone.
    """
    name, numbers = _parameter(point, over.name), over.numbers
    if numbers is None:
        drawn = cast("Value", trial.suggest_categorical(name, list(over.values)))
    else:
        drawn = trial.suggest_float(name, numbers[0], numbers[-1], log=over.geometric)
    return dict(point.values).get(over.name, drawn)


def _parameter(point: Point, name: str) -> str:
    return f"{name} {point.parametrization} {point.width}"


def _result(trial: FrozenTrial) -> Result:
    assert trial.value is not None
    attrs = trial.user_attrs
    point = Point.of_key(attrs[_POINT])
    return Result(point, attrs[_VALUES], trial.value, attrs.get(_DIVERGED))
