"""What is typed after `--grow` and `--number`."""

from __future__ import annotations

from collections.abc import Iterable

from mufx.diagnostics import Diagnostic, error, raise_errors


def parse_grow(lines: Iterable[str]) -> dict[str, float]:
    """`residual=4` and `h.*.mlp.c_fc.weight:0=4`, one class each, as `grow` takes them.

    Raises:
        MufxError: `MUF703` for what is no factor.
    """
    grow: dict[str, float] = {}
    problems: list[Diagnostic] = []
    for line in lines:
        name, _, factor = line.rpartition("=")
        number = _number(factor)
        if name and number is not None:
            grow[name] = number
        else:
            problems.append(_malformed("MUF703", "--grow", line, "CLASS=FACTOR: residual=4"))
    raise_errors(problems)
    return grow


def parse_numbers(lines: Iterable[str]) -> dict[str, str | float]:
    """`model.py:57=grows`, `=fixed`, or `=0.5`, as `numbers` takes them.

    Raises:
        MufxError: `MUF707` for what is no answer.
    """
    answers: dict[str, str | float] = {}
    problems: list[Diagnostic] = []
    for line in lines:
        place, _, answer = line.rpartition("=")
        number = _number(answer)
        if place and answer:
            answers[place] = answer if number is None else number
        else:
            problems.append(_malformed("MUF707", "--number", line, "PLACE=ANSWER: m.py:57=grows"))
    raise_errors(problems)
    return answers


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _malformed(code: str, option: str, line: str, form: str) -> Diagnostic:
    return error(code, f"{option} {line!r} is not of the form {form}", hint="one option for each")
