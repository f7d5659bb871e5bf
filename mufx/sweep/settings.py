"""What one sweep is: the settings that make its trials comparable, and the points to try."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from itertools import product

from mufx.sweep.values import Hyperparameter, Value


class Parametrization(StrEnum):
    """What is trained: the user's class at a width, or its conversion to that width."""

    SP = "sp"
    MUP = "mup"


@dataclass(frozen=True, slots=True)
class Settings:
    """What every trial of a study has in common: trials of other settings compare with none.

    Attributes:
        model: The class of the model.
        source: The sha256 of the user's file, and of the neighbours that it imports.
        scales: The sha256 of what the conversion to target decided.
        data: The same of the file with the batches.
        base: The knobs at base width.
        way: By growing knob: the power of the first one's growth that it follows.
        optimizer: "adam", "adamw" or "sgd".
        form: "table3", "table8" or "table9".
        steps: Training steps of a trial.
        batch: The batch size.
        warmup: The fraction of the steps in which the rates rise.
        decay: How they fall: "constant", "linear" or "cosine".
        fixed: The hyperparameters that are not swept.
    """

    model: str
    source: str
    scales: str
    data: str
    base: Mapping[str, object]
    way: Mapping[str, float]
    optimizer: str
    form: str
    steps: int
    batch: int
    warmup: float = 0.0
    decay: str = "constant"
    fixed: Mapping[str, Value] = field(default_factory=dict[str, Value])

    def document(self) -> dict[str, object]:
        """The settings as JSON gives them back."""
        document: dict[str, object] = json.loads(json.dumps(asdict(self), default=repr))
        return document


@dataclass(frozen=True, slots=True)
class Point:
    """One training run: what is trained, how wide, from which seed, with which values.

    With a sampler the values are open, and `draw` counts the runs of one line and seed.
    """

    parametrization: Parametrization
    width: int
    seed: int
    values: tuple[tuple[str, Value], ...] = ()
    draw: int = 0

    @property
    def key(self) -> str:
        """The point as text: the same on every machine, and equal only for equal points."""
        parts = [self.parametrization, self.width, self.seed, self.draw, self.values]
        return json.dumps(parts)

    @property
    def line(self) -> str:
        """What the values of one line are drawn for: `mup 256`."""
        return f"{self.parametrization} {self.width}"

    @staticmethod
    def of_key(key: str) -> Point:
        """The point that a key was made from."""
        parametrization, width, seed, draw, values = json.loads(key)
        pairs = tuple((str(name), value) for name, value in values)
        return Point(Parametrization(parametrization), width, seed, pairs, draw)


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that is to be run; narrow and cheap first, both parametrizations in turn.

    `draws` is None for the grid, else how many values a sampler draws for each line and seed.
    `only` is one choice of values, that alone is run.
    """

    settings: Settings
    over: tuple[Hyperparameter, ...]
    widths: tuple[int, ...]
    seeds: tuple[int, ...]
    parametrizations: tuple[Parametrization, ...] = tuple(Parametrization)
    draws: int | None = None
    only: tuple[tuple[str, Value], ...] | None = None

    def at(
        self, values: Mapping[str, Value], seeds: Iterable[int], parametrization: Parametrization
    ) -> Plan:
        """Runs of one parametrization with one choice of values, in the same study."""
        only = tuple((h.name, values[h.name]) for h in self.over)
        return replace(
            self, seeds=tuple(seeds), parametrizations=(parametrization,), draws=None, only=only
        )

    def points(self) -> Iterator[Point]:
        """Every point, once."""
        for width, seed in product(self.widths, self.seeds):
            for values, draw in self._values():
                for parametrization in self.parametrizations:
                    yield Point(parametrization, width, seed, values, draw)

    def _values(self) -> Iterator[tuple[tuple[tuple[str, Value], ...], int]]:
        if self.only is not None:
            yield self.only, 0
            return
        if self.draws is not None:
            yield from (((), draw) for draw in range(self.draws))
            return
        for values in product(*(h.values for h in self.over)):
            yield tuple(zip((h.name for h in self.over), values, strict=True)), 0
