"""Answers to what a user left out: what was found, and a command that works.

Nothing is taken from it: sizes and inputs are for the user to name.
"""

from __future__ import annotations

from torch import nn

from mufx.building import Proposal, build, propose
from mufx.diagnostics import Diagnostic, error
from mufx.factory import Factory, place_of
from mufx.inputs import signature_of
from mufx.knobs import Knobs, check_values, command
from mufx.trials import described_inputs, left_out, proposed_inputs


def no_sizes(
    factory: Factory, spec: str, base: Knobs | None, target: Knobs | None, inputs: list[str] | None
) -> list[Diagnostic]:
    """What was found, and a command with sizes at which the model builds.

    `inputs` are the `--input` lines of that command; None where they are missing as well.
    """
    sizes = {"base": base, "target": target}
    problems = [d for n, knobs in sizes.items() for d in check_values(factory, n, knobs or {})]
    missing = [name for name, knobs in sizes.items() if knobs is None]
    given = {**(base or {}), **(target or {})}
    proposal = propose(factory, given) if not problems else None
    hint = _proposed(factory, spec, proposal, inputs)
    message = f"no {' and no '.join(missing)} for {factory.name}"
    return [*problems, error("MUF006", message, hint=hint, place=factory.place)]


def no_inputs(
    factory: Factory,
    spec: str,
    sizes: tuple[Knobs, Knobs],
    models: tuple[nn.Module, nn.Module | None],
) -> Diagnostic:
    """Forward's signature, and a command with inputs that its forward was seen to take.

    `models` are on `meta`; without one at target nothing is tried.
    """
    base, target = models
    forward = type(base).forward
    lines = proposed_inputs(base, target) if target is not None else []
    optional = left_out(forward)
    return error(
        "MUF012",
        f"no example inputs for {factory.name}: {signature_of(forward)}",
        hint=_lines(
            "define example_inputs(batch=2) in the file, or describe them:",
            command(spec, *sizes, lines or described_inputs(forward)),
            *[f"without an input of its own None is recorded for {name}" for name in optional],
        ),
        place=place_of(forward),
    )


def _proposed(
    factory: Factory, spec: str, proposal: Proposal | None, inputs: list[str] | None
) -> str:
    example = f"mufx convert {spec} --base KNOB=SMALL --target KNOB=LARGE"
    if proposal is None or not proposal.found:
        names = ", ".join(knob.name for knob in factory.knobs) or "no knobs"
        return _lines(f"name the knobs that are widths; {factory.name} takes {names}", example)
    found = [
        f"{name}={proposal.values[name]} ({count} parameter{'s' if count > 1 else ''})"
        for name, count in proposal.found.items()
    ]
    if proposal.sizes is not None:
        low, high = proposal.sizes
        if inputs is None:
            model = build(factory, low)
            inputs = proposed_inputs(model, build(factory, high))
            inputs = inputs or described_inputs(type(model).forward)
        example = command(spec, low, high, inputs)
    return _lines("these knobs change shapes of parameters; name the widths:", *found, example)


def _lines(*lines: str) -> str:
    """A hint of several lines, the later ones indented under the first."""
    return "\n          ".join(lines)
