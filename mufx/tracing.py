"""From a Source to a Program: the model built and recorded at every size, and aligned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Final

from mufx.align import Trace, align
from mufx.construction import Construction, owner_of, record_construction
from mufx.diagnostics import Diagnostic, MufxError, note
from mufx.drawing import Draw
from mufx.forward import record_forward
from mufx.loading import quiet
from mufx.modes import in_other_mode
from mufx.precision import taken_types
from mufx.program import Form, Optimizer, Program
from mufx.recording import Precision, Recording
from mufx.rules import RULES, RuleTable, operation
from mufx.sizes import same
from mufx.source import Source
from mufx.spelled import READ, SPELLED

Knobs = Mapping[str, object]


def trace(
    source: Source,
    *,
    optimizer: str = "adamw",
    form: str = "table3",
    rules: RuleTable = RULES,
    batch: int = 2,
) -> Program:
    """Builds and records the model at base width, at target width and further along the way.

    Everything happens on `meta`: neither memory nor arithmetic, at any size.

    Args:
        source: What to convert.
        optimizer: "adam", "adamw" or "sgd".
        form: "table3", "table8" or "table9".
        rules: The op rules.
        batch: The batch size of the example inputs; it stays free in what is emitted.

    Raises:
        MufxError: The model does not build or run without memory (`MUF10x`), or base and target
            record different graphs (`MUF106`).
    """
    along, remarks = _along(source)
    settings = (Optimizer(optimizer), Form(form), rules, batch)
    try:
        return _traced(source, along, *settings).report(*remarks)
    except MufxError as problem:
        if along == source.target or source.base == source.target:
            raise
        remark = _not_along(along, problem)
    return _traced(source, source.target, *settings).report(remark)


def _traced(
    source: Source, along: Knobs, optimizer: Optimizer, form: Form, rules: RuleTable, batch: int
) -> Program:
    builds = [_build(source, knobs) for knobs in (source.base, source.target, along)]
    inputs = [source.inputs(batch, knobs) for knobs in (source.base, source.target, along)]
    spelled: dict[Callable[..., object], Callable[..., object]] = {}

    def record(training: bool) -> Trace:
        recordings = [
            record_forward(build.model, given, training=training, free_sizes=free, spelled=spelled)
            for build, given, free in zip(builds, inputs, (False, True, False), strict=True)
        ]
        base, target, further = recordings
        return align(base, target, further, training)

    def lowered(training: bool, precision: Precision) -> Recording:
        model = builds[0].model
        return record_forward(
            model, inputs[0], training=training, precision=precision, spelled=spelled
        )

    train = record(True)
    spelled.update(_to_spell(train))
    if spelled:
        train = record(True)
    train = taken_types(train, partial(lowered, True))
    fixed = record_forward(builds[1].model, inputs[1], training=False, spelled=spelled)
    evaluate = in_other_mode(train, fixed)
    if evaluate is None:
        evaluate = taken_types(record(False), partial(lowered, False))
    read = {n.target for t in (train, evaluate) for n in t.graph.nodes if n.op == "get_attr"}
    base, target, further = (b.without({*b.attributes} - read) for b in builds)
    found = [d for t in (train, evaluate) for d in t.recording.diagnostics]
    found += _registered(target)
    found += map(_drawn, target.draws_outside)
    return Program(
        source, optimizer, form, base, target, further, along, train, evaluate, rules
    ).report(*found)


def _build(source: Source, knobs: Knobs) -> Construction:
    with quiet():
        return record_construction(lambda: source.build(**knobs), registering=True)


def _registered(target: Construction) -> list[Diagnostic]:
    """What is told of tensors that were plain attributes, once for each of a class."""
    told: list[Diagnostic] = []
    for name in target.attributes:
        place, attribute = owner_of(target.model, name), name.rpartition(".")[2]
        told.append(
            note(
                "MUF114",
                f"{place.cls}.{attribute} is a tensor and no buffer: it is one in the emitted "
                "module, moves with it, and stands in no state dict",
                hint="nothing has to be done; to say so in the model: self.register_buffer("
                f'"{attribute}", tensor, persistent=False)',
                place=replace(place, module=""),
            )
        )
    return list(dict.fromkeys(told))


def _drawn(draw: Draw) -> Diagnostic:
    return note(
        "MUF115",
        f"the constructor draws from {draw.generator}: what came out is part of the converted "
        "model, the same for every seed",
        hint="nothing, if one choice will do; else make it before, and pass it in as an argument",
        place=draw.place,
    )


def _along(source: Source) -> tuple[Knobs, list[Diagnostic]]:
    """The third size: `base * (target/base)**2`, or the knobs of `vary` doubled."""
    if source.base == source.target:
        return {k: _doubled(source, k, v) for k, v in source.base.items()}, []
    probe: dict[str, object] = {}
    for name, base in source.base.items():
        target = source.target[name]
        further = _further(base, target)
        if further is _NOWHERE:
            remark = note(
                "MUF110",
                f"{name} = {base} -> {target} has no whole number further along the way, so "
                "numbers that change with width are not checked for following a power",
                hint="choose a target that is a multiple of the base",
            )
            return source.target, [remark]
        probe[name] = further
    return probe, []


def _not_along(along: Knobs, problem: MufxError) -> Diagnostic:
    """What is lost where the model is fine at base and at target, and not further along."""
    knobs = ", ".join(f"{name}={value}" for name, value in along.items())
    first = problem.diagnostics[0]
    return note(
        "MUF110",
        f"further along the way, at {knobs}: {first.message}; so numbers that change with width "
        "are not checked for following a power",
        hint="nothing has to be done; a smaller target leaves room for the check",
        place=first.place,
    )


def _doubled(source: Source, name: str, value: object) -> object:
    return _twice(value) if name in source.vary else value


def _twice(value: object) -> object:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return 2 * value
    if isinstance(value, list | tuple):
        return type(value)(map(_twice, value))
    return value


_NOWHERE: Final = object()
"""What stands for a third value that there is none of; a knob's own value may be `None`."""


