"""What μP asks of a live instance: roles, optimizer groups, and factors in its forward pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn

from mufx.classes.finding import Identities
from mufx.classes.growing import Grow, members
from mufx.classes.listing import families, listed
from mufx.classes.numbers import Answers
from mufx.classes.program import trace_instance
from mufx.diagnostics import MufxError, Place, error, raise_errors
from mufx.emit import optim_mup
from mufx.magnitudes import Site
from mufx.passes.assign_roles import assign_roles
from mufx.passes.find_corrections import find_corrections
from mufx.passes.find_row_blocks import find_row_blocks
from mufx.passes.find_uses import find_uses
from mufx.passes.plan_parameters import plan_parameters
from mufx.program import Optimizer, Program
from mufx.rules import RULES, RuleTable, operation
from mufx.source import ExampleInputs


@dataclass(frozen=True, slots=True)
class ParameterPlan:
    """One parameter; every scale is relative to base width.

    `init_scale` is the factor on the standard deviation that the model has at base width.
    """

    role: str
    shape: tuple[int, ...]
    base_shape: tuple[int, ...]
    m_in: float
    m_out: float
    init_scale: float
    lr_scale: float
    weight_decay_scale: float
    eps_scale: float
    group: str
    because: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ForwardFactor:
    """A factor that the forward pass of the instance needs."""

    operation: str
    argument: str
    factor: float
    place: Place


@dataclass(frozen=True)
class InstancePlan:
    """What μP asks of one instance.

    Attributes:
        program: The graphs and all facts.
        parameters: By name, in the model's order.
        forward: What the forward pass needs before the groups are right; empty for none.
    """

    program: Program
    parameters: Mapping[str, ParameterPlan]
    forward: tuple[ForwardFactor, ...]

    def param_groups(
        self,
        model: nn.Module,
        *,
        lr: float | torch.Tensor,
        weight_decay: float = 0.0,
        eps: float = 1e-8,
    ) -> list[dict[str, Any]]:
        """The groups for `torch.optim`, from values tuned at base width.

        Raises:
            MufxError: `MUF506` for a model with other parameters, `MUF507` for Adam with decay.
        """
        optimizer = self.program.optimizer
        if optimizer is Optimizer.ADAM and weight_decay > 0:
            raise MufxError(
                error(
                    "MUF507",
                    "no scale of Adam's L2 decay fits all widths",
                    hint='use optimizer="adamw" and torch.optim.AdamW',
                )
            )
        entries = {name: {**asdict(p), "tied": ()} for name, p in self.parameters.items()}
        try:
            found = optim_mup._entries(model, {"parameters": entries})
        except ValueError as problem:
            hint = "give the instance that the plan was made for"
            raise MufxError(error("MUF506", str(problem), hint=hint)) from None
        values = {"lr": lr, "weight_decay": weight_decay, "eps": eps}
        return optim_mup._groups(found, optimizer.value, values)

    def document(self) -> dict[str, object]:
        """The records as JSON takes them."""
        return {
            "model": self.program.source.name,
            "optimizer": self.program.optimizer.value,
            "base": dict(self.program.source.base),
            "target": dict(self.program.source.target),
            "parameters": {name: asdict(p) for name, p in self.parameters.items()},
            "forward": [{**asdict(f), "place": str(f.place)} for f in self.forward],
        }


def plan_instance(
    model: nn.Module,
    inputs: ExampleInputs,
    grow: Grow,
    *,
    numbers: Answers | None = None,
    optimizer: str = "adamw",
    rules: RuleTable = RULES,
) -> InstancePlan:
    """Plans the training of a live instance at target width, without a factory.

    Nothing of the instance is changed. The form is the one without multipliers.

    Args:
        model: The instance.
        inputs: Example inputs, as in `mufx.convert`.
        grow: The classes that grow, and how many times, as `trace_instance` takes them.
        numbers: Answers on numbers in the forward pass, as `trace_instance` takes them.
        optimizer: "adam", "adamw" or "sgd".
        rules: The op rules.

    Raises:
        MufxError: As `trace_instance`; `MUF2xx` and `MUF3xx` for what has no rule.

    Source: Tensor Programs V (Yang et al., 2022), Table 3 and Appendix B.
    """
    return planned(
        trace_instance(model, inputs, grow, numbers=numbers, optimizer=optimizer, rules=rules)
    )


def planned(program: Program) -> InstancePlan:
    """The plan of a Program from `trace_instance`."""
    program = find_corrections(labelled(program))
    raise_errors(program.diagnostics)
    return InstancePlan(program, _parameters(program), _forward(program))


def labelled(program: Program) -> Program:
    """Uses, roles and the plan of the form without multipliers; inits are not known."""
    for step in (find_uses, find_row_blocks, assign_roles, plan_parameters):
        program = step(program)
    return program


def staying(identities: Identities, grow: Grow) -> dict[str, str]:
    """The classes that keep their size by what the user said, and their sizes.

    Those of inputs, outputs and table rows keep theirs in any wider model and are left out.
    """
    growing = {atom for name in grow for atom in members(identities, name)}
    rows = {row.name: row for row in listed(identities, "").rows if not row.end}
    return {
        name: ", ".join(str(n) for n in rows[name].sizes)
        for name, found in families(identities).items()
        if name in rows and growing.isdisjoint(found)
    }


def _parameters(program: Program) -> dict[str, ParameterPlan]:
    plans = {name: _parameter(program, name) for name in program.parameters()}
    return {name: replace(p, group=_group(p)) for name, p in plans.items()}


def _parameter(program: Program, name: str) -> ParameterPlan:
    label, scales = program.labels[name], program.plan[name]
    shapes = (c.model.get_parameter(name).shape for c in (program.target, program.base))
    shape, base_shape = (tuple(int(n) for n in s) for s in shapes)
    return ParameterPlan(
        role=label.role.value,
        shape=shape,
        base_shape=base_shape,
        m_in=label.m_in,
        m_out=label.m_out,
        init_scale=scales.init,
        lr_scale=scales.lr,
        weight_decay_scale=scales.weight_decay,
        eps_scale=1.0 if program.optimizer is Optimizer.SGD else scales.eps,
        group="",
        because=label.because,
    )


def _group(plan: ParameterPlan) -> str:
    numbers = (plan.lr_scale, plan.weight_decay_scale, plan.eps_scale)
    names = ("lr", "wd", "eps")
    changed = [f"{n} x{v:.6g}" for n, v in zip(names, numbers, strict=True) if v != 1]
    return ", ".join(changed) or "base"


def _forward(program: Program) -> tuple[ForwardFactor, ...]:
    found: dict[ForwardFactor, None] = {}
    for trace in program.traces:
        nodes = {node.name: node for node in trace.graph.nodes}
        for site, factor in program.corrections[trace.training].items():
            place = trace.recording.origins[site.node].place
            name = operation(nodes[site.node])
            found[ForwardFactor(name, _argument(site), factor, place)] = None
    return tuple(found)


def _argument(site: Site) -> str:
    return str(site.slot) if site.slot is not None else "result"
