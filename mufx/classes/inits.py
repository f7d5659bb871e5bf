"""How the init of one instance follows the width: the user's answers, held against its values.

One instance shows that a weight was drawn with a standard deviation of 0.02. Whether a narrower
model draws it with 0.02 too, or with a larger one, only the user knows.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TypeAlias

import torch
from torch import nn

from mufx.classes.numbers import powers
from mufx.diagnostics import Diagnostic, MufxError, error, raise_errors
from mufx.program import Program

Laws: TypeAlias = Mapping[str, str | float]
"""By a parameter's name, with `*` for any part of it: "fixed", "fan_in", or the size of its init
in the instance over that at base width."""

FIXED, FAN_IN = "fixed", "fan_in"
_SURE = 6.0  # standard errors


@dataclass(frozen=True, slots=True)
class Fill:
    """What a parameter starts with: a constant, or normal draws with zero mean.

    `base` and `target` are the constant, or the standard deviation, at both widths.
    """

    random: bool
    base: float
    target: float


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the entries of a parameter look like, and how surely that is known."""

    random: bool
    size: float
    count: int


def fills(program: Program, model: nn.Module, laws: Laws) -> dict[str, Fill]:
    """What every parameter of an instance starts with, at base and at target width.

    Args:
        program: The Program of `trace_instance`, with `uses`.
        model: The instance, with the values that it was initialised with.
        laws: How the inits follow the width.

    Raises:
        MufxError: `MUF711` for every init that has no law, `MUF712` for laws that fit nothing,
            `MUF713` for values that tell no init, as those of a trained model.
    """
    seen = {name: _seen(name, parameter.detach()) for name, parameter in model.named_parameters()}
    raise_errors([found for found in seen.values() if isinstance(found, Diagnostic)])
    known = _pooled({n: s for n, s in seen.items() if isinstance(s, _Seen)}, model)
    raise_errors(_unused(laws, known))
    found = {name: _filled(program, name, shown, laws) for name, shown in known.items()}
    problems = [fill for fill in found.values() if isinstance(fill, Diagnostic)]
    raise_errors({d.message: d for d in problems}.values())
    return {name: fill for name, fill in found.items() if isinstance(fill, Fill)}


# -- what the values show -----------------------------------------------------------------------


def _seen(name: str, values: torch.Tensor) -> _Seen | Diagnostic:
    if values.is_meta:
        return _untold(name, "has no values: the instance is on meta")
    flat = values.flatten().double()
    if bool((flat == flat[0]).all()):
        return _Seen(False, float(flat[0]), flat.numel())
    mean, size, count = float(flat.mean()), math.sqrt(float((flat * flat).mean())), flat.numel()
    if not math.isfinite(size):
        return _untold(name, "holds values that are not finite")
    if bool((flat == 0).any()):
        return _untold(name, "is 0 in some entries and not in others")
    if abs(mean) > _SURE * size / math.sqrt(count):
        return _untold(name, f"has mean {mean:.3g} and root mean square {size:.3g}")
    return _Seen(True, size, count)


def _untold(name: str, why: str) -> Diagnostic:
    return error(
        "MUF713",
        f"{name} {why}: no constant, and no draw around 0",
        hint="give mufx the class, whose constructor shows the init, or an instance as it is built",
    )


def _pooled(seen: Mapping[str, _Seen], model: nn.Module) -> dict[str, _Seen]:
    """Equal layers were drawn alike where their sizes agree, with the digits that are sure."""
    alike: dict[tuple[str, tuple[int, ...]], list[str]] = defaultdict(list)
    for name, found in seen.items():
        if found.random:
            alike[pattern(name), tuple(model.get_parameter(name).shape)].append(name)
    pooled = dict(seen)
    for names in alike.values():
        count = sum(seen[n].count for n in names)
        size = math.sqrt(sum(seen[n].size ** 2 * seen[n].count for n in names) / count)
        if all(abs(seen[n].size - size) <= _SURE * _error(size, seen[n].count) for n in names):
            pooled |= dict.fromkeys(names, _Seen(True, size, count))
    return {n: _rounded(s) if s.random else s for n, s in pooled.items()}


def pattern(name: str) -> str:
    """A parameter's name with `*` for the numbers of layers."""
    return re.sub(r"(?<![^.])\d+(?![^.])", "*", name)