def _further(base: object, target: object) -> object:
    if base == target:
        return base
    if isinstance(base, int) and isinstance(target, int) and base > 0 and target > 0:
        square = target * target
        return square // base if square % base == 0 else _NOWHERE
    if isinstance(base, float) and isinstance(target, float) and base:
        return target * target / base
    return _each_further(base, target)


def _each_further(base: object, target: object) -> object:
    """The third size of several: the widths of stages, a configuration inside another."""
    if isinstance(base, Mapping) and isinstance(target, Mapping):
        if base.keys() != target.keys():
            return _NOWHERE
        made = {name: _further(base[name], target[name]) for name in base}
        return _NOWHERE if any(value is _NOWHERE for value in made.values()) else made
    if isinstance(base, list | tuple) and isinstance(target, list | tuple):
        if len(base) != len(target):
            return _NOWHERE
        items = [_further(b, t) for b, t in zip(base, target, strict=True)]
        return _NOWHERE if any(item is _NOWHERE for item in items) else type(base)(items)
    return _NOWHERE


def _to_spell(trace: Trace) -> dict[Callable[..., object], Callable[..., object]]:
    """Fused attention without a scale argument, where its head dimension changes."""
    found: dict[Callable[..., object], Callable[..., object]] = {}
    for node in trace.graph.nodes:
        name = operation(node)
        if name not in SPELLED:
            continue
        width = trace.axes[node.all_input_nodes[0].name][-1].m
        heads = trace.numbers.get((node.name, 4))
        if not same(width, heads.ratio if heads is not None else 1.0):
            fused, spelled = SPELLED[name]
            read = any(operation(user) == "getitem" and user.args[1] == 1 for user in node.users)
            found[fused] = READ[name] if read else found.get(fused, spelled)
    return found
