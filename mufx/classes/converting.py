"""`mufx.convert` of one instance: the answers on its init stand for a constructor."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import cast

import torch
from torch import nn

from mufx.align import Trace
from mufx.api import Conversion, convert_program
from mufx.classes.finding import find_identities
from mufx.classes.growing import Grow
from mufx.classes.inits import Fill, Laws, fills
from mufx.classes.numbers import Answers
from mufx.classes.planning import labelled
from mufx.classes.program import program_of
from mufx.construction import Construction, record_construction
from mufx.diagnostics import Diagnostic, error, raise_errors, warning
from mufx.emit.tables import LONGEST
from mufx.forward import record_forward
from mufx.garbage import uncollected
from mufx.inputs import Inputs, from_values
from mufx.precision import taken_types
from mufx.program import Form, Optimizer, Program
from mufx.recording import Precision, Recording
from mufx.rules import RULES, RuleTable
from mufx.source import BATCH, ExampleInputs
from mufx.spelled import SPELLED


@uncollected()
def convert_instance(
    model: nn.Module,
    inputs: ExampleInputs,
    grow: Grow,
    *,
    numbers: Answers | None = None,
    inits: Laws | None = None,
    optimizer: str = "adamw",
    form: str = "table3",
    rules: RuleTable = RULES,
) -> Conversion:
    """Converts a live instance, which is the target; nothing of it is changed.

    The emitted module draws its init anew: constants, and normal draws of the standard deviation
    that the instance's values show. `load_state_dict` gives it the instance's own.

    Args:
        model: The instance, at target width, with the values that it was built with.
        inputs: Example inputs, as in `mufx.convert`.
        grow: The classes that grow, by the names of `mufx.classes.table`, and their size in the
            instance over that at base width.
        numbers: Whether a number in the forward pass follows the width, as `trace_instance`
            takes it.
        inits: How the inits follow the width, by the names of parameters, `*` for any part:
            "fixed", "fan_in" (the standard deviation goes like 1/sqrt(fan-in), as torch's
            layers have it), or the ratio of target to base.
        optimizer: "adam", "adamw" or "sgd".
        form: "table3", "table8" or "table9".
        rules: The op rules.

    Raises:
        MufxError: As `trace_instance` and `mufx.convert`; `MUF711` to `MUF713` of `inits`.
    """
    made = from_values(inputs)(BATCH, {})
    program = program_of(model, made, find_identities(model, made), grow, numbers or {})
    program = replace(program, optimizer=Optimizer(optimizer), form=Form(form), rules=rules)
    return converted(program, model, made, inits or {})


def converted(program: Program, model: nn.Module, inputs: Inputs, laws: Laws) -> Conversion:
    """The conversion of a Program from `program_of`."""
    program = initialised(with_free_sizes(program, model, inputs), model, laws)
    return convert_program(program)


def with_free_sizes(program: Program, model: nn.Module, inputs: Inputs) -> Program:
    """The Program, recorded so that batch and sequence keep no size, nor values a precision."""
    train, evaluate = (_free(trace, model, inputs) for trace in program.traces)
    return replace(program, train=train, evaluate=evaluate)


def _free(trace: Trace, model: nn.Module, inputs: Inputs) -> Trace:
    record = partial(
        record_forward, model, inputs, training=trace.training, spelled=dict(SPELLED.values())
    )
    free = record(free_sizes=True)
    if _operations(free) == _operations(trace.recording):
        trace = replace(trace, recording=free)

    def lowered(precision: Precision) -> Recording:
        return record(precision=precision)

    return taken_types(trace, lowered)


def _operations(recording: Recording) -> list[tuple[str, str, object]]:
    return [(node.name, node.op, node.target) for node in recording.graph.nodes]


# -- what stands for a constructor --------------------------------------------------------------


def initialised(program: Program, model: nn.Module, laws: Laws) -> Program:
    """The Program with an init tape at every size.

    Raises:
        MufxError: `MUF2xx` of the labels, `MUF711` to `MUF713`.
    """
    raise_errors(_tables(model))
    found = fills(labelled(program), model, laws)
    base = _constructed(model, program.base, {n: (f.random, f.base) for n, f in found.items()})
    target = _constructed(
        model, program.target, {n: (f.random, f.target) for n, f in found.items()}
    )
    return replace(program, base=base, target=target).report(*_drawn_anew(found))


def _drawn_anew(found: Mapping[str, Fill]) -> list[Diagnostic]:
    drawn = [name for name, fill in found.items() if fill.random]
    if not drawn:
        return []
    what = (
        f"{drawn[0]} and {len(drawn) - 1} other parameters are drawn anew: from normal "
        "distributions of the standard deviation that their values show"
    )
    hint = "check the standard deviations in init_weights; the shape of a distribution is not known"
    return [warning("MUF710", what, hint=hint)]


def _constructed(
    model: nn.Module, sizes: Construction, values: Mapping[str, tuple[bool, float]]
) -> Construction:
    """The tape of a constructor that makes the model's modules with these sizes and values."""
    shapes = {name: parameter.shape for name, parameter in sizes.model.named_parameters()}

    def build() -> nn.Module:
        made: dict[int, torch.Tensor] = {}
        for name, parameter in model.named_parameters():
            random, size = values[name]
            tensor = torch.empty(shapes[name], dtype=parameter.dtype, device="meta")
            filled = (
                nn.init.normal_(tensor, std=size) if random else nn.init.constant_(tensor, size)
            )
            made[id(parameter)] = nn.Parameter(filled, parameter.requires_grad)
        for name, buffer in model.named_buffers():
            made[id(buffer)] = _filled(sizes.constants[name], buffer)
        return _copied(model, made, {})

    return record_construction(build)


def _tables(model: nn.Module) -> Iterator[Diagnostic]:
    """Buffers of many different numbers, which an emitted file would have to compute."""
    for name, buffer in model.named_buffers():
        if buffer.numel() > LONGEST and not _is_uniform(buffer):
            yield error(
                "MUF713",
                f"{name} is a table of {buffer.numel()} numbers, and an instance does not show how "
                "they are computed",
                hint="give mufx the class, whose constructor computes them",
            )


def _filled(value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    if not _is_uniform(value):
        return value.to(like.dtype)
    return torch.full(like.shape, value.flatten()[0].item(), dtype=like.dtype, device="meta")


def _is_uniform(value: torch.Tensor) -> bool:
    flat = value.flatten()
    return bool(flat.numel()) and bool((flat == flat[0]).all())


def _copied(
    module: nn.Module, tensors: Mapping[int, torch.Tensor], done: dict[int, nn.Module]
) -> nn.Module:
    """The same modules with other parameters and buffers; what is shared stays shared."""
    if id(module) in done:
        return done[id(module)]
    made = done[id(module)] = copy.copy(module)
    made._parameters = {
        n: None if p is None else cast("nn.Parameter", tensors[id(p)])
        for n, p in module._parameters.items()
    }
    made._buffers = {n: None if b is None else tensors[id(b)] for n, b in module._buffers.items()}
    made._modules = {
        n: None if m is None else _copied(m, tensors, done) for n, m in module._modules.items()
    }
    return made
