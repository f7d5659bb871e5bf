"""The sweep: its grid, its runs, and what it makes of them."""

from __future__ import annotations

import io
import json
import math
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import optuna
import pytest
import torch
from optuna.trial import TrialState
from rich.console import Console
from sqlalchemy import make_url
from typer.testing import CliRunner

from mufx import cli
from mufx.diagnostics import MufxError, Place
from mufx.discovery import find
from mufx.inputs import Inputs
from mufx.loading import import_file
from mufx.report import GroupRow
from mufx.source import load
from mufx.sweep import extra, plot, text
from mufx.sweep.batches import Loss
from mufx.sweep.estimates import Center, center_of, fitted, vertex
from mufx.sweep.neighbours import digest_of
from mufx.sweep.objective import Objective
from mufx.sweep.preparing import Request, prepared
from mufx.sweep.reading import read
from mufx.sweep.settings import Parametrization, Plan, Point
from mufx.sweep.storage import open_storage
from mufx.sweep.study import Result
from mufx.sweep.summary import Rise, Shared, Summary, summarise
from mufx.sweep.sweeping import Sweep, swept
from mufx.sweep.training import Outcome
from mufx.sweep.values import Hyperparameter, Value, parse_over, parse_values, shown
from mufx.sweep.widths import widths_of
from tests.sweeps import bowl, few, opened, plan, run, settings

MODELS = Path(__file__).parent / "models"
MODEL = str(MODELS / "sweepable.py")
GPT = str(Path(__file__).parent.parent / "examples" / "gpt.py")
DOCS = Path(__file__).parent.parent / "docs"
DRIVER = "pip install 'psycopg[binary]'"
SP, MUP = Parametrization.SP, Parametrization.MUP


def request(study: Path | None = None, **changes: Any) -> Request:
    small = Request(MODEL, ("lr=2^-5:2^-4",), steps=4, batch=8, seeds=1, study=str(study))
    return replace(small, **changes)


def made(**changes: Any) -> tuple[Objective, Plan]:
    asked = request(**changes)
    return prepared(asked, load(asked.spec), find(asked.spec))


def refusal(run: Callable[[], object]) -> str:
    with pytest.raises(MufxError) as raised:
        run()
    return str(raised.value)


# -- values and widths --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "values"),
    [
        ("2^-3:2^-1", (0.125, 0.25, 0.5)),
        ("1e-3:1e-1:10", (1e-3, 1e-2, 1e-1)),
        ("0.1, 0", (0, 0.1)),
        ("64,32", (32, 64)),
        ("gelu,relu", ("gelu", "relu")),
        ("True,False", (True, False)),
    ],
)
def test_values_are_read_as_they_are_typed(typed: str, values: tuple[Value, ...]) -> None:
    read = parse_values(typed)

    assert len(read) == len(values)
    assert all(
        a == (pytest.approx(b) if isinstance(b, float) else b)
        for a, b in zip(read, values, strict=True)
    )


@pytest.mark.parametrize("typed", ["lr", "lr=2^-3:2^-4", "lr=1:3", "lr=nan", "lr=[1]", "=1", "lr="])
def test_values_that_cannot_be_read_are_refused(typed: str) -> None:
    said = refusal(lambda: parse_over([typed]))

    assert f"MUF751: --over {typed}" in said
    assert "hint: write --over lr=2^-12:2^-4" in said


def test_a_value_is_shown_as_it_is_typed() -> None:
    assert [shown(v) for v in (2**-7, 0.1, 0, 64, "relu")] == ["2^-7", "0.1", "0", "64", "relu"]


def test_widths_double_from_base_to_target() -> None:
    source = load(MODEL)

    assert widths_of(source, None, find(MODEL).factory.place) == {
        8: {"width": 8},
        16: {"width": 16},
        32: {"width": 32},
    }


def test_other_knobs_grow_along_the_way_to_target() -> None:
    source = load(GPT, {"n_embd": 64, "n_head": 2}, {"n_embd": 256, "n_head": 4})

    assert widths_of(source, [64, 1024], find(GPT).factory.place) == {
        64: {"n_embd": 64, "n_head": 2},
        1024: {"n_embd": 1024, "n_head": 8},
    }


def test_a_width_at_which_a_knob_is_not_whole_is_refused() -> None:
    source = load(GPT, {"n_embd": 64, "n_head": 2}, {"n_embd": 256, "n_head": 4})

    said = refusal(lambda: widths_of(source, [64, 96, 128], find(GPT).factory.place))

    assert f"{GPT}:" in said
    assert "MUF752: n_embd=96 is no size of the model: n_head would be 2.44949" in said
    assert "MUF752: n_embd=128 is no size of the model: n_head would be 2.82843" in said
    assert "hint: growing from base to target: n_embd 64 -> 256, n_head 2 -> 4" in said


