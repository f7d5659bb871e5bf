"""Draws from the generators of Python and numpy, of which a recording holds what came out.

What runs, runs from a state of the generators that is always the same, so that every size draws
alike; whether it has drawn is seen from the state that it leaves.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import TypeVar

import numpy as np

from mufx.diagnostics import Place
from mufx.loading import preserved_rng
from mufx.recorder import is_users

Result = TypeVar("Result")
Words = tuple[int, ...]
"""The state of a Mersenne Twister, which both generators are: it gives one word after the other."""

_SEEDED: Words = random.Random(0).getstate()[1][:-1]
_HALF = len(_SEEDED) // 2  # what comes after is as random as ever, so that no loop runs forever
_ZEROS, _ONES, _ALL_BUT_FIRST = 0, 0x12DD9BB3, 0x92CDB9B7  # the bits of the words that come out
_LOW: Words = (*_SEEDED[:_HALF], *(_ZEROS,) * _HALF)
_HIGH: Words = (*_SEEDED[:_HALF], *(_ONES, _ALL_BUT_FIRST) * (_HALF // 2))
"""Numbers close to 1; of whole ones, which refuse a word of ones, the last of two or of four."""


@dataclass(frozen=True, slots=True)
class Draw:
    """A line that draws; `generator` is the module whose state it moves."""

    generator: str
    place: Place | None


def drawing(
    run: Callable[[], Result], again: Callable[[], object]
) -> tuple[Result, tuple[Draw, ...]]:
    """What something returns, and where it draws: if it does, that is seen when it runs again."""
    with preserved_rng():
        _set(_SEEDED, len(_SEEDED))
        before = _states()
        result = run()
        moved = _moved(before, _states())
        if not moved:
            return result, ()
        _set(_SEEDED, len(_SEEDED))
        return result, _followed(again) or tuple(Draw(generator, None) for generator in moved)


def at_extremes(run: Callable[[], Result]) -> tuple[Result, Result]:
    """What something returns where all that it draws is as low, and as high, as can be."""
    with preserved_rng():
        _set(_LOW, _HALF)
        low = run()
        _set(_HIGH, _HALF)
        return low, run()


def _set(words: Words, position: int) -> None:
    random.setstate((3, (*words, position), None))
    np.random.set_state(("MT19937", np.array(words, np.uint32), position, 0, 0.0))


def _states() -> dict[str, object]:
    state = np.random.get_state(legacy=False)
    words, position = state["state"]["key"].tobytes(), state["state"]["pos"]
    return {"random": random.getstate(), "numpy.random": (words, position, state["has_gauss"])}


def _moved(before: dict[str, object], after: dict[str, object]) -> list[str]:
    return [generator for generator, state in after.items() if state != before[generator]]


def _followed(run: Callable[[], object]) -> tuple[Draw, ...]:
    follower, others = _Follower(), sys.gettrace()
    sys.settrace(follower)
    try:
        run()
    finally:
        sys.settrace(others)
    return tuple(follower.found)


class _Follower:
    """Sees before every line of a user's code whether the line before it drew."""

    def __init__(self) -> None:
        self.found: dict[Draw, None] = {}
        self._states = _states()
        self._place: Place | None = None

    def __call__(self, frame: FrameType, event: str, argument: object) -> _Follower | None:
        del argument
        if not _is_users(frame):
            return None
        states = _states()
        self.found.update((Draw(name, self._place), None) for name in _moved(self._states, states))
        self._states = states
        self._place = _place(frame.f_back if event == "return" else frame)
        return self


def _place(frame: FrameType | None) -> Place | None:
    while frame is not None and not _is_users(frame):
        frame = frame.f_back
    return None if frame is None else Place(frame.f_code.co_filename, frame.f_lineno)


def _is_users(frame: FrameType) -> bool:
    file = frame.f_code.co_filename
    return is_users(file) and file != random.__file__
