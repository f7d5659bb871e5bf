"""The widths of a check: at least four, at which the model can be built."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from itertools import islice
from typing import Final

from mufx.diagnostics import Diagnostic, MufxError, Place, error
from mufx.source import Source
from mufx.sweep.widths import Knobs, growing, widths_of

COUNT: Final = 4
_NEAR: Final = 0.003
"""How far a knob may be rounded where it is no whole number on the way to target."""
_REACH: Final = 4
"""The widest is at least this many times the narrowest: a slope needs a lever."""
_BEYOND: Final = 4
"""How many times that the widest may be, where there are too few before."""
_CLOSE: Final = math.log(1.25)
"""Of the widths this close to an even spacing the roundest is taken."""
_STEP: Final = 1.15
"""From one width to the next at least."""
_TRIES: Final = 8

Widths = dict[int, Knobs]
Fits = Callable[[Knobs], bool]
"""Whether the model takes some knobs."""


def check_widths(source: Source, given: Sequence[int] | None, fits: Fits, place: Place) -> Widths:
    """By width, all knobs there: of the widths that are given, else of those that are chosen.

    Raises:
        MufxError: `MUF752` for a width at which a knob is not whole, `MUF760` for too few.
    """
    if given is None:
        found = chosen(source, fits) or widths_of(source, None, place)
    else:
        near = {width: near_knobs(source, width) for width in sorted(set(given))}
        whole = {width: knobs for width, knobs in near.items() if knobs is not None}
        found = whole if len(whole) == len(near) else widths_of(source, given, place)
    if len(found) < COUNT:
        raise MufxError(_too_few(source, list(found), fits, place))
    return found


def chosen(source: Source, fits: Fits) -> Widths | None:
    """Doubled from base to target where that makes four, else four that are spaced evenly.

    Up to target; to the first width beyond it where there are too few before.

        64 to 512                                 64, 128, 256, 512
        16 to 64                                  16, 24, 48, 64
        64 to 256 with heads from 2 to 4          64, 144, 256, 400: 2, 3, 4, 5 heads
    """
    name = next(iter(growing(source)), None)
    if name is None or not isinstance(source.base[name], int):
        return None
    low, high = sorted(int(_number(knobs[name])) for knobs in (source.base, source.target))
    reach = max(high, _REACH * low)
    near = {w: k for w in range(low, _BEYOND * reach + 1) if (k := near_knobs(source, w))}

    @cache
    def takes(width: int) -> bool:
        return fits(near[width])

    doubled = [low * 2**i for i in range(math.floor(math.log2(high / low)) + 1)]
    if len(doubled) >= COUNT and all(w in near and takes(w) for w in doubled):
        return {width: near[width] for width in doubled}
    ends = islice((w for w in near if w >= reach and takes(w)), _TRIES)
    spaced = (_spaced(list(near), low, end, takes) for end in ends)
    return next(({w: near[w] for w in found} for found in spaced if found), None)


def near_knobs(source: Source, width: int) -> Knobs | None:
    """All knobs where the first growing one is `width`, rounded; None where one is far from whole.

    Every width is converted with the knobs that it has, so it need not be on the way exactly.
    """
    powers = growing(source)
    growth = width / _number(source.base[next(iter(powers))])
    knobs = dict(source.base)
    for name, power in powers.items():
        value = _number(source.base[name]) * growth**power
        if isinstance(source.base[name], int):
            if abs(round(value) - value) > _NEAR * value:
                return None
            value = round(value)
        knobs[name] = value
    return knobs


def _spaced(near: Sequence[int], low: int, end: int, takes: Callable[[int], bool]) -> list[int]:
    """`low`, `end`, and what fits best between them; nothing where that is too little."""
    found = [low]
    for i in range(1, COUNT - 1):
        ideal = low * (end / low) ** (i / (COUNT - 1))
        left = [w for w in near if _STEP * found[-1] <= w <= end / _STEP]
        best = islice(sorted(left, key=partial(_apart, ideal, low)), _TRIES)
        width = next(filter(takes, best), None)
        if width is None:
            return []
        found.append(width)
    return [*found, end]


def _apart(ideal: float, base: int, width: int) -> tuple[float, int, float]:
    """The order of preference: near the spacing, round as base is, nearest."""
    distance = abs(math.log(width / ideal))
    return max(0.0, distance - _CLOSE), -math.gcd(width, base), distance


def _number(value: object) -> float:
    assert isinstance(value, int | float)
    return float(value)


def _too_few(source: Source, found: Sequence[int], fits: Fits, place: Place) -> Diagnostic:
    other = chosen(source, fits)
    proposed = f": --widths {','.join(map(str, other))}" if other else ""
    return error(
        "MUF760",
        f"{len(found)} widths ({', '.join(map(str, found))}) give no slope with an uncertainty",
        hint=f"give at least {COUNT} at which the model can be built{proposed}",
        place=place,
    )