def test_a_width_that_the_model_does_not_take_is_refused() -> None:
    small = {"n_head": 2, "n_layer": 1}
    source = load(GPT, {"n_embd": 64, **small}, {"n_embd": 256, **small})
    asked = request(spec=GPT, widths="64,127", data=f"{MODEL}:data")

    said = refusal(lambda: prepared(asked, source, find(GPT)))

    assert "n_embd 127 is not a multiple of 2 heads" in said
    assert f"{GPT}:" in said


def test_one_width_is_too_few() -> None:
    source = load(MODEL)

    said = refusal(lambda: widths_of(source, [16, 16], find(MODEL).factory.place))

    assert "MUF752: width=16 is one width" in said
    assert f"{MODEL}:" in said


def test_an_unknown_hyperparameter_is_refused() -> None:
    said = refusal(lambda: made(over=("weight_decy=1,2", "width=8,16"), fixed="betas=1"))

    assert "MUF751: weight_decy is no setting of adamw and no knob of Classifier" in said
    assert "did you mean weight_decay?" in said
    assert "MUF751: width is no setting" in said
    assert "MUF751: betas is no setting" in said


def test_what_has_to_be_a_number_is_one() -> None:
    said = refusal(lambda: made(over=("gain=low,high", "lr=0.1,fast"), fixed="eps=tiny"))

    assert "MUF751: gain=low,high is no number" in said
    assert "MUF751: lr=0.1,fast is no number" in said
    assert "MUF751: eps=tiny is no number" in said


# -- runs ---------------------------------------------------------------------------------------


def test_at_base_width_both_parametrizations_are_one() -> None:
    objective, _ = made(fixed="weight_decay=0.1,beta2=0.9")

    losses = {p: objective(Point(p, 8, 0), {"lr": 0.03}).loss for p in Parametrization}

    assert losses[SP] == losses[MUP]


def test_a_wide_model_is_trained_with_its_groups() -> None:
    objective, _ = made(optimizer="sgd", fixed="weight_decay=0.1,momentum=0.9")

    _, optimizer = objective.models.made(
        Point(MUP, 32, 0), {"lr": 0.5, "weight_decay": 0.1, "momentum": 0.9}
    )
    found = {(g["lr"], g["weight_decay"], g["momentum"]) for g in optimizer.param_groups}

    assert found == {(2.0, 0.025, 0.9), (0.5, 0.1, 0.9), (0.125, 0.4, 0.9)}


def test_a_knob_of_the_model_is_a_hyperparameter() -> None:
    objective, _ = made(over=("gain=1,2",), optimizer="adamw")

    plain, _ = objective.models.made(Point(SP, 16, 0), {"gain": 2.0})
    converted = objective.models.conversion({"width": 16}, {"gain": 2.0})

    assert plain.gain == 2.0
    assert "* 2.0" in converted.text


def test_a_loss_that_is_not_finite_is_recorded(tmp_path: Path) -> None:
    asked = request(tmp_path / "study.db", data=f"{MODEL}:exploding")

    found = swept(asked, load(MODEL), lambda *_: None)

    assert {o.diverged for o in found.summary.optima} == {2}
    assert {s.losses for samples in found.summary.curves.values() for s in samples} == {(math.inf,)}
    assert '"diverged": 2' in json.dumps(found.document())


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("short", "MUF754: short ended after 3 batches, and 4 steps need 4"),
        ("without_target", "MUF755: forward returns a Tensor without a loss, and a batch holds 1"),
        ("failing", "MUF753: failing raised ValueError: no more files"),
        ("number", "MUF753: number returns a int, not batches"),
    ],
)
def test_batches_that_cannot_be_used_are_refused(name: str, said: str) -> None:
    objective, _ = made(data=f"{MODEL}:{name}")

    refused = refusal(lambda: objective(Point(SP, 8, 0), {"lr": 0.1}))

    assert said in refused
    assert refused.startswith(f"{MODEL}:")
    assert "hint: " in refused


@pytest.mark.parametrize("inputs", [((0,), {}), ((), {"input": 0})])
@pytest.mark.parametrize("named", [False, True])
def test_a_batch_gives_arguments_by_position_whatever_the_example_inputs_do(
    inputs: tuple[tuple[object, ...], dict[str, object]], named: bool
) -> None:
    loss, model = Loss.of(inputs, Place("model.py", 1)), torch.nn.Linear(3, 4)
    x, target = torch.randn(2, 3), torch.tensor([0, 3])
    by_name = named and not inputs[0]
    batch: Inputs = ((target,), {"input": x}) if by_name else ((x, target), {})

    found = loss(model, batch)

    torch.testing.assert_close(found, torch.nn.functional.cross_entropy(model(x), target))
    assert loss.arguments(batch) == (((), {"input": x}) if by_name else ((x,), {}))


