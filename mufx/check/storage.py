"""Finished runs in a file, one line each, so that a check that was stopped goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from mufx.check.training import Run
from mufx.diagnostics import MufxError, error

FILE: Final = "runs.jsonl"


@dataclass
class Runs:
    """The runs of one check that are comparable, by variant, width and seed.

    Attributes:
        file: Where each is appended when it ends; None keeps them in memory only.
        settings: A digest of everything that makes runs comparable; other lines are left alone.
    """

    file: Path | None
    settings: str
    _done: dict[str, Run] = field(default_factory=dict[str, Run])

    def __post_init__(self) -> None:
        """Takes up what an earlier process finished; a last line that was cut off is run again."""
        if self.file is None or not self.file.exists():
            return
        for line in self.file.read_text(encoding="utf-8").splitlines():
            try:
                record = json.loads(line)
                if record["settings"] == self.settings:
                    self._done[record["key"]] = Run(**record["run"])
            except (ValueError, KeyError, TypeError):
                continue

    def get(self, variant: str, width: int, seed: int, make: Callable[[], Run]) -> Run:
        """The run of that name: an earlier one, or what `make` returns, kept."""
        key = f"{variant} {width} {seed}"
        if key not in self._done:
            self._done[key] = make()
            self._append(key)
        return self._done[key]

    def _append(self, key: str) -> None:
        if self.file is None:
            return
        record = {"settings": self.settings, "key": key, "run": asdict(self._done[key])}
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.file.open("a+", encoding="utf-8") as file:
                if _is_cut(self.file):
                    file.write("\n")
                file.write(json.dumps(record) + "\n")
        except OSError as problem:
            what = f"{self.file} cannot be written: {problem.strerror or problem}"
            hint = "name a folder that can be written"
            raise MufxError(error("MUF015", what, hint=hint)) from problem


def _is_cut(file: Path) -> bool:
    """Whether a process was stopped while it wrote the last line."""
    held = file.read_bytes()
    return bool(held) and not held.endswith(b"\n")
