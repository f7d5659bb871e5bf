"""What is asked of a check."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from mufx.diagnostics import Diagnostic, MufxError, error
from mufx.sweep.values import parse_values


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
    """Widths as they are typed: `64,128,256,512`, or `64:512`.

    Raises:
        MufxError: `MUF761` for what is no list of positive integers.
    """
    if widths is None:
        return None
    try:
        values = parse_values(widths)
    except ValueError as problem:
        raise MufxError(_malformed(widths, str(problem))) from None
    whole = tuple(int(v) for v in values if isinstance(v, int | float) and v == int(v) > 0)
    if len(whole) != len(values):
        raise MufxError(_malformed(widths, "holds what is no width"))
    return whole


def _malformed(widths: str, why: str) -> Diagnostic:
    hint = "write --widths 64,128,256,512 or 64:512"
    return error("MUF761", f"--widths {widths} {why}", hint=hint)