@pytest.mark.parametrize(
    ("name", "said"),
    [("meta", "holds no numbers to train"), ("nowhere", "Expected one of cpu, cuda")],
)
def test_a_device_that_cannot_train_is_refused(name: str, said: str) -> None:
    refused = refusal(lambda: made(device=name))

    assert f"MUF751: --device {name}" in refused
    assert said in refused
    assert "hint: write --device cpu or --device cuda" in refused


def test_both_parametrizations_are_built_on_the_device() -> None:
    objective, _ = made()
    models = replace(objective.models, device=torch.device("meta"))

    built = [models.made(Point(p, 32, 0), {"lr": 0.1})[0] for p in Parametrization]

    assert {p.device.type for model in built for p in model.parameters()} == {"meta"}


def test_a_change_in_a_neighbour_is_another_source(tmp_path: Path) -> None:
    """Both are imported: `sizes` from the model, `package.deep` from `sizes`, relatively."""
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("from . import deep\n")
    (tmp_path / "package" / "deep.py").write_text("GAIN = 1.0\n")
    (tmp_path / "sizes.py").write_text("import package\n")
    (tmp_path / "idle.py").write_text("")
    (tmp_path / "model.py").write_text("import torch\nfrom sizes import package\n")

    def digest() -> str:
        return digest_of(import_file(tmp_path / "model.py"))

    first = digest()
    (tmp_path / "idle.py").write_text("GAIN = 2.0\n")
    same = digest()
    (tmp_path / "package" / "deep.py").write_text("GAIN = 2.0\n")

    assert same == first
    assert digest() != first


def test_a_file_without_neighbours_is_its_own_digest() -> None:
    objective, chosen = made()

    assert chosen.settings.source == sha256(Path(MODEL).read_bytes()).hexdigest()
    assert chosen.settings.data == chosen.settings.source == objective.data.digest


def test_a_model_without_batches_is_refused() -> None:
    said = refusal(lambda: made(data=GPT))

    assert said.startswith(f"{GPT}:1: error MUF753: no function data gives the batches")


# -- the study ----------------------------------------------------------------------------------


def results(chosen: Plan) -> list[Result]:
    return [
        Result(point, dict(point.values), bowl(point, dict(point.values)))
        for point in chosen.points()
    ]


WORKER = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from tests.sweeps import few, opened, run

def noted(point, values):
    with open({log!r}, "a") as log:
        print(point.key, file=log, flush=True)
    time.sleep({seconds})
    return run(point, values)

