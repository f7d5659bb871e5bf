"""Knobs: the values a factory is called with, at base and at target."""

from __future__ import annotations

import ast
import difflib
import re
import shlex
import types
import typing
from collections.abc import Iterable, Mapping, Sequence

from mufx.diagnostics import Diagnostic, MufxError, error
from mufx.factory import REQUIRED, Factory, Knob

Knobs = Mapping[str, object]

_PLAIN: tuple[type, ...] = (bool, str, dict)


def parse_knobs(text: str, option: str = "--base") -> dict[str, object]:
    """The knobs of a command line: `n_embd=128,act=gelu` is `{"n_embd": 128, "act": "gelu"}`.

    Values are Python literals; a word that is none is a string.

    Raises:
        MufxError: `MUF008` for each part that is not `name=value`.
    """
    knobs: dict[str, object] = {}
    problems: list[Diagnostic] = []
    for part in re.split(r",(?=\s*[A-Za-z_]\w*\s*=)", text):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not (equals and value and name.isidentifier()):
            problems.append(_malformed(option, f"{part.strip()!r} is not name=value"))
        elif name in knobs:
            problems.append(_malformed(option, f"{name} is given twice"))
        else:
            knobs[name] = _literal(value)
    if problems:
        raise MufxError(*problems)
    return knobs


def written(knobs: Knobs) -> str:
    """The knobs as `parse_knobs` reads them."""
    return ",".join(f"{k}={v if isinstance(v, str) else repr(v)}" for k, v in knobs.items())


def differing(knobs: Knobs, other: Knobs) -> Knobs:
    """The knobs that have another value at the other size; of a configuration, such fields."""
    found: dict[str, object] = {}
    for name, value in knobs.items():
        against = other.get(name)
        if value == against:
            continue
        if isinstance(value, Mapping) and isinstance(against, Mapping):
            value = dict(differing(typing.cast("Knobs", value), typing.cast("Knobs", against)))
        found[name] = value
    return found


def command(spec: str, base: Knobs, target: Knobs, inputs: Sequence[str] = ()) -> str:
    """A `mufx convert` command line."""
    words = ["mufx", "convert", spec, "--base", written(base), "--target", written(target)]
    for line in inputs:
        words += ["--input", line]
    return " ".join(shlex.quote(word) for word in words)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`did you mean ...? ` for a name close to `name`, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {close[0]}? " if close else ""


# -- what can be said without building ----------------------------------------------------------


def check_knobs(
    factory: Factory, base: Knobs, target: Knobs, vary: Sequence[str]
) -> list[Diagnostic]:
    """Everything that is wrong with the names and the types of the values."""
    problems = _unknown(factory, [*base, *target, *vary])
    for where, knobs in (("base", base), ("target", target)):
        problems += _mistyped(factory, where, knobs)
        problems += _missing(factory, where, knobs)
    problems += _unpaired(factory, base, target)
    problems += _vary(factory, base, target, vary)
    return problems


def check_values(factory: Factory, where: str, knobs: Knobs) -> list[Diagnostic]:
    """What is wrong with one of the two alone."""
    return _unknown(factory, knobs) + _mistyped(factory, where, knobs)


def _unknown(factory: Factory, names: Iterable[str]) -> list[Diagnostic]:
    known = [knob.name for knob in factory.knobs]
    if factory.takes_any:
        return []
    return [
        error(
            "MUF007",
            f"{factory.name} has no knob {name}",
            hint=f"{did_you_mean(name, known)}knobs: {', '.join(known) or 'none'}",
            place=factory.place,
        )
        for name in dict.fromkeys(names)
        if name not in known
    ]


def _mistyped(factory: Factory, where: str, knobs: Knobs) -> list[Diagnostic]:
    known = {knob.name: knob for knob in factory.knobs}
    return [
        error(
            "MUF008",
            f"{where} {name}={value!r} is of type {type(value).__name__}, "
            f"but {factory.name} takes {_type_name(known[name])}",
            hint=f"give {name} a value of type {_type_name(known[name])}",
            place=factory.place,
        )
        for name, value in knobs.items()
        if name in known and not fits(value, known[name])
    ]


def _missing(factory: Factory, where: str, knobs: Knobs) -> list[Diagnostic]:
    return [
        error(
            "MUF006",
            f"{where} does not set {knob.name}, which {factory.name} requires",
            hint=f"add {knob.name}=... to base and target",
            place=factory.place,
        )
        for knob in factory.knobs
        if knob.default is REQUIRED and knob.name not in knobs
    ]


def _unpaired(factory: Factory, base: Knobs, target: Knobs) -> list[Diagnostic]:
    required = {knob.name for knob in factory.knobs if knob.default is REQUIRED}
    known = {knob.name for knob in factory.knobs}
    return [
        error(
            "MUF009",
            f"{name} is set at {one} and not at {other}",
            hint=f"base and target name the same knobs: add {name}=... to {other}",
            place=factory.place,
        )
        for one, other, names in (
            ("base", "target", base.keys() - target.keys()),
            ("target", "base", target.keys() - base.keys()),
        )
        for name in sorted(names - required)
        if name in known or factory.takes_any
    ]


def _vary(factory: Factory, base: Knobs, target: Knobs, vary: Sequence[str]) -> list[Diagnostic]:
    problems = [
        error(
            "MUF014",
            f"{name} is to vary, but base does not set it",
            hint=f"add {name}=... to base and target",
            place=factory.place,
        )
        for name in vary
        if name not in base
    ]
    if dict(base) == dict(target) and not vary:
        problems.append(
            error(
                "MUF014",
                "base and target are equal, so nothing says which axes are widths",
                hint=f"name the knobs that would grow: --vary {next(iter(base), 'width')}",
                place=factory.place,
            )
        )
    return problems


# -- types --------------------------------------------------------------------------------------


def fits(value: object, knob: Knob) -> bool:
    """Whether a value is of a knob's annotated type, else of its default's.

    A default that is None says that there may be none, whatever is annotated; a default of another
    type does not say that there may not.
    """
    if value is None and (knob.default is None or knob.annotation is REQUIRED):
        return True
    return _fits(value, _type_of(knob))


def _type_of(knob: Knob) -> object:
    if knob.annotation is not REQUIRED and not isinstance(knob.annotation, str):
        return knob.annotation
    if isinstance(knob.default, int) and not isinstance(knob.default, bool):
        return float  # `dropout=0` takes 0.1
    if isinstance(knob.default, bool | float | str):
        return type(knob.default)
    return object


def _fits(value: object, expected: object) -> bool:
    """Whether a value is of an annotated type; a type not known here fits everything."""
    origin, options = typing.get_origin(expected), typing.get_args(expected)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, option) for option in options)
    if origin is typing.Literal:
        return value in options
    if expected is None or expected is types.NoneType:
        return value is None
    if expected is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if expected is int:
        return isinstance(value, int) and not isinstance(value, bool)
    plain = origin if isinstance(origin, type) else expected
    if plain in (tuple, list):
        return isinstance(value, tuple | list)
    return not isinstance(plain, type) or plain not in _PLAIN or isinstance(value, plain)


def _type_name(knob: Knob) -> str:
    expected = _type_of(knob)
    return expected.__name__ if isinstance(expected, type) else str(expected)


def _literal(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _malformed(option: str, what: str) -> Diagnostic:
    return error("MUF008", f"{option}: {what}", hint=f"write {option} n_embd=128,n_head=2")
