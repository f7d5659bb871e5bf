"""What is asked of a check."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from mufx.diagnostics import MufxError, error


class Variant(StrEnum):
    """What is trained: the user's class; the emitted module; the user's class with `mufx.apply`."""

    SP = "sp"
    MUP = "mup"
    APPLIED = "applied"


@dataclass(frozen=True, slots=True)
class Request:
    """A check as it is typed; see the options of `mufx check`."""

    widths: tuple[int, ...] | None = None
    steps: int = 15
    seeds: int = 3
    lr: float = 1e-3
    batch: int = 8
    optimizer: str = "adamw"
    form: str = "table3"
    device: str = "cpu"
    data: str | None = None
    variants: tuple[Variant, ...] = tuple(Variant)


def parsed(widths: str | None) -> tuple[int, ...] | None:
    """Widths as they are typed.

    Raises:
        MufxError: `MUF761` for what is no list of positive integers.
    """
    if widths is None:
        return None
    parts = [part.strip() for part in widths.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        what, hint = f"--widths {widths} is no list of widths", "write --widths 64,128,256,512"
        raise MufxError(error("MUF761", what, hint=hint))
    return tuple(int(part) for part in parts)