opened(Path({study!r}), few()).work(noted)
"""


def worker(folder: Path, seconds: float) -> subprocess.Popen[bytes]:
    script = WORKER.format(
        tests=str(Path(__file__).parent.parent),
        log=str(folder / "log"),
        study=str(folder / "study.db"),
        seconds=seconds,
    )
    return subprocess.Popen([sys.executable, "-c", script])


def runs(folder: Path) -> Counter[str]:
    """How often each point was begun."""
    log = folder / "log"
    return Counter(log.read_text().splitlines() if log.is_file() else ())


def test_two_workers_share_a_study_and_find_what_one_finds(tmp_path: Path) -> None:
    workers = [worker(tmp_path, 0.0) for _ in range(2)]
    ended = [process.wait(300) for process in workers]

    together = opened(tmp_path / "study.db", few()).work(run)
    alone = opened(tmp_path / "alone.db", few()).work(run)

    assert ended == [0, 0]
    assert runs(tmp_path) == Counter(point.key for point in few().points())
    assert together == alone
    assert summarise(few(), together) == summarise(few(), alone)


def test_what_a_killed_worker_had_taken_is_done_by_the_next(tmp_path: Path) -> None:
    killed = worker(tmp_path, 60.0)
    while not runs(tmp_path):
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.wait(60)

    found = opened(tmp_path / "study.db", few()).work(run)

    assert len(runs(tmp_path)) == 1
    assert found == opened(tmp_path / "alone.db", few()).work(run)


def test_a_worker_that_died_before_its_first_heartbeat_loses_nothing(tmp_path: Path) -> None:
    study = opened(tmp_path / "study.db", few())
    first = next(few().points())
    study.study.enqueue_trial({}, user_attrs={"point": first.key})
    with pytest.warns(UserWarning, match="Heartbeat"):
        taken = study.study.ask()  # takes the point, and never beats

    found = study.work(run)

    assert taken.user_attrs["point"] == first.key
    assert found == results(few())


def test_a_run_that_raises_is_to_be_done_again(tmp_path: Path) -> None:
    def raising(point: Point, values: Mapping[str, Value]) -> Outcome:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        opened(tmp_path / "study.db", few()).work(raising)

    assert opened(tmp_path / "study.db", few()).work(run) == results(few())


def test_a_point_that_was_queued_twice_is_run_once(tmp_path: Path) -> None:
    study = opened(tmp_path / "study.db", few())
    for point in [*few().points(), *few().points()]:
        study.study.enqueue_trial({}, user_attrs={"point": point.key})
    begun: list[str] = []

    def noted(point: Point, values: Mapping[str, Value]) -> Outcome:
        begun.append(point.key)
        return run(point, values)

    study.work(noted)

    assert sorted(begun) == sorted(point.key for point in few().points())


def test_more_seeds_and_values_extend_a_study(tmp_path: Path) -> None:
    first = few()
    more = replace(first, seeds=(0, 1))
    opened(tmp_path / "study.db", first).work(run)
    begun: list[Point] = []

    def noted(point: Point, values: Mapping[str, Value]) -> Outcome:
        begun.append(point)
        return run(point, values)

    found = opened(tmp_path / "study.db", more).work(noted)

    assert {point.seed for point in begun} == {1}
    assert found == results(more)


def test_what_another_plan_has_queued_is_left_to_it(tmp_path: Path) -> None:
    more = few()
    less = replace(more, widths=(64,))
    waiting = opened(tmp_path / "study.db", more)
    for point in more.points():
        waiting.study.enqueue_trial({}, user_attrs={"point": point.key})
    begun: list[Point] = []

    def noted(point: Point, values: Mapping[str, Value]) -> Outcome:
        begun.append(point)
        return run(point, values)

    found = opened(tmp_path / "study.db", less).work(noted)

    assert {point.width for point in begun} == {64}
    assert found == results(less)
    assert waiting.work(run) == results(more)


def test_a_study_of_another_model_is_refused(tmp_path: Path) -> None:
    opened(tmp_path / "study.db", few())
    other = few(settings=settings(model="Other", source="3" * 64, steps=200))

    said = refusal(lambda: opened(tmp_path / "study.db", other))

    assert "is of another model: Net, not Other" in said
    assert "is of another source: 000000000000..., not 333333333333..." in said
    assert "is of another steps: 100, not 200" in said
    assert said.count("MUF757") == 3
    assert "hint: its losses cannot be compared with these: name another --study" in said


@pytest.mark.parametrize("url", ["/no/such/folder/study.db", "nodatabase://user@host/name"])
def test_a_database_that_cannot_be_opened_is_refused(url: str) -> None:
    said = refusal(lambda: open_storage(url))

    assert "MUF756: no study can be kept in " in said
    assert url in said
    assert DRIVER in said


def test_the_database_of_the_page_is_reached_with_the_driver_that_it_installs() -> None:
    page = (DOCS / "sweep.md").read_text(encoding="utf-8")
    url = re.search(r"--study (\S+://\S+)", page)

    assert DRIVER in page
    assert url is not None
    assert url[1].startswith("postgresql+psycopg://")  # without it, SQLAlchemy's version decides
    assert make_url(url[1]).get_dialect().driver == "psycopg"


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_sampler_draws_between_the_ends(tmp_path: Path, sampler: str) -> None:
    drawn = few(draws=3)

    found = opened(tmp_path / "study.db", drawn, sampler).work(run)
    rates = [float(result.values["lr"]) for result in found]

    assert len(set(rates)) == len(found) == 2 * 2 * 3
    assert 2**-6 <= min(rates) < max(rates) <= 2**-5


# -- what comes of it ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("curve", "lowest"),
    [
        ([(0.0, 4.0), (1.0, 1.0), (2.0, 0.0), (3.0, 1.0)], 2.0),
        ([(0.0, 9.0), (2.0, 1.0), (4.0, 1.0)], 3.0),
        ([(0.0, 9.0), (1.0, 4.0), (4.0, 1.0), (5.0, 4.0)], 3.0),
    ],
)
def test_the_vertex_lies_between_the_values(
    curve: list[tuple[float, float]], lowest: float
) -> None:
    assert vertex(curve) == pytest.approx(lowest)


@pytest.mark.parametrize(
    "curve",
    [
        [(0.0, 1.0), (1.0, 2.0), (2.0, 3.0)],
        [(0.0, 3.0), (1.0, 1.0), (2.0, math.inf)],
        [(0.0, 1.0), (1.0, 1.0), (2.0, 1.0)],
    ],
    ids=["an end", "beside a run that diverged", "flat"],
)
def test_without_two_higher_neighbours_there_is_no_vertex(curve: list[tuple[float, float]]) -> None:
    assert vertex(curve) is None


def test_no_error_is_known_at_an_end_of_the_grid() -> None:
    rising = [(-3.0, 1.0), (-2.0, 2.0), (-1.0, 3.0)]
    falling = [(x, -y) for x, y in rising]

    assert center_of([rising, rising]) == Center(-3.0, bound="<=")
    assert center_of([falling, falling]) == Center(-1.0, bound=">=")


def test_no_error_is_known_where_one_seed_is_best_at_an_end() -> None:
    inside = [(0.0, 3.0), (1.0, 1.0), (2.0, 3.0)]
    rising = [(0.0, 1.0), (1.0, 1.5), (2.0, 3.0)]

    assert center_of([inside, inside, rising, rising]) == Center(0.5)


def summary(chosen: Plan | None = None) -> Summary:
    chosen = chosen or plan()
    return summarise(chosen, results(chosen))


def test_the_shift_is_counted_in_steps_with_its_error() -> None:
    sp, mup = summary().shifts

    assert (sp.parametrization, sp.on_grid, mup.on_grid) == (SP, -2.0, 0.0)
    assert sp.steps == pytest.approx(-2.0)
    assert mup.steps == pytest.approx(0.0)
    assert sp.error == pytest.approx(math.sqrt(2) * 0.1)


def test_a_diverged_seed_keeps_a_value_from_being_best() -> None:
    chosen = plan()
    best = summary().of(MUP)[0].values
    found = [
        replace(r, loss=math.inf) if r.values == best and r.point.seed == 1 else r
        for r in results(chosen)
    ]

    optimum = summarise(chosen, found).of(MUP)[0]

    assert optimum.values != best
    assert optimum.diverged == 1


def test_an_optimum_at_an_end_of_the_grid_is_a_bound() -> None:
    """The grid ends at 2^-6, above SP's optimum at the widest model, which is 2^-7."""
    found = summary(plan(over=(Hyperparameter("lr", parse_values("2^-6:2^-3")),)))

    sp, mup = found.of(SP)[-1], found.of(MUP)[-1]
    shift = found.shifts[0]
    said = "\n".join(text.findings(found, "width"))

    assert (sp.center, sp.center_error, sp.bound) == (-6.0, None, "<=")
    assert text.centered(sp) == "<= 2^-6.00"
    assert mup.center_error == pytest.approx(0.1)
    assert (shift.on_grid, shift.error, shift.bounds) == (-1.0, None, ("<=",))
    assert "SP: the optimum moves by <= -1 steps of a factor 2 from width 64 to 256\n" in said
    assert "at an end of the grid may lie beyond it" in said


