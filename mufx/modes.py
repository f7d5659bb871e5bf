"""Training and evaluation: the second mode from the first, where they are the same program.

Most models do the same in both modes but for dropout probabilities and flags. Then the recording
of one mode, with the arguments of the other, is a recording of the other, and a second one with
free sizes need not be made.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import fx

from mufx.align import Trace
from mufx.recording import InputDevice, Recording, Size, moved
from mufx.sizes import Slot


def in_other_mode(train: Trace, other: Recording) -> Trace | None:
    """The trace of evaluation, from that of training and one recording with fixed sizes.

    `None` if the two differ in more than flags and in probabilities that evaluation sets to 0.
    """
    nodes, others = list(train.graph.nodes), list(other.graph.nodes)
    if len(nodes) != len(others):
        return None
    graph = fx.Graph()
    copies: dict[str, fx.Node] = {}
    twins: dict[fx.Node, fx.Node] = {}
    switched: set[tuple[str, Slot]] = set()
    for mine, its in zip(nodes, others, strict=True):
        twins[its] = mine
        if not _same_operation(train, mine, other, its):
            return None
        copy = graph.node_copy(mine, lambda n: copies[n.name])
        copies[mine.name] = copy
        slots: list[tuple[Slot, Any, Any]] = [
            *((i, *pair) for i, pair in enumerate(zip(mine.args, its.args, strict=True))),
            *((k, v, its.kwargs[k]) for k, v in mine.kwargs.items()),
        ]
        for slot, value, its_value in slots:
            if _equal(value, its_value, twins):
                continue
            if not _is_switch(value, its_value):
                return None
            switched.add((mine.name, slot))
            if isinstance(slot, int):
                copy.update_arg(slot, its_value)
            else:
                copy.update_kwarg(slot, its_value)
    recording = replace(
        train.recording,
        graph=graph,
        arguments={k: moved(v, copies) for k, v in train.recording.arguments.items()},
        results={k: moved(v, copies) for k, v in train.recording.results.items()},
    )
    numbers = {key: number for key, number in train.numbers.items() if key not in switched}
    return replace(train, training=False, recording=recording, numbers=numbers)


def _same_operation(train: Trace, mine: fx.Node, other: Recording, its: fx.Node) -> bool:
    if (mine.op, mine.target) != (its.op, its.target) or mine.kwargs.keys() != its.kwargs.keys():
        return False
    if len(mine.args) != len(its.args) or mine.op == "output":
        return len(mine.args) == len(its.args)
    calls = (train.recording.origins[mine.name].call, other.origins[its.name].call)
    return (calls[0] and calls[0].key) == (calls[1] and calls[1].key)


def _equal(mine: Any, its: Any, twins: dict[fx.Node, fx.Node]) -> bool:
    if isinstance(its, fx.Node):
        return twins[its] is mine
    if isinstance(mine, Size):
        return bool(mine.hint == its)
    if isinstance(mine, (tuple, list)):
        return (
            type(mine) is type(its)
            and len(mine) == len(its)
            and all(_equal(a, b, twins) for a, b in zip(mine, its, strict=True))
        )
    if isinstance(mine, dict):
        return mine.keys() == its.keys() and all(_equal(v, its[k], twins) for k, v in mine.items())
    if isinstance(mine, slice):
        parts = zip(
            (mine.start, mine.stop, mine.step), (its.start, its.stop, its.step), strict=True
        )
        return all(_equal(a, b, twins) for a, b in parts)
    if isinstance(mine, InputDevice):
        return True
    return type(mine) is type(its) and bool(mine == its)


def _is_switch(mine: object, its: object) -> bool:
    """A flag, or a probability that evaluation sets to 0."""
    if isinstance(mine, bool) and isinstance(its, bool):
        return True
    return isinstance(mine, (int, float)) and isinstance(its, (int, float)) and its == 0
