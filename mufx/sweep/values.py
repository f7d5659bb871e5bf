"""Hyperparameters and the values to try, as they are typed: `lr=2^-12:2^-4`, `dropout=0,0.1`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from mufx.diagnostics import Diagnostic, MufxError, error

Value = float | int | str | bool

FACTOR: Final = 2.0
_HINT = "write --over lr=2^-12:2^-4 (steps of a factor 2), lr=1e-4:1e-1:10 or dropout=0,0.1"


@dataclass(frozen=True, slots=True)
class Hyperparameter:
    """A setting to sweep, and the values of the grid, from small to large where they are numbers.

    A sampler draws between the first and the last of them.
    """

    name: str
    values: tuple[Value, ...]

    @property
    def numbers(self) -> tuple[float, ...] | None:
        """The values, where all of them are numbers."""
        plain = [v for v in self.values if isinstance(v, int | float) and not isinstance(v, bool)]
        return tuple(map(float, plain)) if len(plain) == len(self.values) else None

    @property
    def geometric(self) -> bool:
        """Whether the values are distances apart by factors, as those of a learning rate are."""
        numbers = self.numbers
        return numbers is not None and numbers[0] > 0

    @property
    def step(self) -> float:
        """The factor from one value to the next, on average."""
        numbers = self.numbers
        if numbers is None or len(numbers) < 2 or numbers[0] <= 0:
            return FACTOR
        return math.exp(math.log(numbers[-1] / numbers[0]) / (len(numbers) - 1))


def parse_over(texts: Sequence[str]) -> tuple[Hyperparameter, ...]:
    """The hyperparameters of `--over` options.

    Raises:
        MufxError: `MUF751`, one for each option that cannot be read.
    """
    problems: list[Diagnostic] = []
    found: dict[str, Hyperparameter] = {}
    for text in texts:
        name, equals, values = (part.strip() for part in text.partition("="))
        if not (name.isidentifier() and equals):
            problems.append(_malformed(text, "is not name=values"))
        elif name in found:
            problems.append(_malformed(text, f"gives {name} a second time"))
        else:
            try:
                found[name] = Hyperparameter(name, parse_values(values))
            except ValueError as problem:
                problems.append(_malformed(text, str(problem)))
    if problems:
        raise MufxError(*problems)
    return tuple(found.values())


def parse_values(text: str) -> tuple[Value, ...]:
    """The values of `low:high`, `low:high:factor` or `a,b,c`; `2^-3` is a power.

    Raises:
        ValueError: what is wrong with the text.
    """
    ends = text.split(":")
    if len(ends) in (2, 3):
        return _geometric([_number(end) for end in ends])
    values = tuple(dict.fromkeys(_value(part.strip()) for part in text.split(",")))
    numbers = Hyperparameter("", values).numbers
    return values if numbers is None else tuple(sorted(values, key=float))


def _geometric(ends: Sequence[float]) -> tuple[float, ...]:
    low, high, factor = (*ends, FACTOR)[:3]
    if not (0 < low < high < math.inf and 1 < factor < math.inf):
        raise ValueError("needs 0 < low < high and a factor above 1")
    steps = round(math.log(high / low, factor))
    if not math.isclose(low * factor**steps, high, rel_tol=1e-6):
        raise ValueError(f"does not end at {high:g} in steps of a factor {factor:g}")
    return tuple(low * factor**i for i in range(steps + 1))


def _value(text: str) -> Value:
    if text in ("True", "False"):
        return text == "True"
    if text.isidentifier() and text.lower() not in ("nan", "inf", "infinity"):
        return text
    return _number(text)


def _number(text: str) -> float:
    base, power, exponent = text.partition("^")
    try:
        number = math.pow(float(base), float(exponent) if power else 1.0)
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"holds {text!r}, which is no number and no word")
    return int(base) if base.strip().isdecimal() and not power else number


def shown(value: Value) -> str:
    """A value as it is typed: powers of two as such, other numbers in short."""
    if isinstance(value, bool | str) or value <= 0:
        return str(value) if isinstance(value, bool | str) else f"{value:g}"
    exponent = math.log2(value)
    if exponent == round(exponent) and not 1 <= value <= 1024:
        return f"2^{exponent:.0f}"
    return f"{value:.4g}"


def written(values: Mapping[str, Value]) -> str:
    """Several values by name."""
    return ", ".join(f"{name} {shown(value)}" for name, value in values.items())


def _malformed(text: str, why: str) -> Diagnostic:
    return error("MUF751", f"--over {text} {why}", hint=_HINT)