def test_two_ends_leave_the_shift_open() -> None:
    found = summary(plan(over=(Hyperparameter("lr", parse_values("2^-4:2^-3")),)))

    assert found.shifts[0].bounds == ("<=", ">=")
    assert next(text.findings(found, "width")).startswith("SP: how the optimum moves from width 64")


def losing(*losses: tuple[float, ...]) -> Shared:
    """Three widths with these losses at the shared rate, one for each seed."""
    chosen = plan(widths=(64, 128, 256), seeds=tuple(range(len(losses[0]))))
    by_width = dict(zip(chosen.widths, losses, strict=True))
    best = summary(chosen).tuned
    assert best is not None
    found = [
        replace(r, loss=by_width[r.point.width][r.point.seed] - 10) if r.values == best else r
        for r in results(chosen)
    ]
    shared = summarise(chosen, found).shared
    assert shared is not None
    return shared


@pytest.mark.parametrize(
    ("losses", "worse", "noisy"),
    [
        ([(1.3, 2.3, 3.3), (1.2, 2.2, 3.2), (1.1, 2.1, 3.1)], [], []),
        ([(1.0, 2.0, 3.0), (1.1, 2.11, 3.09), (1.0, 2.0, 3.0)], [(128, 64)], []),
        # Each step alone is within noise; from the narrowest to the widest it is not.
        ([(1.0, 2.0, 3.0), (1.0, 2.1, 3.05), (1.1, 2.11, 3.09)], [(256, 64)], [(128, 64)]),
        # 2.5 standard errors, which three seeds show by chance.
        ([(1.0, 2.0, 3.0), (1.02, 2.1, 3.13), (0.9, 1.9, 2.9)], [], [(128, 64)]),
        ([(1.0, 2.0), (1.1, 2.25), (0.9, 1.9)], [], [(128, 64)]),
        ([(1.0,), (1.1,), (0.9,)], [(128, 64)], []),
        ([(1.0, 2.0), (1.0, math.inf), (1.0, 2.0)], [(128, 64)], []),
        ([(1.0, 2.0), (1.2, 2.2), (1.3, 2.3)], [(128, 64), (256, 64)], []),
    ],
    ids=["falls", "one rises", "drift", "chance", "two seeds", "one seed", "diverged", "all rise"],
)
def test_wider_and_worse_is_said(
    losses: list[tuple[float, ...]], worse: list[tuple[int, int]], noisy: list[tuple[int, int]]
) -> None:
    rises = losing(*losses).rises

    assert [(r.width, r.than) for r in rises if r.certain] == worse
    assert [(r.width, r.than) for r in rises if not r.certain] == noisy


