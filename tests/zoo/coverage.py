"""Writes docs/coverage.md: what becomes of every model of the zoo."""

from __future__ import annotations

import argparse
import logging
import warnings
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from time import process_time

from mufx.api import Conversion, convert_source
from mufx.diagnostics import MufxError
from tests.zoo.falls import CAUSES
from tests.zoo.learning import results
from tests.zoo.specs import (
    AUDIO,
    DECODERS,
    ENCODER_DECODERS,
    ENCODERS,
    OTHERS,
    SPECS,
    VISION,
    Spec,
)

PAGE = Path(__file__).parents[2] / "docs" / "coverage.md"
FAMILIES = {
    "Decoders": DECODERS,
    "Encoders": ENCODERS,
    "Encoder-decoders": ENCODER_DECODERS,
    "Vision": VISION,
    "Audio": AUDIO,
    "Other libraries": OTHERS,
}
HEAD = """# Coverage

Public models at tiny sizes, written by `make zoo`. Those of transformers have the name of their
model type, as in `hf:llama`. Each is converted from base to wider targets by unequal factors. The
static proof finds nothing in what converts, and at base width the emitted model has the original's
initial values and results bit for bit, in training and in evaluation. The roles of every parameter
stand in `tests/golden/zoo`. *in*, *hid*, *out* and *sc* count the input, hidden, output and scalar
parameters; *corrections* counts the places of the forward pass that changed; *s* is processor time.
What is refused has its code, explained under refusals.

*change*, *median* and *SP* are of the dynamic check, at four widths up to sixteen times base: the
largest slope of what any activation learns over width, the median size of these slopes, and the
largest in standard parametrization. 0 is independent of width. They are left empty where the check
has not run.

One row does not pass the dynamic check, `mamba2-heads`: Mamba 2 computes A as -(1, ..., heads), a
conversion keeps these values and tells so (`MUF204`), so that ever more heads forget at once. With
heads that grow in size, not in number, `mamba2` passes.
"""
FALLS = """
## What falls

A change that falls with the width by more than 0.3 is looked into. Each has one of these causes,
of which the test demands what is measured beside, and which explains no fall below the slope given.

| cause | what happens | measured beside | lowest slope |
|---|---|---|--:|
"""
FELL = """
These fell, where the check has run since falls are kept; the nodes are `module:operation`, with
`*` for every block.

| model | nodes | how many | lowest slope | cause |
|---|---|--:|--:|---|
"""
COLUMNS = (
    "| model | result | in | hid | out | sc | corrections | notes | change | median | SP | s |\n"
    "|---|---|--:|--:|--:|--:|--:|---|--:|--:|--:|--:|\n"
)


def row(spec: Spec) -> str:
    """One line of a table."""
    start = process_time()
    try:
        conversion = convert_source(spec.source())
    except MufxError as problem:
        code, seconds = problem.diagnostics[0].code, process_time() - start
        return f"| `{spec.name}` | refused, {code} | | | | | | | | | | {seconds:.1f} |\n"
    seconds = process_time() - start
    return (
        f"| `{spec.name}` | converts | {_found(conversion)} | {_learned(spec)} | {seconds:.1f} |\n"
    )


def _learned(spec: Spec) -> str:
    found = results(spec)
    if found is None:
        return " | | "
    return f"{found['largest']:+.3f} | {found['median']:.3f} | {found['standard']:+.3f}"


def _found(conversion: Conversion) -> str:
    manifest = conversion.manifest
    roles = Counter(str(entry.role) for entry in manifest.parameters.values())
    counts = (str(roles[role]) for role in ("input", "hidden", "output", "scalar"))
    changed = len(manifest.changes) + len(conversion.program.buffers)
    notes = ", ".join(sorted({d.code for d in manifest.diagnostics}))
    return " | ".join([*counts, str(changed), notes])


def page(workers: int) -> str:
    """The page."""
    parts = [HEAD]
    with ProcessPoolExecutor(workers, get_context("spawn"), _quiet) as pool:
        rows = iter(list(pool.map(row_of, range(len(SPECS)))))
    for family, specs in FAMILIES.items():
        parts.append(f"\n## {family}\n\n{COLUMNS}" + "".join(next(rows) for _ in specs))
    return "".join([*parts, falls()])


def falls() -> str:
    """The causes of falls, and what fell."""
    causes = [f"| {c.name} | {c.why} | {c.measured} | {c.lowest:+.2f} |\n" for c in CAUSES]
    fell = [
        f"| `{spec.name}` | `{fall['nodes']}` | {fall['number']} | {fall['lowest']:+.2f} "
        f"| {fall['cause'] or 'unknown'} |\n"
        for spec in SPECS
        for fall in (results(spec) or {}).get("falls", ())
    ]
    return FALLS + "".join(causes) + (FELL + "".join(fell) if fell else "")


def row_of(index: int) -> str:
    """The line of the model at an index of `SPECS`."""
    return row(SPECS[index])


def _quiet() -> None:
    """What the libraries warn of is theirs."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)


def main() -> None:
    """Writes the page, or the file that is named."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("page", nargs="?", type=Path, default=PAGE)
    options.add_argument("--workers", type=int, default=2)
    given = options.parse_args()
    given.page.write_text(page(given.workers), encoding="utf-8")


if __name__ == "__main__":
    main()