def _error(size: float, count: int) -> float:
    """The standard error of a standard deviation that was measured on normal draws."""
    return size / math.sqrt(2 * count)


def _rounded(seen: _Seen) -> _Seen:
    near = (float(f"{seen.size:.{digits}g}") for digits in range(1, 18))
    size = next(n for n in near if abs(n - seen.size) <= 2 * _error(seen.size, seen.count))
    return _Seen(True, size, seen.count)


# -- what the user says -------------------------------------------------------------------------


def _filled(program: Program, name: str, seen: _Seen, laws: Laws) -> Fill | Diagnostic:
    """A constant that is no power of a size that grows needs no law, unless one names it."""
    fitting = {} if seen.random else powers(seen.size, _sizes(program))
    if not seen.random and not fitting and name not in laws:
        return Fill(False, seen.size, seen.size)
    law = laws.get(name, next((law for key, law in laws.items() if fnmatchcase(name, key)), None))
    if law is None:
        return _question(program, name, seen, fitting)
    ratio = _ratio(program, name, law)
    if isinstance(ratio, Diagnostic):
        return ratio
    return Fill(seen.random, seen.size / ratio, seen.size)


def _question(program: Program, name: str, seen: _Seen, fitting: Mapping[str, float]) -> Diagnostic:
    what = f"starts with standard deviation {seen.size:g}" if seen.random else f"is {seen.size:g}"
    also = f", {' and '.join(fitting)} of a size that grows" if fitting else ""
    shown = pattern(name)
    grows = f" or {shown}={FAN_IN}" if _fan_in(program, name) is not None else ""
    return error(
        "MUF711",
        f"{shown} {what}{also}: how does that follow the width?",
        hint=f"answer with --init '{shown}={FIXED}'{grows}, or with target over base: "
        f"--init '{shown}=0.5'",
    )


def _ratio(program: Program, name: str, law: str | float) -> float | Diagnostic:
    """The size of the init at target over that at base."""
    if law == FIXED:
        return 1.0
    if law == FAN_IN:
        grown = _fan_in(program, name)
        if grown is not None:
            return float(grown**-0.5)
        why = f"{name} has no fan-in: no operation contracts it, or what it is added to"
        return error("MUF712", why, hint=f"answer with --init '{name}={FIXED}', or with a number")
    if isinstance(law, str) or not law > 0:
        why = f"{law!r} is neither {FIXED} nor {FAN_IN} nor a positive number"
        return error("MUF712", why, hint=f"answer with --init '{name}={FIXED}'")
    return float(law)


def _fan_in(program: Program, name: str) -> float | None:
    """How much the fan-in grows: a weight's own, or that of the operation that adds a bias."""
    mine = {use.node for use in program.uses.get(name, ())}
    grown = {
        use.m_in
        for uses in program.uses.values()
        for use in uses
        if use.node in mine and use.kind == "contraction"
    }
    return grown.pop() if len(grown) == 1 else None


def _sizes(program: Program) -> set[tuple[int, int]]:
    """Base and target of every size that grows in a parameter."""
    shapes = (dict(c.model.named_parameters()) for c in (program.base, program.target))
    base, target = shapes
    pairs = ((b, t) for n in base for b, t in zip(base[n].shape, target[n].shape, strict=True))
    return {(int(b), int(t)) for b, t in pairs if b != t}


def _unused(laws: Laws, names: Iterable[str]) -> list[Diagnostic]:
    known = list(names)
    return [
        error("MUF712", f"no parameter is called {key}", hint="mufx classes lists the parameters")
        for key in laws
        if not any(fnmatchcase(name, key) for name in known)
    ]


def parse_inits(lines: Iterable[str]) -> dict[str, str | float]:
    """`*.bias=fixed`, `h.*.weight=fan_in` or `wte.weight=0.5`, as `inits` takes them.

    Raises:
        MufxError: `MUF712` for what is no answer.
    """
    laws: dict[str, str | float] = {}
    for line in lines:
        name, _, law = line.rpartition("=")
        if not name or not law:
            form = "PARAMETER=LAW: '*.weight=fan_in'"
            what = f"--init {line!r} is not of the form {form}"
            raise MufxError(error("MUF712", what, hint="one option for each"))
        try:
            laws[name] = float(law)
        except ValueError:
            laws[name] = law
    return laws