def test_what_is_within_noise_is_said_to_be() -> None:
    found = summary()
    assert found.shared is not None
    rises = (
        Rise(128, 64, 0.2, 0.01, certain=True),
        Rise(256, 64, 0.1, 0.3, certain=False),
        Rise(512, 64, math.inf, None, certain=True),
    )

    said = list(text.findings(replace(found, shared=replace(found.shared, rises=rises)), "width"))

    assert said[-2:] == [
        "  wider is worse at 128 (by 0.2000 ± 0.01 than 64), 512 (diverged)",
        "  within noise, wider is worse at 256 (by 0.1000 ± 0.3 than 64)",
    ]


# -- draws --------------------------------------------------------------------------------------


def drawn(chosen: Plan, seed: int = 0) -> list[Result]:
    """What a sampler that draws at random finds, with a little noise."""
    generator = random.Random(seed)
    found: list[Result] = []
    for point in chosen.points():
        values = {"lr": 2.0 ** generator.uniform(-9, -3)}
        found.append(Result(point, values, bowl(point, values) + generator.gauss(0, 0.003)))
    return found


def test_a_sampler_recommends_what_a_parabola_over_the_draws_does() -> None:
    chosen = plan(draws=12)

    found = summarise(chosen, drawn(chosen))
    said = "\n".join(text.findings(found, "width"))
    narrowest, sp = found.of(MUP)[0], found.shifts[0]
    assert found.tuned is not None
    assert narrowest.center_error is not None

    assert math.log2(float(found.tuned["lr"])) == pytest.approx(narrowest.center, abs=1e-3)
    assert narrowest.center == pytest.approx(-4.9, abs=3 * narrowest.center_error)
    assert 0.01 < narrowest.center_error < 0.2
    assert sp.on_grid is None
    assert sp.steps == pytest.approx(-2.0, abs=0.3)
    assert re.search(r"SP: the optimum moves by a factor 2\^-\d\.\d ± 0\.\d from width 64", said)
    assert "μP at width 64: lr 2^-4.9" in said
    assert "the vertex of a parabola over the draws" in said
    assert "steps of a factor" not in said


def test_the_error_of_a_fit_is_the_spread_of_fits() -> None:
    generator = random.Random(0)

    def draws(height: float) -> list[tuple[float, float]]:
        places = [generator.uniform(-9, -3) for _ in range(30)]
        return [(x, height + 0.1 * (x + 5) ** 2 + generator.gauss(0, 0.05)) for x in places]

    found = [fitted([draws(2.0), draws(2.5)]) for _ in range(40)]
    spread = stdev(center.at for center in found if center is not None)
    errors = [center.error for center in found if center is not None and center.error is not None]

    assert fmean(errors) == pytest.approx(spread, rel=0.4)


def test_draws_that_fall_to_an_end_give_a_bound() -> None:
    falling = [(-9.0 + i / 2, 3.0 - i / 10 + i * i / 1000) for i in range(12)]

    assert fitted([falling]) == Center(-3.5, bound=">=")


def test_too_few_draws_recommend_the_best() -> None:
    chosen = plan(draws=2, seeds=(0,))
    held = drawn(chosen)

    found = summarise(chosen, held)
    best = min((r for r in held if r.point.line == "mup 64"), key=lambda r: r.loss)
    said = "\n".join(text.findings(found, "width"))

    assert found.tuned is not None
    assert found.tuned["lr"] == pytest.approx(best.values["lr"], rel=1e-3)
    assert found.of(MUP)[0].center_error is None
    assert "the best draw: too few for a fit" in said


def test_a_sampler_has_its_settings_printed() -> None:
    chosen = plan(draws=12)
    console = Console(width=100, file=io.StringIO())

    text.show(sweep_of(summarise(chosen, drawn(chosen)), chosen), console)

    assert isinstance(console.file, io.StringIO)
    assert re.search(r"to train width=256: lr 0\.03\d+ at base", console.file.getvalue())


# -- how it is shown ----------------------------------------------------------------------------


def sweep_of(found: Summary, chosen: Plan) -> Sweep:
    groups = (
        GroupRow("input", 1.0, 1.0, 0.25, 3, 1000),
        GroupRow("hidden", 0.25, 4.0, 0.25, 1, 65536),
    )
    return Sweep(chosen, found, "width", {"width": 256}, groups)


def test_the_tables_say_what_was_found(golden: Callable[[str, str], None]) -> None:
    chosen = plan(settings=settings(fixed={"weight_decay": 0.1}))
    held = results(chosen)
    found = [replace(r, loss=math.inf) if r.values["lr"] == 0.125 else r for r in held]
    console = Console(width=100, file=io.StringIO())

    text.show(sweep_of(summarise(chosen, found), chosen), console)

    assert isinstance(console.file, io.StringIO)
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
    golden("sweep/summary.txt", "\n".join(lines) + "\n")


