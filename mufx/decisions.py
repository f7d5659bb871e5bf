"""What a model decides from sizes that should stay free.

    if x.shape[1] > 8: ...      for t in range(x.shape[1]): ...      math.sqrt(x.shape[1])

A recording holds one outcome. Questions that torch asks while it works are not decisions: for
other sizes it asks them again.
"""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import FrameType
from typing import Any

import sympy
import torch
from torch._guards import SLoc
from torch.fx.experimental.sym_node import SymNode
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils._sympy.functions import FloorDiv, Max, Mod, PythonMod

from mufx.diagnostics import Diagnostic, Place, note, warning
from mufx.size_text import size_text

_TORCH = os.path.dirname(torch.__file__) + os.sep
_MUFX = os.path.dirname(__file__) + os.sep
LIBRARIES = (_TORCH, _MUFX)
"""What asks for a size from one of these folders is not the model."""
_MACHINERY = tuple(
    _TORCH + name.replace("/", os.sep)
    for name in ("__init__.py", "fx/experimental/", "utils/_sympy/", "_tensor.py")
)
"""What stands between a symbolic number and the code that asks for its value."""


@dataclass(frozen=True, slots=True)
class Decision:
    """A condition on free sizes that holds for the recorded ones.

    Attributes:
        condition: What has to hold of the sizes, by their symbols.
        place: Where the model decides.
        raises: Whether the model has an error of its own where it does not hold.
        at_one: Whether only a size of 1 goes the other way; free sizes are at least 2.
        took_one: Whether it says that a computed size is 1, and torch decides by it. Where the size
            is another, the recording is right, or fails, or has a 1 where it should have the size.
    """

    condition: Any
    place: Place
    raises: bool = False
    at_one: bool = False
    took_one: bool = False

    @property
    def to_assert(self) -> bool:
        """Whether the emitted model refuses other sizes."""
        return not (self.at_one or self.took_one)


class FreeSizes(ShapeEnv):
    """Symbols for free sizes; `decided` is told what the model's own code decides from them.

    Where more is computed from a size than anybody can follow, the recording ends with an error
    and the size is `involved`. Padding to a whole number of windows, `h + (w - h % w) % w`, does
    that in every block, and so does `n // (h // w)`, the windows that are left for each of the
    others: the conditions for it to fit fill pages, and finding them takes minutes.

    Where torch would note the code that met each, nothing is noted: the diagnostics have their own
    places, and torch imports its whole exporter to find one.
    """

    def __init__(self, decided: Callable[[Decision], None]) -> None:
        """No symbols yet."""
        super().__init__(duck_shape=False)
        self.decided = decided
        self.involved: frozenset[str] = frozenset()

    def _get_stack_summary(self, *args: object, **kwargs: object) -> tuple[SLoc, str]:
        del args, kwargs
        return SLoc(None, None), ""

    def evaluate_sym_node(
        self, sym_node: SymNode, size_oblivious: bool = False, fallback_value: bool | None = None
    ) -> sympy.Basic:
        """The value of a symbolic number, which somebody asks for."""
        asked, guards = sym_node.expr, len(self.guards)
        self.involved |= _involved(asked)
        if self.involved:
            raise RuntimeError(f"too much is computed from {', '.join(self.involved)}")
        result = super().evaluate_sym_node(sym_node, size_oblivious, fallback_value)
        if asked.free_symbols:
            is_bool, new = sym_node.pytype is bool, len(self.guards) > guards
            frame = _asking(sys._getframe(1), is_bool)
            if frame is not None and is_bool:
                condition = asked if result else sympy.Not(asked)
                self._decide(condition, frame, at_one=not new)
            elif frame is not None:
                self._decide(sympy.Eq(asked, result), frame, at_one=False)
            elif new and is_bool:
                self._take(asked if result else sympy.Not(asked), sys._getframe(1))
        return result

    def fix(self, size: torch.SymInt) -> Any:
        """Gives up the freedom of a size; the condition that it has its value."""
        return sympy.Eq(size.node.expr, super().evaluate_sym_node(size.node))

    def fixed_since(self, known: int) -> list[Any]:
        """Conditions on the symbols that got a value since `known` were replaced by something."""
        new = list(self.replacements.items())[known:]
        return [sympy.Eq(symbol, value) for symbol, value in new if value.is_number]

    def _decide(self, condition: Any, frame: FrameType, *, at_one: bool) -> None:
        if at_one and all(_holds(condition, one) for one in condition.free_symbols):
            return
        code = frame.f_code
        place = Place(code.co_filename, frame.f_lineno)
        raises = guards_an_error(code.co_filename, frame.f_lineno)
        self.decided(Decision(condition, place, raises, at_one))

    def _take(self, condition: Any, frame: FrameType | None) -> None:
        """Of what torch decides, a size that is 1: other numbers do not fit where they are not.

        What is at least 1 whatever the sizes are is a stride, and strides are not recorded.
        """
        if not isinstance(condition, sympy.Eq) or condition.rhs != 1 or condition.has(Max):
            return
        while frame is not None and frame.f_code.co_filename.startswith(LIBRARIES):
            frame = frame.f_back
        if frame is not None:
            place = Place(frame.f_code.co_filename, frame.f_lineno)
            self.decided(Decision(condition, place, took_one=True))


