"""The database of a study: a local SQLite file, or any URL that Optuna takes."""

from __future__ import annotations

import sqlite3
import time
import warnings
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, TypeVar

import optuna
import sqlalchemy
from optuna.exceptions import ExperimentalWarning, OptunaError, UpdateFinishedTrialError
from optuna.storages import RDBStorage, fail_stale_trials
from optuna.trial import TrialState
from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError

from mufx.diagnostics import Diagnostic, MufxError, error

BEAT: Final = 20  # seconds between two heartbeats of a worker
_MISSED: Final = 3  # heartbeats, after which it is taken for dead
_TRIES: Final = 20  # to open a database that another worker is creating
_SETTINGS: Final = "settings"
_SILENT = sqlalchemy.text(
    "SELECT number FROM trials LEFT JOIN trial_heartbeats USING (trial_id) "
    "WHERE trial_heartbeats.trial_id IS NULL AND state = 'RUNNING' AND study_id = :study"
)

_T = TypeVar("_T")


@dataclass
class Storage:
    """The database, and the watch over workers that died."""

    database: RDBStorage
    beat: int
    _first_seen: dict[int, float] = field(default_factory=dict[int, float])

    def open(self, name: str, settings: Mapping[str, object], sampler: str) -> optuna.Study:
        """The study of a name; made where there is none.

        Raises:
            MufxError: `MUF757` where it holds trials of other settings.
        """
        study = _persistently(
            lambda: optuna.create_study(
                storage=self.database,
                study_name=name,
                sampler=_SAMPLERS[sampler](),
                load_if_exists=True,
            )
        )
        if _SETTINGS not in study.user_attrs:
            study.set_user_attr(_SETTINGS, dict(settings))
        _check_settings(study.user_attrs[_SETTINGS], settings, self.database.url)
        return study

    def release_dead(self, study: optuna.Study) -> None:
        """Fails the trials of workers that were killed.

        Optuna knows those whose heart has stopped. One killed before its first beat is told by
        having none for as long.
        """
        with without_warnings():
            fail_stale_trials(study)
        silent = self._silent(study)
        self._first_seen = {n: self._first_seen.get(n, time.monotonic()) for n in silent}
        for number, since in self._first_seen.items():
            if time.monotonic() - since > self.beat * _MISSED:
                _fail(study, number)

    def _silent(self, study: optuna.Study) -> list[int]:
        number = self.database.get_study_id_from_name(study.study_name)
        with self.database.engine.connect() as connection:
            return [row[0] for row in connection.execute(_SILENT, {"study": number})]


def open_storage(url: str, beat: int = BEAT) -> Storage:
    """The database behind a URL, or in a file: `sweep.db`.

    Raises:
        MufxError: `MUF756` where it cannot be opened.
    """
    if "://" not in url:
        url = f"sqlite:///{url}"
    local = url.startswith("sqlite")

    def opened() -> RDBStorage:
        return RDBStorage(
            url,
            engine_kwargs={"connect_args": {"timeout": 60}} if local else {},
            heartbeat_interval=beat,
            grace_period=beat * _MISSED,
        )

    optuna.logging.set_verbosity(optuna.logging.ERROR)  # the caller shows progress
    try:
        with without_warnings():
            storage = _persistently(opened)
    except (OptunaError, SQLAlchemyError, ImportError, ValueError) as problem:
        raise MufxError(_unusable(url, problem)) from problem
    if local:
        _serialise(storage.engine)
    return Storage(storage, beat)


def _serialise(engine: sqlalchemy.Engine) -> None:
    """Makes SQLite lock a transaction from its beginning.

    A point is taken by reading its state and writing it. SQLite has no SELECT FOR UPDATE, and
    Python's driver begins a transaction only at the first write: two workers could read that a
    point is free, and both take it.
    """
    event.listen(engine, "connect", _begin_by_hand)
    event.listen(engine, "begin", _begin_at_once)
    engine.dispose()


def _begin_by_hand(connection: sqlite3.Connection, _: object) -> None:
    connection.isolation_level = None


def _begin_at_once(connection: sqlalchemy.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _persistently(make: Callable[[], _T]) -> _T:
    """The result, tried again while another worker creates the same tables or the same study."""
    for _ in range(_TRIES):
        try:
            return make()
        except (OptunaError, SQLAlchemyError):
            time.sleep(0.1)
    return make()


def _fail(study: optuna.Study, number: int) -> None:
    try:
        study.tell(number, state=TrialState.FAIL)
    except (UpdateFinishedTrialError, ValueError):
        return  # another worker was faster


@contextmanager
def without_warnings() -> Generator[None]:
    """Keeps Optuna from warning that its heartbeat is experimental."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


_SAMPLERS: Final[Mapping[str, Callable[[], optuna.samplers.BaseSampler]]] = {
    "grid": optuna.samplers.RandomSampler,  # every point of a grid holds its values
    "random": optuna.samplers.RandomSampler,
    "tpe": optuna.samplers.TPESampler,
}


def _check_settings(held: Mapping[str, object], given: Mapping[str, object], url: str) -> None:
    names = sorted(held.keys() | given.keys())
    differing = [n for n in names if held.get(n) != given.get(n)]
    if differing:
        raise MufxError(*(_other(name, held.get(name), given.get(name), url) for name in differing))


def _other(name: str, held: object, given: object, url: str) -> Diagnostic:
    return error(
        "MUF757",
        f"the study in {url} is of another {name}: {_short(held)}, not {_short(given)}",
        hint="its losses cannot be compared with these: name another --study, or run the command "
        "that the study was made with",
    )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 64 - 1 else f"{text[:12]}..."


def _unusable(url: str, problem: Exception) -> Diagnostic:
    return error(
        "MUF756",
        f"no study can be kept in {url}: {str(problem).splitlines()[0]}",
        hint="name a file (--study sweep.db), or a URL that names its driver, once that is there: "
        "pip install 'psycopg[binary]', then --study postgresql+psycopg://user@host/database",
    )