def test_the_figure_shows_every_line(tmp_path: Path) -> None:
    sweep = sweep_of(summary(), plan())

    for folder in (tmp_path / "one", tmp_path / "two"):
        sweep.write(folder)
    drawn = (tmp_path / "one" / "sweep.svg").read_text()

    assert (tmp_path / "one" / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert all(f">{said}<" in drawn for said in ("SP", "μP", "64", "256", "width"))
    assert "100 steps of batch 16" in drawn
    assert drawn == (tmp_path / "two" / "sweep.svg").read_text()


def test_lines_are_told_apart_without_colour(tmp_path: Path) -> None:
    chosen = plan(widths=(64, 128, 256, 512, 1024, 2048))
    found = summary(chosen)
    lines = [plot.Line(found, optimum, i, 6) for i, optimum in enumerate(found.of(SP))]

    assert len({line.marker for line in lines}) == 6
    assert all(a.style != b.style for a, b in pairwise(lines))
    assert all(sum(line.color[:2]) < 1.5 for line in lines)  # red and green together are yellow
    assert len({line.aside for line in lines}) == 6


def test_bars_leave_out_what_seeds_differ_by_everywhere() -> None:
    chosen = plan()
    found = [replace(r, loss=r.loss + 3.0 * r.point.seed) for r in results(chosen)]
    found = [replace(r, loss=math.inf) if r.values["lr"] == 0.125 else r for r in found]

    offsets = plot.offsets(summarise(chosen, found))

    assert offsets[1] - offsets[0] == pytest.approx(3.0, abs=0.1)


def test_a_sweep_is_read_back_from_what_it_wrote() -> None:
    over = (
        Hyperparameter("lr", parse_values("2^-9:2^-3")),
        Hyperparameter("beta2", parse_values("0.9,0.99")),
    )
    chosen = plan(over=over)
    held = results(chosen)
    best = summarise(chosen, held).tuned
    assert best is not None
    more = results(chosen.at(best, range(5), MUP))
    held = [replace(r, loss=math.inf) if r.values["lr"] == 0.125 else r for r in held]
    written = sweep_of(summarise(chosen, held, more), chosen).document()

    found = read(json.loads(json.dumps(written)))

    assert found.document() == written
    assert found.summary.shared is not None
    assert found.summary.shared.seeds == 5


@pytest.mark.parametrize("sampler", ["grid", "tpe"])
def test_more_seeds_confirm_what_is_recommended(tmp_path: Path, sampler: str) -> None:
    draws = 6 if sampler == "tpe" else None
    asked = request(tmp_path / "study.db", confirm=3, sampler=sampler, draws=draws, widths="8,32")
    begun: list[Point] = []

    found = swept(asked, load(MODEL), lambda result, *_: begun.append(result.point))
    shared, tuned = found.summary.shared, found.summary.tuned
    confirming = [p for p in begun if p.values and p.seed > 0]

    assert shared is not None
    assert shared.values == tuned
    assert [sample.seeds for sample in shared.samples.values()] == [(0, 1, 2)] * 2
    assert {(p.parametrization, p.width, p.seed, dict(p.values)["lr"]) for p in confirming} == {
        (MUP, width, seed, shared.values["lr"]) for width in (8, 32) for seed in (1, 2)
    }
    assert {s.seeds for samples in found.summary.curves.values() for s in samples} == {(0,)}


# -- the command --------------------------------------------------------------------------------


def test_the_command_sweeps_and_writes(tmp_path: Path) -> None:
    study, out = tmp_path / "study.db", tmp_path / "out"
    words = f"sweep {MODEL} --widths 8,32 --over lr=2^-5:2^-4 --steps 4 --seeds 2 --json"

    done = CliRunner().invoke(cli.app, [*words.split(), "--study", str(study), "-o", str(out)])
    document = json.loads(done.stdout)

    assert done.exit_code == 0
    assert "16/16 mup 32 seed 1, lr 2^-4: " in done.stderr
    assert {path.name for path in out.iterdir()} == {"sweep.json", "sweep.png", "sweep.svg"}
    assert document == json.loads((out / "sweep.json").read_text())
    assert [o["width"] for o in document["optima"]] == [8, 32, 8, 32]


def states(study: Path) -> Counter[str]:
    """How many trials of a study are in each state; none before the study is made."""
    with closing(sqlite3.connect(study)) as database:
        try:
            return Counter(state for (state,) in database.execute("SELECT state FROM trials"))
        except sqlite3.OperationalError:
            return Counter()


def test_a_command_that_is_killed_while_it_trains_goes_on_where_it_was(tmp_path: Path) -> None:
    words = f"sweep {MODEL} --widths 8,32 --over lr=0.05 --steps 300 --seeds 1 --heartbeat 1"
    study = tmp_path / "shared.db"
    killed = subprocess.Popen(
        [sys.executable, "-m", "mufx", *words.split(), "--study", str(study)],
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    while not (states(study)["COMPLETE"] and states(study)["RUNNING"]):
        assert killed.poll() is None
        time.sleep(0.05)
    killed.kill()
    killed.wait(60)
    left = states(study)
    asked = request(study, over=("lr=0.05",), widths="8,32", steps=300, batch=16, heartbeat=1)

    found = swept(asked, load(MODEL), lambda *_: None)
    alone = swept(replace(asked, study=str(tmp_path / "alone.db")), load(MODEL), lambda *_: None)

    assert left["RUNNING"] == 1
    assert states(study) == {"COMPLETE": 4, "FAIL": 1}
    assert found.document() == alone.document()


@pytest.mark.zoo
def test_a_command_that_is_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    words = f"sweep {MODEL} --over lr=2^-7:2^-4 --steps 30 --seeds 2 --heartbeat 1 --json"
    command = [sys.executable, "-m", "mufx", *words.split(), "--study"]
    shared = [*command, str(tmp_path / "shared.db")]

    killed = subprocess.Popen(shared, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert killed.stderr is not None
    for _ in range(5):
        killed.stderr.readline()
    killed.kill()
    killed.communicate()
    workers = [
        subprocess.Popen(shared, stderr=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(2)
    ]
    ended = [worker.communicate(timeout=300) for worker in workers]
    alone = subprocess.run([*command, str(tmp_path / "alone.db")], capture_output=True, check=True)

    assert [json.loads(out) for out, _ in ended] == [json.loads(alone.stdout)] * 2
    complete = TrialState.COMPLETE
    study = optuna.load_study(study_name="sweep", storage=f"sqlite:///{tmp_path / 'shared.db'}")
    assert Counter(trial.state for trial in study.trials)[complete] == 48


def test_a_folder_that_cannot_be_written_is_refused_before_training(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")

    done = CliRunner().invoke(cli.app, ["sweep", MODEL, "-o", str(tmp_path / "out")])

    assert done.exit_code == 2
    assert "MUF015" in done.stderr


def test_without_the_optional_packages_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(extra, "find_spec", lambda name: None)

    done = CliRunner().invoke(cli.app, ["sweep", MODEL])

    assert done.exit_code == 2
    assert "MUF750: a sweep needs optuna and matplotlib" in done.stderr
    assert "hint: pip install 'mufx[sweep]'" in done.stderr


# -- the example --------------------------------------------------------------------------------

EXPERIMENTS = ["mlp", "gpt", "encoder"]
TRANSFER = import_file(Path(__file__).parent.parent / "examples" / "transfer.py")


def committed(name: str) -> Sweep:
    return read(json.loads(TRANSFER.results(name).read_text(encoding="utf-8"))["sweep"])


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_figures_show_what_their_page_claims(name: str) -> None:
    sp, mup = committed(name).summary.shifts

    assert sp.on_grid is not None
    assert mup.on_grid is not None
    assert committed(name).summary.step == 2.0
    assert sp.on_grid <= -2
    assert ">=" not in sp.bounds
    assert abs(mup.on_grid) <= 1
    assert not mup.bounds


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_page_holds_the_tables_of_the_results(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    docs = copied(TRANSFER.DOCS, tmp_path)
    monkeypatch.setattr(TRANSFER, "DOCS", tmp_path)

    TRANSFER.redraw(name)
    page = (tmp_path / "transfer.md").read_text(encoding="utf-8")

    assert page == (docs / "transfer.md").read_text(encoding="utf-8")


def copied(docs: Path, folder: Path) -> Path:
    """The page and the results that it is made of; gives `docs` back."""
    (folder / "figures").mkdir()
    for file in (Path("transfer.md"), *(Path("figures") / f"sweep-{n}.json" for n in EXPERIMENTS)):
        shutil.copy(docs / file, folder / file)
    return docs


def test_the_example_trains_goes_on_and_redraws(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = replace(
        TRANSFER.EXPERIMENTS["mlp"], base={"width": 8}, target={"width": 16}, over="lr=2^-6:2^-5"
    )
    tiny = replace(tiny, steps=2, batch=4, seeds=1, confirm=2)
    copied(TRANSFER.DOCS, tmp_path)
    monkeypatch.setattr(TRANSFER, "DOCS", tmp_path)
    monkeypatch.setattr(TRANSFER, "TRIALS", tmp_path / "trials")
    monkeypatch.setitem(TRANSFER.EXPERIMENTS, "mlp", tiny)

    def run(*options: str) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["transfer.py", "mlp", *options])
        TRANSFER.main()
        return (tmp_path / "transfer.md").read_text(encoding="utf-8"), capsys.readouterr().err

    page, trained = run()
    again, resumed = run()
    redrawn, drew = run("--redraw")

    assert "3/3 sp 16 seed 102, lr " in trained
    assert re.search(
        r"^\| SP, tuned large \| 2\^-\d .*\| \d\.\d{4} ± [\d.]+ \|$", page, re.MULTILINE
    )
    assert "At that rate, 2 seeds: " in page
    assert page == again == redrawn
    assert resumed == drew == ""
