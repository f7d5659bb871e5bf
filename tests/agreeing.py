"""Writes docs/check-agreement.md: predicted and measured first steps of the examples.

python -m tests.agreeing
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mufx.check.experiment import Experiment
from mufx.check.request import Variant
from mufx.check.result import NodeRow
from mufx.check.watch import activations
from mufx.sweep.settings import Parametrization, Point
from tests.attributing import Cause, Division, divided
from tests.checks import CASES, Case

PAGE = Path(__file__).parent.parent / "docs" / "check-agreement.md"
OPTIMIZERS = ("adamw", "sgd")
_APART = 0.1
_SHAPE = Cause("the shape")
VARIANTS = (Variant.SP, Variant.MUP)
WIDER_PAIRS = (("gpt", "sgd"), ("llama", "sgd"), ("encoder", "sgd"))
SOWN = (
    *((name, optimizer, Variant.MUP) for name, optimizer in WIDER_PAIRS),
    ("llama", "adamw", Variant.SP),
    ("llama", "sgd", Variant.SP),
)
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
SEEDS = """
## Twelve seeds

The same at the widths of the first table, with twelve seeds: what differs from seed to seed has
become smaller.

| example | optimizer | variant | nodes | agree | within 0.1 | median difference |
|---|---|---|--:|--:|--:|--:|
"""
MATCHED = """
## Through the same matrix

What the blocks of the Llama add to the stream is x = W y, and its change is W dy beside what W
learns. The mean over the width of x dx, squared, in standard parametrization under SGD, with 24
seeds, over that of as many independent products. *from before* is what the mean of y dy makes of
it: W keeps it, and adds what chance alone gives. *beside* is x dx without it.

| x | width | all | from before | beside |
|---|--:|--:|--:|--:|
"""
LAST = ("layers.0.attn.wo", "layers.0.mlp.w_down", "layers.1.attn.wo", "layers.1.mlp.w_down")
"""The last weight of each block."""
ROOTS = """
## Where they come from

Of every node in standard parametrization that is further apart than 0.1, within its errors or not:
the number at which the largest part of the difference comes in. Each is a number that the
prediction multiplies or adds, measured in real steps (`tests/attributing.py`), with its own slopes.
*nodes* counts of how many it is the largest part. All of these numbers are root mean squares; a
check takes mean absolute values, and where the two grow unlike that is *the shape*.

| example | optimizer | number | predicted | measured | nodes | what is off there |
|---|---|---|--:|--:|--:|---|
"""
NODES = """
## Node by node

The same nodes: measured less predicted, and the two largest parts of that. `x from y` is what y
does to x, `x` alone is how the terms of x compare and add up.

| example | optimizer | node | difference | largest part | next |
|---|---|---|--:|---|---|
"""
UNEVEN = """
## Rows of unlike sizes

How even the sizes of the rows are that the norms of the Llama divide by, in standard
parametrization: the square of the mean of what `mean#1` gives over the mean of its square, which is
1 where all rows are of one size.

| norm | 64 | 128 | 256 | 512 |
|---|--:|--:|--:|--:|
"""
KEYS = """
## Queries, keys and values

The gradients of the queries and of the keys over that of the values, in standard parametrization
under SGD.

