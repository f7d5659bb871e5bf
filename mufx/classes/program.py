"""A Program from one instance: the sizes at base come from the classes that grow."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import NoReturn

import torch
from torch import fx, nn

from mufx.align import Trace
from mufx.classes.finding import Identities, Run, find_identities
from mufx.classes.growing import Grow, Growth, growth, members
from mufx.classes.numbers import Answers, Numbers, numbers
from mufx.construction import Construction, Span
from mufx.diagnostics import Diagnostic, MufxError, error, raise_errors
from mufx.garbage import uncollected
from mufx.inputs import Inputs, from_values
from mufx.program import Form, Optimizer, Program
from mufx.recording import Recording, TensorValue
from mufx.rules import RULES, RuleTable
from mufx.sizes import Axis, Slot
from mufx.source import BATCH, ExampleInputs, Source


@uncollected()
def trace_instance(
    model: nn.Module,
    inputs: ExampleInputs,
    grow: Grow,
    *,
    numbers: Answers | None = None,
    optimizer: str = "adamw",
    form: str = "table3",
    rules: RuleTable = RULES,
    batch: int = BATCH,
) -> Program:
    """A Program from one instance, which is the target, without a factory.

    Its traces say at which axes the instance is wider than at base width, as if two sizes had
    been recorded. How parameters are initialised it does not know: `base` and `target` hold
    shapes and the values of buffers, no init tape.

    Args:
        model: The instance, at target width; it stays as it is.
        inputs: Example inputs of `forward`, as in `mufx.convert`.
        grow: The classes that grow, by the names of `table`, and their size in the instance
            over that at base width.
        numbers: Whether a number at a place follows the width: by `file.py:line` or by a
            buffer's name "grows", "fixed", or target over base.
        optimizer: "adam", "adamw" or "sgd".
        form: "table3", "table8" or "table9".
        rules: The op rules.
        batch: The batch size, where the inputs are a function of it.

    Raises:
        MufxError: `MUF10x` as any recording, `MUF701` to `MUF705` of `grow`, `MUF706` and
            `MUF707` of `numbers`.
    """
    made = from_values(inputs)(batch, {})
    found = find_identities(model, made)
    program = program_of(model, made, found, grow, numbers or {})
    return replace(program, optimizer=Optimizer(optimizer), form=Form(form), rules=rules)


def program_of(
    model: nn.Module, made: Inputs, identities: Identities, grow: Grow, answers: Answers
) -> Program:
    """`trace_instance` from what is known of the axes."""
    grown = growth(identities, grow)
    answered = _answered(identities, grown, answers, dict(model.named_buffers()))
    rows = {name: grown.row(axes) for name, axes in identities.parameters.items()}
    ratios = {**answered[0].buffers, **answered[1].buffers}
    base = standing(model, _shapes(rows, lambda a: a.base), ratios)
    target = standing(model, _shapes(rows, lambda a: a.target), {})
    along = standing(model, _shapes(rows, lambda a: a.along), {})
    train, evaluate = (
        _trace(run, grown, found) for run, found in zip(identities.runs, answered, strict=True)
    )
    return Program(
        _source(model, made, identities, grow),
        Optimizer.ADAMW,
        Form.TABLE3,
        base,
        target,
        along,
        {},
        train,
        evaluate,
    ).report(*(d for run in identities.runs for d in run.recording.diagnostics))


def _shapes(
    rows: Mapping[str, tuple[Axis, ...]], size: Callable[[Axis], int]
) -> dict[str, tuple[int, ...]]:
    return {name: tuple(size(axis) for axis in row) for name, row in rows.items()}


def _answered(
    identities: Identities,
    grown: Growth,
    answers: Answers,
    buffers: Mapping[str, torch.Tensor],
) -> tuple[Numbers, Numbers]:
    """The numbers of both modes.

    Raises:
        MufxError: `MUF706`, `MUF707`: all questions at once.
    """
    train, evaluate = (numbers(run, grown, answers, buffers) for run in identities.runs)
    unasked = answers.keys() - train.used - evaluate.used
    problems = [*train.problems, *evaluate.problems, *(_unasked(key) for key in sorted(unasked))]
    raise_errors({(str(d.place), d.message): d for d in problems}.values())  # of equal layers one
    return train, evaluate


def _unasked(key: str) -> Diagnostic:
    return error(
        "MUF707",
        f"there is no number at {key} that multiplies a value",
        hint="give the place as file.py:line, or the name of a buffer",
    )


def _trace(run: Run, grown: Growth, found: Numbers) -> Trace:
    """A run as if it had been recorded at base width too."""
    axes = {name: grown.row(row) for name, row in run.axes.items()}
    base, nodes = _at_base(run.recording, found)
    return Trace(run.training, run.recording, base, axes, found.literals, nodes)


def _at_base(recording: Recording, found: Numbers) -> tuple[Recording, dict[str, fx.Node]]:
    """The recording with the numbers of base width; sizes in it stay those of the target.

    Constants are computed from it. A table over a growing axis has other entries at base, and
    none of them is larger or smaller for it; one of a fixed shape is computed exactly.
    """
    graph = fx.Graph()
    nodes: dict[str, fx.Node] = {}
    for node in recording.graph.nodes:
        nodes[node.name] = graph.node_copy(node, lambda n: nodes[n.name])
    for (name, slot), number in found.literals.items():
        _set(nodes[name], slot, number.base)
    return replace(recording, graph=graph), nodes


def _set(node: fx.Node, slot: Slot, value: float) -> None:
    if isinstance(slot, int):
        node.update_arg(slot, value)
    else:
        node.update_kwarg(slot, value)


# -- what stands for a build --------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Standing(Construction):
    """An instance in the place of a recorded constructor: shapes, and the values of buffers."""

    def value(self, name: str, device: str = "cpu") -> torch.Tensor:
        """The value of one parameter or buffer.

        Raises:
            MufxError: `MUF708`: the instance is on `meta` and has none.
        """
        if self.constants[name].is_meta:
            raise MufxError(
                error(
                    "MUF708",
                    f"{name} is on meta and has no value, on which the forward pass depends",
                    hint="give mufx an instance on the CPU",
                )
            )
        return super().value(name, device)


def standing(
    model: nn.Module, shapes: Mapping[str, tuple[int, ...]], ratios: Mapping[str, float]
) -> Standing:
    """An instance with other shapes of its parameters.

    Args:
        model: The instance.
        shapes: By the first name of a parameter.
        ratios: By the name of a buffer: its value here over that in the size asked for.
    """
    graph = fx.Graph()
    constants: dict[str, torch.Tensor] = dict(model.named_parameters(remove_duplicate=False))
    for name, buffer in model.named_buffers(remove_duplicate=False):
        constants[name] = buffer / ratios[name] if name in ratios else buffer
    nodes = {name: graph.create_node("get_attr", name) for name in constants}
    return Standing(
        model=_skeleton(model, shapes),
        graph=graph,
        values={nodes[n].name: TensorValue(tuple(v.shape), v.dtype) for n, v in constants.items()},
        origins={},
        tensors={name: node.name for name, node in nodes.items()},
        storages={node.name: i for i, node in enumerate(nodes.values())},
        constants=constants,
        spans={node.name: Span(0, constants[name].numel(), True) for name, node in nodes.items()},
        nodes={node.name: node for node in nodes.values()},
    )


def _skeleton(model: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> nn.Module:
    """Modules that hold parameters of the same names, tied alike, on `meta`."""
    root = nn.Module()
    made: dict[int, nn.Parameter] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if id(parameter) not in made:
            empty = torch.empty(shapes[name], dtype=parameter.dtype, device="meta")
            made[id(parameter)] = nn.Parameter(empty, parameter.requires_grad)
        *path, last = name.split(".")
        module = root
        for part in path:
            module = module._modules.setdefault(part, nn.Module()) or module
        module._parameters[last] = made[id(parameter)]
    return root


# -- what stands for a source -------------------------------------------------------------------


def _source(model: nn.Module, made: Inputs, identities: Identities, grow: Grow) -> Source:
    base, target = (
        {name: _size(identities, name, 1 / f) for name, f in grow.items()},
        {name: _size(identities, name, 1.0) for name in grow},
    )
    cls = type(model)
    return Source(
        build=_no_factory,
        inputs=lambda batch, knobs: made,
        base=base,
        target=target,
        vary=(),
        name=cls.__name__,
        spec="",
        digest=sha256(_text(cls).encode()).hexdigest(),
    )


def _size(identities: Identities, name: str, factor: float) -> object:
    """The size of a class, or of all classes of a name."""
    found = members(identities, name).values()
    sizes = {round(identities.space.size(piece.var) * factor) for piece in found}
    return sizes.pop() if len(sizes) == 1 else sorted(sizes)


def _text(cls: type) -> str:
    try:
        return inspect.getsource(cls)
    except (OSError, TypeError):  # an interactive session
        return f"{cls.__module__}.{cls.__qualname__}"


def _no_factory(**_: object) -> NoReturn:
    raise MufxError(
        error(
            "MUF709",
            "an instance does not say how it is built, or initialised, at base width",
            hint="give mufx its class, or a function that makes it from knobs",
        )
    )
