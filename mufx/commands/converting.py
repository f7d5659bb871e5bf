"""From what was typed to a source, and to its conversion."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from mufx.commands.printing import Progress, working
from mufx.diagnostics import Diagnostic, MufxError

if TYPE_CHECKING:
    from mufx.api import Conversion
    from mufx.inputs import Inputs
    from mufx.knobs import Knobs
    from mufx.source import Source

_T = TypeVar("_T")


def convert_source(source: Source, *, optimizer: str, form: str, progress: Progress) -> Conversion:
    """The conversion; imported when it is needed."""
    from mufx import api

    return api.convert_source(source, optimizer=optimizer, form=form, progress=progress)


def converted(
    spec: str,
    base: str | None,
    target: str | None,
    vary: str | None,
    inputs: list[str] | None,
    batch: int | None,
    form: str,
    optimizer: str,
) -> Conversion:
    """Loads and converts; what the user's code prints goes to stderr."""
    with redirect_stdout(sys.stderr), working() as progress:
        progress(f"loading {spec}")
        source = loaded(spec, base, target, vary, inputs, batch)
        return convert_source(source, optimizer=optimizer, form=form, progress=progress)


def loaded(
    spec: str,
    base: str | None,
    target: str | None,
    vary: str | None,
    inputs: list[str] | None,
    batch: int | None,
) -> Source:
    """The source that a specification and its options, as they were typed, describe.

    Raises:
        MufxError: every option that cannot be read, or what `mufx.load` refuses.
    """
    from mufx.inputs import parse_input
    from mufx.knobs import parse_knobs
    from mufx.source import load

    problems: list[Diagnostic] = []
    low = _parsed(problems, lambda: parse_knobs(base, "--base") if base is not None else None)
    high = _parsed(
        problems, lambda: parse_knobs(target, "--target") if target is not None else None
    )
    specs = [_parsed(problems, partial(parse_input, line)) for line in inputs or ()]
    if problems:
        raise MufxError(*problems)
    grow = [name.strip() for name in vary.split(",")] if vary else []
    source = load(spec, low, high, [s for s in specs if s is not None] or None, grow)
    return source if batch is None else _at_batch(source, batch)


def _parsed(problems: list[Diagnostic], parse: Callable[[], _T]) -> _T | None:
    """The result, or None after its problems were added to the others."""
    try:
        return parse()
    except MufxError as problem:
        problems.extend(problem.diagnostics)
        return None


def _at_batch(source: Source, batch: int) -> Source:
    """The same source, with the example inputs of one batch size."""

    def inputs(_: int, knobs: Knobs) -> Inputs:
        return source.inputs(batch, knobs)

    return replace(source, inputs=inputs)
