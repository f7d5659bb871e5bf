"""Source text with holes.

A number or truth value in emitted text is written as a hole that carries its name and value.
Texts that are equal but for their holes come from one structure: instances of one class, or one
class in training and in evaluation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_HOLE = re.compile(r"⟦([^=⟧]*)=([^⟧]*)⟧")
_OPENING, _CLOSING = ("(", "[", "=", ", ", "{"), (")", "]", ",", "}")


@dataclass(frozen=True, slots=True)
class Hole:
    """A value in a text; `name` is what a constructor would call it."""

    name: str
    value: str


def hole(value: object, name: str = "") -> str:
    """The text of a hole."""
    text = float.__repr__(value) if isinstance(value, float) else repr(value)  # numpy's, too
    return f"⟦{name}={text}⟧"


def holes(text: str) -> list[Hole]:
    """All holes of a text, in order."""
    return [Hole(*found) for found in _HOLE.findall(text)]


def skeleton(text: str) -> str:
    """The text with its holes emptied."""
    return _HOLE.sub("⟦⟧", text)


def filled(text: str, choose: Callable[[int, Hole], str] = lambda _, h: h.value) -> str:
    """The text with each hole replaced by what `choose` says for its index."""
    count = -1

    def one(match: re.Match[str]) -> str:
        nonlocal count
        count += 1
        return choose(count, Hole(match[1], match[2]))

    return _HOLE.sub(one, text)


def merged(train: Sequence[str], evaluate: Sequence[str]) -> list[str] | None:
    """One text for both modes: `a if self.training else b` where a hole differs.

    `None` if more than holes differ.
    """
    if [skeleton(line) for line in train] != [skeleton(line) for line in evaluate]:
        return None
    return [_merged_line(a, b) for a, b in zip(train, evaluate, strict=True)]


def _merged_line(train: str, evaluate: str) -> str:
    others = holes(evaluate)

    def choose(index: int, own: Hole) -> str:
        other = others[index]
        mine = f"⟦{own.name}={own.value}⟧"
        if own.value == other.value or (_is_zero(own) and _is_zero(other)):
            return mine
        if (own.value, other.value) == ("True", "False"):
            return "self.training"
        both = f"{mine} if self.training else ⟦{other.name}={other.value}⟧"
        return both if _stands_alone(train, index) else f"({both})"

    return filled(train, choose)


def _is_zero(number: Hole) -> bool:
    """0 and 0.0 are one number in two spellings."""
    return number.value in ("0", "0.0")


def _stands_alone(line: str, index: int) -> bool:
    """Whether the hole is a whole argument, so that it needs no parentheses."""
    match = list(_HOLE.finditer(line))[index]
    before, after = line[: match.start()], line[match.end() :]
    return before.endswith(_OPENING) and after.startswith(_CLOSING)
