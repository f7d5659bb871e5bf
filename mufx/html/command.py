"""The `mufx convert` that writes what a page is about, as it is typed."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mufx.html.places import portable
from mufx.knobs import Knobs, written
from mufx.program import Form, Optimizer

Given = str | int | Sequence[str] | None
"""What an option was given: once, several times, or not."""


@dataclass(frozen=True, slots=True)
class Typed:
    """How a model was named, for the commands that a page shows.

    Attributes:
        spec: The specification; "" for a call from Python, which no command repeats.
        options: What else says which model it is, as words: `--input`, `x:float32[2,4]`.
        instance: Whether it is one instance, whose sizes are among the options.
    """

    spec: str
    options: tuple[str, ...] = ()
    instance: bool = False

    def convert(self, base: Knobs, target: Knobs, optimizer: str, form: str) -> str:
        """The command that converts it."""
        words = ["mufx", "convert", portable(self.spec)]
        if not self.instance:
            words += ["--base", written(base), "--target", written(target)]
        words += self.options
        if optimizer != Optimizer.ADAMW:
            words += ["--optimizer", optimizer]
        if form != Form.TABLE3:
            words += ["--form", form]
        return shlex.join([*words, "-o", "out"])


def typed(spec: str, options: Mapping[str, Given], *, instance: bool = False) -> Typed:
    """What was typed, from the options by name."""
    return Typed(spec, tuple(_words(options)), instance)


def _words(options: Mapping[str, Given]) -> Iterator[str]:
    for name, given in options.items():
        if given is None:
            continue
        for value in [given] if isinstance(given, str | int) else given:
            yield from (name, str(value))