def _asking(frame: FrameType | None, is_bool: bool) -> FrameType | None:
    """The frame of the model's code that asks; `None` if torch asks for reasons of its own.

    A number that a recorded function takes as a plain one (`torch.linspace(0, 1, n)`, `len(x)`) is
    asked for by that function, between a line of the model and torch's own code in C.
    """
    passed = _MACHINERY if is_bool else (*_MACHINERY, _MUFX)
    while frame is not None and frame.f_code.co_filename.startswith(passed):
        frame = frame.f_back
    if frame is None or frame.f_code.co_filename.startswith(LIBRARIES):
        return None
    return frame


_MOST_STEPS = 8
"""Roundings and remainders in one size: padding once takes 4, a stride 1."""


def _involved(expr: Any) -> frozenset[str]:
    """The sizes whose remainders are computed with, or that divide one, where too much is."""
    steps = expr.atoms(sympy.Function)
    if len(steps) <= _MOST_STEPS:
        return frozenset()
    remainders = {r for step in steps for r in step.atoms(Mod, PythonMod) if r != step}
    by_size = {d for d in expr.atoms(FloorDiv) if d.args[1].free_symbols}
    return frozenset(str(s) for r in remainders | by_size for s in r.free_symbols)


def _holds(condition: Any, symbol: Any) -> bool:
    try:
        return bool(condition.subs(symbol, 1) == sympy.true)
    except ZeroDivisionError:  # of chunks of which there is none
        return False


def guards_an_error(file: str, line: int) -> bool:
    """Whether the statement is an assertion, or an `if` that raises."""
    return any(first <= line <= last for first, last in _checks(file))


@lru_cache(maxsize=64)
def _checks(file: str) -> tuple[tuple[int, int], ...]:
    try:
        tree = ast.parse(Path(file).read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return ()
    found = [n for n in ast.walk(tree) if isinstance(n, ast.Assert | ast.If)]
    tests = [n.test for n in found if isinstance(n, ast.Assert) or _raises(n.body)]
    return tuple((t.lineno, t.end_lineno or t.lineno) for t in tests)


def _raises(body: list[ast.stmt]) -> bool:
    return isinstance(body[-1], ast.Raise)


# -- what is said of them -----------------------------------------------------------------------


def condition_text(condition: Any, names: Mapping[str, str]) -> str:
    """A condition as Python, `names` for its symbols."""
    named = condition.xreplace(
        {s: sympy.Symbol(names[str(s)]) for s in condition.free_symbols if str(s) in names}
    )
    return size_text(named)[0]


def remarks(decisions: Iterable[Decision], names: Mapping[str, str]) -> list[Diagnostic]:
    """What a user should know: where other sizes would have gone another way."""
    told = [d for d in decisions if not d.raises]
    found = [_decided(d, condition_text(d.condition, names)) for d in told if d.to_assert]
    asked, taken = [d for d in told if d.at_one], [d for d in told if d.took_one]
    if asked:
        found.append(_at_one(asked))
    if taken:
        found.append(_took_one(taken, names))
    return found


def _decided(decision: Decision, condition: str) -> Diagnostic:
    return warning(
        "MUF108",
        f"the model decides by a size, and the recording holds for {condition}",
        hint="the emitted model refuses other sizes; give example inputs of the size that you "
        "train with, or compute with the size instead of its value",
        place=decision.place,
    )


def _at_one(decisions: list[Decision]) -> Diagnostic:
    first, also = _places(decisions)
    return note(
        "MUF108",
        f"the model asks here whether a size is 1{also}; the recording is of larger ones",
        hint="with a size of 1 the emitted model does what it does for larger ones",
        place=first,
    )


def _took_one(decisions: list[Decision], names: Mapping[str, str]) -> Diagnostic:
    first, also = _places(decisions)
    held = " and ".join(dict.fromkeys(condition_text(d.condition, names) for d in decisions))
    return note(
        "MUF108",
        f"with the example inputs a size is 1 here{also}: {held}",
        hint="where it is another, the emitted model may compute with 1 instead; give example "
        "inputs that are large enough for it to be another",
        place=first,
    )


def _places(decisions: list[Decision]) -> tuple[Place, str]:
    first, *others = dict.fromkeys(decision.place for decision in decisions)
    return first, "".join(f", and at {place.portable()}" for place in others)
