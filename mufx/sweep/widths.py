"""The widths of a sweep: every growing knob, along the way from base to target."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mufx.diagnostics import Diagnostic, MufxError, Place, error
from mufx.source import Source
from mufx.sweep.values import FACTOR

Knobs = dict[str, object]


def growing(source: Source) -> dict[str, float]:
    """By knob that grows: the power of the first one's growth that it follows."""
    if source.vary:
        return dict.fromkeys(source.vary, 1.0)
    ratios = {
        name: math.log(_number(source.target[name]) / _number(value))
        for name, value in source.base.items()
        if value != source.target[name] and _is_number(value) and _is_number(source.target[name])
    }
    first = next(iter(ratios.values()), 1.0)
    return {name: ratio / first for name, ratio in ratios.items()}


def widths_of(source: Source, given: Sequence[int] | None, place: Place) -> dict[int, Knobs]:
    """By width, the value of the first growing knob: all knobs there, from narrow to wide.

    Where none are given they double from base to target.

    Raises:
        MufxError: `MUF752` for fewer than two widths, and for each at which a knob is no integer.
    """
    name = next(iter(growing(source)), None)
    if name is None:
        raise MufxError(_too_few(place, "no knob grows from base to target"))
    chosen = sorted(set(given)) if given else _doubling(source, name)
    if len(chosen) < 2:
        raise MufxError(_too_few(place, f"{name}={', '.join(map(str, chosen))} is one width"))
    problems: list[Diagnostic] = []
    knobs: dict[int, Knobs] = {}
    for width in chosen:
        try:
            knobs[width] = knobs_at(source, width)
        except ValueError as problem:
            problems.append(
                error(
                    "MUF752",
                    f"{name}={width} is no size of the model: {problem}",
                    hint=f"growing from base to target: {_way(source)}; choose widths at which "
                    f"all of them are whole, or let them grow alike: --target {_alike(source)}",
                    place=place,
                )
            )
    if problems:
        raise MufxError(*problems)
    return knobs


def knobs_at(source: Source, width: int) -> Knobs:
    """All knobs where the first growing one is `width`.

    Raises:
        ValueError: where one would not be a whole number.
    """
    powers = growing(source)
    growth = width / _number(source.base[next(iter(powers))])
    knobs = dict(source.base)
    for name, power in powers.items():
        value = _number(source.base[name]) * growth**power
        whole = isinstance(source.base[name], int)
        if whole and (round(value) < 1 or not math.isclose(value, round(value), rel_tol=1e-9)):
            raise ValueError(f"{name} would be {value:g}")
        knobs[name] = round(value) if whole else value
    return knobs


def _doubling(source: Source, name: str) -> list[int]:
    low, high = _number(source.base[name]), _number(source.target[name])
    count = math.floor(abs(math.log2(high / low)) + 1e-9)
    return sorted(round(min(low, high) * FACTOR**i) for i in range(count + 1))


def _way(source: Source) -> str:
    return ", ".join(f"{n} {source.base[n]} -> {source.target[n]}" for n in growing(source))


def _alike(source: Source) -> str:
    """A target at which every growing knob is 8 times its base: whole at every doubling."""
    grown = {n: round(8 * _number(source.base[n])) for n in growing(source)}
    return ",".join(f"{name}={value}" for name, value in {**source.base, **grown}.items())


def _too_few(place: Place, what: str) -> Diagnostic:
    return error(
        "MUF752",
        f"{what}, and a shift of the optimum is seen over at least two",
        hint="set base and target apart, or give --widths 64,128,256",
        place=place,
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: object) -> float:
    assert isinstance(value, int | float)
    return float(value)
