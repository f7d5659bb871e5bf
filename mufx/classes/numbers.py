"""Literals of one instance that may follow the width: questions to the user, never a guess.

With two sizes a literal like `1/sqrt(d)` is seen to change. One instance shows `0.125`, and that
64 is a size that grows; whether one comes from the other only the user knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch
from torch import fx

from mufx.classes.finding import Run
from mufx.classes.growing import Growth
from mufx.diagnostics import Diagnostic, Place, error
from mufx.rules import operation
from mufx.sizes import Number, Slot, same

Answers: TypeAlias = Mapping[str, str | float]
"""By `file.py:line`, or a buffer's name: "grows", "fixed", or target/base as a number."""

GROWS, FIXED = "grows", "fixed"
_POWERS = (1.0, -1.0, 0.5, -0.5)
_FORMS = (*((0.0, b) for b in _POWERS), *((-b, b) for b in _POWERS), (0.5, -1.0))
"""Powers of base and target: sqrt(n), n/n_base, and attention's sqrt(n_base)/n."""
_LARGEST = 2**20  # elements of a buffer that are looked at

_MULTIPLIES: Mapping[str, tuple[Slot, ...]] = {
    "mul": (0, 1, "other"),
    "div": (0, 1, "other"),
    "scaled_dot_product_attention": ("scale",),
    "addmm": ("alpha", "beta"),
    "baddbmm": ("alpha", "beta"),
    "addbmm": ("alpha", "beta"),
    "add": ("alpha",),
    "sub": ("alpha",),
    "addcmul": ("value",),
    "addcdiv": ("value",),
    "full": (1, "fill_value"),
    "full_like": (1, "fill_value"),
    "new_full": (1, "fill_value"),
    "fill": (1, "value"),
    "tensor": (0, "data"),
    "scalar_tensor": (0,),
}


@dataclass(frozen=True)
class Numbers:
    """What the answers say of one run.

    Attributes:
        literals: By node and slot: the literals that follow the width.
        buffers: By name: target over base of the buffers that do.
        problems: What is still to be answered, or has no such answer.
        used: The answers that were asked for.
    """

    literals: Mapping[tuple[str, Slot], Number]
    buffers: Mapping[str, float]
    problems: tuple[Diagnostic, ...]
    used: frozenset[str]


def numbers(
    run: Run, growth: Growth, answers: Answers, buffers: Mapping[str, torch.Tensor]
) -> Numbers:
    """Answers, or asks, for every number of a run that equals a power of a growing size.

    The powers are 1, -1, 1/2 and -1/2 of the size or of its ratio to base, and sqrt(base)/size;
    numbers that multiply a value are asked for, not those added to one. `MUF706` is the
    question, with its place.
    """
    return _Asking(run, growth, answers).all(buffers)


class _Asking:
    """Goes through the numbers of one run."""

    def __init__(self, run: Run, growth: Growth, answers: Answers) -> None:
        self.run, self.growth, self.answers = run, growth, answers
        rows = (growth.row(axes) for axes in run.axes.values())
        self.sizes = {(a.base, a.target) for row in rows for a in row if a.base != a.target}
        self.literals: dict[tuple[str, Slot], Number] = {}
        self.buffers: dict[str, float] = {}
        self.problems: list[Diagnostic] = []
        self.used: set[str] = set()
        self.asked = self._asked()

    def _asked(self) -> set[Place | None]:
        """The places with a number that equals a power of a size."""
        nodes = self.run.recording.graph.nodes
        found = ((node, value) for node in nodes for _, value in _literals(node))
        return {self._place(node) for node, value in found if powers(value, self.sizes)}

    def all(self, buffers: Mapping[str, torch.Tensor]) -> Numbers:
        for node in self.run.recording.graph.nodes:
            place = self._place(node)
            for slot, value in _literals(node):
                keys = [node.name, *_keys(place)]
                ratio = self._ratio(value, str(value), keys, place)
                if not same(ratio, 1.0):
                    self.literals[node.name, slot] = Number(value / ratio, value, value * ratio)
            if node.op == "get_attr" and str(node.target) in buffers:
                self._buffer(str(node.target), buffers[str(node.target)], place)
        problems = tuple(dict.fromkeys(self.problems))
        return Numbers(self.literals, self.buffers, problems, frozenset(self.used))

    def _place(self, node: fx.Node) -> Place | None:
        origin = self.run.recording.origins.get(node.name)
        return origin.place if origin is not None else None

    def _buffer(self, name: str, value: torch.Tensor, place: Place | None) -> None:
        number = _common(value)
        if number is None:
            return
        ratio = self._ratio(number, f"the value {number:g} of {name}", [name], place)
        if not same(ratio, 1.0):
            self.buffers[name] = ratio

    def _ratio(self, value: float, what: str, keys: list[str], place: Place | None) -> float:
        """target/base of a number."""
        fitting = powers(value, self.sizes)
        key = next((k for k in keys if k in self.answers), None)
        if key is None:
            if fitting:
                self.problems.append(_question(what, fitting, keys, place))
            return 1.0
        self.used.add(key)
        if not fitting and place in self.asked and key in _keys(place):
            return 1.0  # the answer is about another number of the line
        answer = self.answers[key]
        if not isinstance(answer, str):
            return float(answer)
        if answer == FIXED:
            return 1.0
        ratios = sorted({round(ratio, 9) for ratio in fitting.values()})
        if answer != GROWS or len(ratios) != 1:
            self.problems.append(_no_answer(what, key, answer, ratios, place))
            return 1.0
        return ratios[0]


