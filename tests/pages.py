"""A page of every kind, for the tests that look at them; nothing is trained for it."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from pathlib import Path

from mufx.api import Conversion, convert_source
from mufx.auditing.entry import audited_source
from mufx.check.request import Request, Variant
from mufx.check.result import Checked, NodeRow
from mufx.check.slopes import fitted
from mufx.check.training import Run
from mufx.html.document import Document
from mufx.html.joining import Earlier, joined
from mufx.html.of_audit import of_audit
from mufx.html.of_check import of_check
from mufx.html.of_conversion import of_conversion
from mufx.html.of_sweep import of_sweep
from mufx.report import GroupRow
from mufx.source import Source, load
from mufx.sweep.study import Result
from mufx.sweep.summary import summarise
from mufx.sweep.sweeping import Sweep
from tests.sweeps import bowl, plan

EXAMPLES = Path(__file__).parents[1] / "examples"
KINDS = ["convert", "audit", "check", "sweep", "joined"]
WIDTHS = (64, 128, 256, 512)
EXPONENTS = {
    Variant.SP: {"fc:linear#1": 0.0, ":relu#1": 0.5, "out:linear#1": 1.0},
    Variant.MUP: {"fc:linear#1": 0.0, ":relu#1": 0.0, "out:linear#1": 0.0},
}


@cache
def source(name: str) -> Source:
    return load(str(EXAMPLES / f"{name}.py"), None, None, None, [])


@cache
def conversion() -> Conversion:
    """Of the encoder, in a form in which its readout has a multiplier."""
    return convert_source(source("encoder"), form="table8")


@cache
def document(kind: str) -> Document:
    made = {
        "convert": lambda: of_conversion(conversion()),
        "audit": lambda: of_audit(audited_source(source("encoder"))),
        "check": lambda: of_check(checked(), conversion()),
        "sweep": lambda: of_sweep(swept()),
        "joined": lambda: joined(document("convert"), [earlier("check"), earlier("sweep")]),
    }
    return made[kind]()


def earlier(kind: str) -> Earlier:
    """A page as if it were about the model of the others."""
    source = document("convert").source
    return Earlier(Path(f"{kind}.html"), replace(document(kind), source=source))


@cache
def checked() -> Checked:
    """Sizes that are powers of the width; the widest run of SP's second seed diverged."""
    runs = {
        variant: {w: tuple(_run(powers, w, seed) for seed in range(2)) for w in WIDTHS}
        for variant, powers in EXPONENTS.items()
    }
    rows = [row for variant, made in runs.items() for row in _rows(variant, made)]
    diverged = {**runs[Variant.SP], 512: (runs[Variant.SP][512][0], Run({}, {}, {}, diverged=3))}
    runs = {**runs, Variant.SP: diverged}
    return Checked("Net", "width", WIDTHS, Request(), tuple(rows), runs, {}, True)


def _run(powers: dict[str, float], width: int, seed: int) -> Run:
    sizes = {node: 0.1 * (1 + seed / 10) * width**power for node, power in powers.items()}
    return Run(sizes, sizes, sizes)


def _rows(variant: Variant, runs: dict[int, tuple[Run, ...]]) -> list[NodeRow]:
    slopes = fitted({w: [run.changes for run in made] for w, made in runs.items()})
    return [NodeRow(variant, node, s, s, s, 0.0, s, 0.0) for node, s in slopes.items()]


@cache
def swept() -> Sweep:
    """A bowl of losses; the largest rate diverges."""
    chosen = plan()
    found = [Result(p, dict(p.values), bowl(p, dict(p.values))) for p in chosen.points()]
    found = [replace(r, loss=math.inf) if r.values["lr"] == 0.125 else r for r in found]
    groups = (GroupRow("input", 1.0, 1.0, 0.25, 3, 1000), GroupRow("hidden", 0.25, 4.0, 1.0, 1, 9))
    return Sweep(chosen, summarise(chosen, found), "width", {"width": 256}, groups)