| attention | width | query, predicted | measured | key, predicted | measured |
|---|--:|--:|--:|--:|--:|
"""
ATTENTIONS = (
    ("gpt", "h.0.attn:scaled_dot_product_attention#1"),
    ("encoder", "encoder.layers.1.self_attn:scaled_dot_product_attention#1"),
)


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


def apart(rows: Iterable[NodeRow]) -> bool:
    """Whether any node in standard parametrization is further apart than 0.1."""
    return any(abs(difference(r)) > _APART for r in rows if r.variant is Variant.SP)


def summary(name: str, optimizer: str, rows: Iterable[NodeRow]) -> str:
    """A line for each variant."""
    lines: list[str] = []
    for variant in VARIANTS:
        mine = [row for row in rows if row.variant is variant]
        if not mine:
            continue
        off = np.abs([difference(row) for row in mine])
        agree = sum(not row.disagrees for row in mine)
        numbers = f"{len(mine)} | {agree} | {(off <= _APART).sum()} | {np.median(off):.2f}"
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
    off = np.abs([difference(row) for row in rows])
    numbers = f"{len(rows)} | {(off <= _APART).sum()} | {np.median(off):.2f}"
    return f"| {name} | {optimizer} | {numbers} |\n"


def sown(name: str, optimizer: str, variant: Variant) -> str:
    """One with twelve seeds."""
    return summary(name, optimizer, first_steps(CASES[name], optimizer, (variant,), seeds=12))


def doublings(optimizer: str, widths: tuple[int, ...] = (512, 1024, 2048, 4096)) -> str:
    """The slope of the readout of the MLP from each width to the next, in SP."""
    case = replace(CASES["mlp"], base={"width": widths[0]})
    found = case.check(Variant.SP, optimizer=optimizer, steps=1)
    changes = [[r.first["out:linear#1"] for r in found.runs[Variant.SP][w]] for w in widths]
    slopes = np.diff(np.log(changes).mean(axis=1)) / np.log(2)
    return f"| {optimizer} | " + " | ".join(f"{slope:+.2f}" for slope in slopes) + " |\n"


def division(name: str, optimizer: str) -> Division:
    """What was predicted and measured of an example, number by number."""
    return divided(CASES[name].experiment(Variant.SP, optimizer=optimizer, steps=1, seeds=3))


def roots(name: str, optimizer: str, found: Division, rows: Iterable[NodeRow]) -> tuple[str, str]:
    """A line for each cause of what is further apart than 0.1, and a line for each such node."""
    far = [r for r in rows if r.variant is Variant.SP and abs(difference(r)) > _APART]
    parts = {row: _largest(_causes(found, row)) for row in far}
    counts = Counter(causes[0][0] for causes in parts.values())
    lines = ""
    for cause, count in counts.most_common():
        number, what = _root(found, cause)
        lines += f"| {name} | {optimizer} | {number} | {count} | {what} |\n"
    return lines, "".join(
        f"| {name} | {optimizer} | `{row.node}` | {-difference(row):+.2f} | "
        + " | ".join(f"{part:+.2f} {_short(found, cause)}" for cause, part in causes)
        + " |\n"
        for row, causes in parts.items()
    )


def _causes(found: Division, row: NodeRow) -> dict[Cause, float]:
    """Those of the difference that a check shows; what root mean squares have not, is the shape."""
    (node,) = (node for node, page in found.names.items() if page == row.node)
    return {**found.causes(node), _SHAPE: -difference(row) - found.difference(node)}


def _root(found: Division, cause: Cause) -> tuple[str, str]:
    """Its number with both slopes, and what is off."""
    if cause == _SHAPE:
        return "the shape | | ", "mean absolute values grow unlike root mean squares"
    slopes = [found.slope(of(cause.name)) for of in (found.predicted, found.measured)]
    numbers = " | ".join(f"{slope:+.2f}" for slope in slopes)
    return f"{found.called(cause.name)} | {numbers}", said(found, cause)


def _largest(causes: Mapping[Cause, float]) -> list[tuple[Cause, float]]:
    return sorted(causes.items(), key=lambda item: -abs(item[1]))[:2]


def _short(found: Division, cause: Cause) -> str:
    if cause == _SHAPE:
        return "the shape"
    if cause.operand is None:
        return found.called(cause.name)
    return f"{found.called(cause.name)} from {found.called(cause.operand)}"


def said(found: Division, cause: Cause) -> str:
    """What is off at a number, with its size at the smallest and at the largest width."""
    ends = f"at {found.widths[0]} and at {found.widths[-1]}"
    if cause.operand is not None:
        gains = found.gains(cause.name, cause.operand)
        times = f"{gains[0]:.2f} and {gains[-1]:.2f} times as predicted {ends}"
        return f"what {found.called(cause.operand)} does to it is {times}"
    terms = found.operands(cause.name)
    if not terms:
        return "it is no sum of terms"
    adding = found.adding(cause.name)
    whole = f"they add up to {adding[0]:.2f} and {adding[-1]:.2f} times as predicted {ends}"
    if len(terms) == 1:
        return whole
    one, other = found.leading(cause.name)
    balance = found.balance(cause.name, one, other)
    return (
        f"{found.called(one)} brings {balance[0]:.2f} and {balance[-1]:.2f} times as much over "
        f"{found.called(other)} as predicted; {whole}"
    )


def uneven(case: Case, seeds: int = 3) -> str:
    """A line for each norm: how even the sizes of its rows are, by width."""
    made = case.experiment(Variant.SP, optimizer="sgd", steps=1, seeds=seeds)
    found: dict[str, list[float]] = defaultdict(list)
    for (width, knobs), seed in itertools.product(made.models.widths.items(), range(seeds)):
        model, _ = made.models.made(Point(Parametrization.SP, width, seed), {"lr": case.lr})
        (args, kwargs), *_ = made.feed.batches(seed, 2, made.models.device, knobs)
        for name, value in activations(model, (args[: made.feed.loss.positional], kwargs)).items():
            if name.endswith(":mean#1"):
                found[name].append(float(value.mean().square() / value.square().mean()))
    return "".join(
        f"| `{name}` | "
        + " | ".join(f"{np.mean(values[i : i + seeds]):.2f}" for i in range(0, len(values), seeds))
        + " |\n"
        for name, values in found.items()
    )


def matched(case: Case, seeds: int = 24) -> str:
    """A line for the last weight of each block, at the smallest and at the largest width."""
    made = case.experiment(Variant.SP, optimizer="sgd", steps=1, seeds=seeds)
    widths = sorted(made.models.widths)
    lines: list[str] = []
    for name, width in itertools.product(LAST, (widths[0], widths[-1])):
        parts = [_products(made, name, width, seed) for seed in range(seeds)]
        numbers = " | ".join(f"{part:.2f}" for part in np.mean(parts, axis=0))
        lines.append(f"| `{name}` | {width} | {numbers} |\n")
    return "".join(lines)


def _products(made: Experiment, name: str, width: int, seed: int) -> tuple[float, float, float]:
    """Of one weight and seed: all, what comes from before the weight, and the rest."""
    model, optimizer = made.models.made(Point(Parametrization.SP, width, seed), {"lr": 1e-6})
    batch, *_ = made.feed.batches(seed, 2, made.models.device, made.models.widths[width])
    model.double()
    seen: list[tuple[Tensor, Tensor]] = []
    weight = model.get_submodule(name)
    assert isinstance(weight, nn.Linear)
    weight.register_forward_hook(lambda _, given, x: seen.append((given[0].detach(), x.detach())))
    size = float(weight.weight.detach().square().mean())
    torch.autograd.backward(made.feed.loss(model, batch))
    optimizer.step()
    made.feed.loss(model, batch)
    (y, x), (moved_y, moved_x) = seen
    dy, dx = moved_y - y, moved_x - x
    before, after = size * x.shape[-1] * (y * dy).sum(-1), (x * dx).sum(-1)
    independent = (x.square().sum(-1) * dx.square().sum(-1)).mean() / x.shape[-1]
    all_of_it, kept, rest = (
        float(part.square().mean() / independent) for part in (after, before, after - before)
    )
    return all_of_it, kept, rest


def attention(name: str, node: str) -> str:
    """By width: the gradients of queries and keys over those of values."""
    found = division(name, "sgd")
    (inner,) = (inner for inner, page in found.names.items() if page == node)
    query, key, value = (f"gradient of {operand}" for operand in found.wanted[0].terms[inner])
    lines: list[str] = []
    for i, width in enumerate(found.widths):
        sizes = [
            np.exp(sizes(part)[i] - sizes(value)[i])
            for part in (query, key)
            for sizes in (found.predicted, found.measured)
        ]
        lines.append(f"| `{node}` | {width} | " + " | ".join(f"{s:.3f}" for s in sizes) + " |\n")
    return "".join(lines)


def main() -> None:
    """Measures all and writes the page."""
    pairs = list(itertools.product(CASES, OPTIMIZERS))
    found = {pair: first_steps(CASES[pair[0]], pair[1]) for pair in pairs}
    table = "".join(summary(*pair, rows) for pair, rows in found.items())
    rest = "".join(worst(*pair, rows) for pair, rows in found.items())
    causes = [roots(*pair, division(*pair), rows) for pair, rows in found.items() if apart(rows)]
    origins = ROOTS + "".join(root for root, _ in causes)
    nodes = NODES + "".join(node for _, node in causes)
    beyond = WIDER + "".join(itertools.starmap(wider, WIDER_PAIRS))
    seeds = SEEDS + "".join(itertools.starmap(sown, SOWN))
    further = FURTHER + "".join(map(doublings, OPTIMIZERS))
    keys = KEYS + "".join(itertools.starmap(attention, ATTENTIONS))
    rows = UNEVEN + uneven(CASES["llama"]) + MATCHED + matched(CASES["llama"])
    page = HEAD + table + WORST + rest + origins + rows + beyond + seeds + further + keys + nodes
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