def powers(value: float, sizes: Iterable[tuple[int, int]]) -> dict[str, float]:
    """The ratios that a number may have, by what it equals; `sizes` are those that grow."""
    if value in (0.0, 1.0, -1.0):
        return {}
    return {
        _spelled(base, a, target, b): (target / base) ** b
        for base, target in sorted(sizes)
        for a, b in _FORMS
        if base > 0 and target > 1 and same(abs(value), base**a * target**b)
    }


def _literals(node: fx.Node) -> Iterator[tuple[Slot, float]]:
    """The numbers that a node multiplies with or fills in."""
    for slot in _MULTIPLIES.get(operation(node), ()) if node.op.startswith("call_") else ():
        if isinstance(slot, int):
            value = node.args[slot] if slot < len(node.args) else None
        else:
            value = node.kwargs.get(slot)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            yield slot, float(value)


def _common(value: torch.Tensor) -> float | None:
    """The number that all entries of a float buffer are."""
    if not value.is_floating_point() or value.is_meta or not 0 < value.numel() <= _LARGEST:
        return None
    flat = value.detach().flatten().double()
    return float(flat[0]) if bool((flat == flat[0]).all()) else None


def _keys(place: Place | None) -> Iterable[str]:
    if place is None:
        return ()
    path = Path(place.file)
    return (f"{path.name}:{place.line}", f"{place.file}:{place.line}", str(place.portable()))


def _spelled(base: int, a: float, target: int, b: float) -> str:
    factors = [(n, p) for n, p in ((base, a), (target, b)) if p]
    up, down = (
        "*".join(f"sqrt({n})" if abs(p) == 0.5 else str(n) for n, p in factors if p * sign > 0)
        for sign in (1, -1)
    )
    return f"{up or 1}/{down}" if down else up


def _question(
    what: str, fitting: Mapping[str, float], keys: list[str], place: Place | None
) -> Diagnostic:
    key = keys[1] if len(keys) > 1 else keys[0]
    ratios = sorted({round(ratio, 9) for ratio in fitting.values()})
    grows = f"{key}={GROWS}" if len(ratios) == 1 else " or ".join(f"{key}={r:g}" for r in ratios)
    return error(
        "MUF706",
        f"{what} equals {' and '.join(fitting)}, of a size that grows: does it follow the width?",
        hint=f"answer with --number {key}={FIXED}, or, if it does, {grows}",
        place=place,
    )


def _no_answer(
    what: str, key: str, answer: str, ratios: list[float], place: Place | None
) -> Diagnostic:
    if answer != GROWS:
        why = f"{answer!r} is neither {GROWS} nor {FIXED} nor a number"
    elif ratios:
        why = f"{what} equals powers of several sizes, by which it could grow: {ratios}"
    else:
        why = f"{what} is no power of a size that grows"
    return error("MUF707", why, hint=f"give target over base: --number {key}=0.5", place=place)
