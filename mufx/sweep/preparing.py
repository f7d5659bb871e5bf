"""From what was typed to a plan of runs, checked before anything is trained."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from mufx.devices import device_of
from mufx.diagnostics import Diagnostic, MufxError, error
from mufx.discovery import Found
from mufx.knobs import parse_knobs
from mufx.manifest import Manifest
from mufx.source import BATCH, Source
from mufx.sweep.batches import Data, Loss, data_of, load_data
from mufx.sweep.models import Models, check_names, knobs_among, optimizer_settings
from mufx.sweep.neighbours import digest_of
from mufx.sweep.objective import Objective
from mufx.sweep.settings import Parametrization, Plan, Settings
from mufx.sweep.values import Hyperparameter, Value, parse_over, parse_values
from mufx.sweep.widths import growing, widths_of


@dataclass(frozen=True, slots=True)
class Request:
    """A sweep as it is typed; see the options of `mufx sweep`."""

    spec: str
    over: tuple[str, ...]
    widths: str | None = None
    fixed: str | None = None
    data: str | None = None
    steps: int = 100
    batch: int = 16
    warmup: float = 0.0
    decay: str = "constant"
    seeds: int = 3
    confirm: int = 0
    draws: int | None = None
    sampler: str = "grid"
    study: str | None = None
    heartbeat: int = 20
    device: str = "cpu"
    form: str = "table3"
    optimizer: str = "adamw"
    parametrizations: tuple[Parametrization, ...] = tuple(Parametrization)


def prepared(request: Request, source: Source, found: Found) -> tuple[Objective, Plan]:
    """How to run a point, and all points; every width is converted once, so that it is known to.

    Raises:
        MufxError: `MUF75x` for what is wrong with the request, and all that a conversion refuses.
    """
    over, fixed = parse_over(request.over), _fixed(request.fixed)
    _check_numbers(over, fixed, request.optimizer)
    check_names([*(h.name for h in over), *fixed], source, found.factory, request.optimizer)
    place = found.factory.place
    widths = widths_of(source, _widths(request.widths), place)
    data = load_data(request.data) if request.data is not None else data_of(found.module)
    models = Models(
        source, widths, request.optimizer, request.form, device_of(request.device, "MUF751")
    )
    for knobs in widths.values():
        models.conversion(knobs, knobs_among(fixed, request.optimizer))
    settings = _settings(request, models, found, data, fixed)
    seeds = tuple(range(request.seeds))
    plan = Plan(settings, over, tuple(widths), seeds, request.parametrizations, request.draws)
    loss = Loss.of(source.inputs(BATCH, source.base), place)
    return Objective(settings, models, data, loss), plan


def _settings(
    request: Request, models: Models, found: Found, data: Data, fixed: dict[str, Value]
) -> Settings:
    source = models.source
    target = models.conversion(dict(source.target), knobs_among(fixed, request.optimizer))
    return Settings(
        model=source.name,
        source=digest_of(found.module),
        scales=_digest(target.manifest),
        data=data.digest,
        base=source.base,
        way=growing(source),
        optimizer=request.optimizer,
        form=request.form,
        steps=request.steps,
        batch=request.batch,
        warmup=request.warmup,
        decay=request.decay,
        fixed=fixed,
    )


def _digest(manifest: Manifest) -> str:
    """Of what a conversion decided; not of where it ran, nor of its words."""
    parameters = {
        name: (
            entry.shape,
            entry.multiplier,
            entry.init_correction,
            entry.lr_scale,
            entry.weight_decay_scale,
            entry.eps_scale,
        )
        for name, entry in manifest.parameters.items()
    }
    changes = [(change.node, change.before, change.after) for change in manifest.changes]
    return sha256(json.dumps([parameters, changes], sort_keys=True).encode()).hexdigest()


def _widths(text: str | None) -> Sequence[int] | None:
    if text is None:
        return None
    try:
        values = parse_values(text)
        whole = [int(v) for v in values if isinstance(v, int | float) and v == int(v) > 0]
    except ValueError as problem:
        raise MufxError(_malformed("--widths", text, str(problem))) from None
    if len(whole) != len(values):
        raise MufxError(_malformed("--widths", text, "holds what is no width"))
    return whole


def _fixed(text: str | None) -> dict[str, Value]:
    if text is None:
        return {}
    given = parse_knobs(text, "--set")
    plain = {n: v for n, v in given.items() if isinstance(v, int | float | str | bool)}
    if len(plain) != len(given):
        raise MufxError(_malformed("--set", text, "holds what is no number and no word"))
    return plain


def _check_numbers(
    over: Sequence[Hyperparameter], fixed: Mapping[str, Value], optimizer: str
) -> None:
    """The axis of the figure, the first hyperparameter, and what the optimizer takes are numbers.

    Raises:
        MufxError: `MUF751`, one for each that is not.
    """
    numeric = {over[0].name, *optimizer_settings(optimizer)}
    given = {h.name: h.values for h in over} | {n: (value,) for n, value in fixed.items()}
    words = [n for n, values in given.items() if Hyperparameter(n, values).numbers is None]
    problems = [
        error(
            "MUF751",
            f"{name}={','.join(map(str, given[name]))} is no number",
            hint="the first --over is the axis of the figure; the optimizer takes numbers too",
        )
        for name in words
        if name in numeric
    ]
    if problems:
        raise MufxError(*problems)


def _malformed(option: str, text: str, why: str) -> Diagnostic:
    return error("MUF751", f"{option} {text} {why}", hint="write --widths 64:1024 or 64,128,256")
