"""Writes docs/check-agreement.md: predicted and measured first steps of the examples.

python -m tests.agreeing
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from mufx.check.request import Variant
from mufx.check.result import NodeRow
from tests.checks import CASES, Case, text

PAGE = Path(__file__).parent.parent / "docs" / "check-agreement.md"
OPTIMIZERS = ("adamw", "sgd")
VARIANTS = (Variant.SP, Variant.MUP)
WIDER_PAIRS = (("gpt", "sgd"), ("llama", "sgd"), ("encoder", "sgd"))
HEAD = """# Predicted and measured

Written by `python -m tests.agreeing`: for every node of the examples, the slope over width of what
one small step changes, as it is predicted from the graph, the inits and the rates, and as it is
measured at four widths (the first 64, 16 channels for the ResNet; the last 8 times as wide) with
three seeds. A node *agrees* where the two are no further apart than 0.1 and two standard errors.
[What keeps them apart](check.md#where-they-disagree).

| example | optimizer | variant | nodes | agree | within 0.1 | median difference |
|---|---|---|--:|--:|--:|--:|
"""
WORST = """
## The nodes that disagree

| example | optimizer | variant | node | predicted | measured |
|---|---|---|---|--:|--:|
"""
WIDER = """
## Four times as wide

The same in the maximal update parametrization, with two seeds from 256 to 2048: what the seeds and
the smallest widths add to the slopes has become smaller.

| example | optimizer | nodes | within 0.1 | median difference |
|---|---|--:|--:|--:|
"""
FURTHER = """
## Further out

The slope of the readout of the MLP in SP, from each width to the next; at infinite width it is 1.5
under Adam and 1 under SGD.

| optimizer | 512 to 1024 | 1024 to 2048 | 2048 to 4096 |
|---|--:|--:|--:|
"""
ROWS = """
## The rows of a fused weight

The root mean square of the gradient of the first `c_attn` of the GPT in SP.

| width | query | key | value |
|---|--:|--:|--:|
"""
ALIKE = """
## Queries and keys of rows that are alike

The root mean square of the gradient of the second `in_proj_weight` of the encoder in SP. The
prediction takes query and key rows for half as large as value rows.

| width | query | key | value |
|---|--:|--:|--:|
"""


def first_steps(
    case: Case, optimizer: str, variants: tuple[Variant, ...] = VARIANTS, seeds: int = 3
) -> list[NodeRow]:
    """The nodes that moved and have a prediction, after a single step."""
    found = case.check(*variants, optimizer=optimizer, steps=1, seeds=seeds)
    return [row for row in found.rows if row.first.value is not None and row.predicted is not None]


def difference(row: NodeRow) -> float:
    """Predicted less measured."""
    assert row.predicted is not None
    assert row.first.value is not None
    return row.predicted - row.first.value


def summary(name: str, optimizer: str, rows: Iterable[NodeRow]) -> str:
    """A line for each variant."""
    lines: list[str] = []
    for variant in VARIANTS:
        mine = [row for row in rows if row.variant is variant]
        apart = np.abs([difference(row) for row in mine])
        agree = sum(not row.disagrees for row in mine)
        numbers = f"{len(mine)} | {agree} | {(apart <= 0.1).sum()} | {np.median(apart):.2f}"
        lines.append(f"| {name} | {optimizer} | {variant} | {numbers} |\n")
    return "".join(lines)


def worst(name: str, optimizer: str, rows: Iterable[NodeRow]) -> str:
    """A line for each node that disagrees."""
    return "".join(
        f"| {name} | {optimizer} | {row.variant} | `{row.node}` | {row.predicted:+.2f} "
        f"| {row.first.value:+.2f} ± {row.first.error:.2f} |\n"
        for row in rows
        if row.disagrees
    )


def wider(name: str, optimizer: str) -> str:
    """A line for the nodes of an example that starts four times as wide."""
    case = CASES[name]
    base = {knob: n * 4 if knob in case.growing else n for knob, n in case.base.items()}
    rows = first_steps(replace(case, base=base), optimizer, (Variant.MUP,), seeds=2)
    apart = np.abs([difference(row) for row in rows])
    numbers = f"{len(rows)} | {(apart <= 0.1).sum()} | {np.median(apart):.2f}"
    return f"| {name} | {optimizer} | {numbers} |\n"


def doublings(optimizer: str, widths: tuple[int, ...] = (512, 1024, 2048, 4096)) -> str:
    """The slope of the readout of the MLP from each width to the next, in SP."""
    case = replace(CASES["mlp"], base={"width": widths[0]})
    found = case.check(Variant.SP, optimizer=optimizer, steps=1)
    changes = [[r.first["out:linear#1"] for r in found.runs[Variant.SP][w]] for w in widths]
    slopes = np.diff(np.log(changes).mean(axis=1)) / np.log(2)
    return f"| {optimizer} | " + " | ".join(f"{slope:+.2f}" for slope in slopes) + " |\n"


def thirds(case: Case) -> str:
    """The root mean square of the gradient of the query, key and value rows of a fused weight."""
    lines: list[str] = []
    source = case.source()
    for width in (64, 128, 256, 512):
        torch.manual_seed(0)
        model = source.build(**{**case.base, case.growing[0]: width})
        torch.autograd.backward(model(*next(iter(text(16)(case.batch))))[1])
        gradient = model.get_parameter("h.0.attn.c_attn.weight").grad
        assert gradient is not None
        sizes = [float(part.square().mean().sqrt()) for part in gradient.chunk(3)]
        lines.append(f"| {width} | " + " | ".join(f"{size:.1e}" for size in sizes) + " |\n")
    return "".join(lines)


def alike(case: Case) -> str:
    """The same of the encoder, whose second attention meets rows that the first made alike."""
    lines: list[str] = []
    source = case.source()
    for width in (64, 128, 256, 512):
        torch.manual_seed(0)
        grown = dict.fromkeys(case.growing, width) | {"dim_feedforward": 2 * width}
        model = source.build(**{**case.base, **grown})
        tokens, targets = next(iter(text(16)(case.batch)))
        loss = cross_entropy(model(tokens).flatten(0, 1), targets.flatten())
        torch.autograd.backward(loss)
        gradient = model.get_parameter("encoder.layers.1.self_attn.in_proj_weight").grad
        assert gradient is not None
        sizes = [float(part.square().mean().sqrt()) for part in gradient.chunk(3)]
        lines.append(f"| {width} | " + " | ".join(f"{size:.1e}" for size in sizes) + " |\n")
    return "".join(lines)


def main() -> None:
    """Measures all and writes the page."""
    pairs = list(itertools.product(CASES, OPTIMIZERS))
    found = {pair: first_steps(CASES[pair[0]], pair[1]) for pair in pairs}
    table = "".join(summary(*pair, rows) for pair, rows in found.items())
    rest = "".join(worst(*pair, rows) for pair, rows in found.items())
    beyond = WIDER + "".join(itertools.starmap(wider, WIDER_PAIRS))
    further = FURTHER + "".join(map(doublings, OPTIMIZERS))
    rows = ROWS + thirds(CASES["gpt"]) + ALIKE + alike(CASES["encoder"])
    PAGE.write_text(HEAD + table + WORST + rest + beyond + further + rows, encoding="utf-8")


if __name__ == "__main__":
    main()
