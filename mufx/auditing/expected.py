"""What μP expects of every parameter, in the form that the model is written in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mufx.auditing.forms import Fit, asked
from mufx.auditing.numbers import Found
from mufx.program import Program, Scales


@dataclass(frozen=True)
class Expectation:
    """The forward pass of a program, fitted to its parameters' numbers.

    Attributes:
        scales: By parameter: what it should have with the multiplier that it has.
        fits: The walks over both modes.
    """

    scales: Mapping[str, Scales]
    fits: tuple[Fit, Fit]


def expectation(program: Program, found: Mapping[str, Found], plain: bool) -> Expectation:
    """Fits the forward pass to the numbers of the parameters.

    Args:
        program: With `labels`, and with the `plan` of the form without multipliers.
        found: The numbers of every parameter.
        plain: The learning rate is the same for all at both widths.
    """
    optimizer = program.optimizer
    asks = {
        name: asked(found[name], scales, optimizer, plain) for name, scales in program.plan.items()
    }
    fits: list[Fit] = []
    for trace in program.traces:
        fit = Fit(trace, program.constants(trace), program.rules, _factors(program), asks)
        if fits:  # evaluation has the multipliers that training has
            fit.theta = dict(fits[0].theta)
            fit.settled.update(fit.theta)
        fit.run()
        fits.append(fit)
    theta = fits[0].theta
    scales = {n: s.shifted(theta[n], optimizer) for n, s in program.plan.items()}
    return Expectation(scales, (fits[0], fits[1]))


def _factors(program: Program) -> dict[tuple[str, str], float]:
    """What further uses of a tied weight want beside its own multiplier."""
    return {
        (node, name): factor
        for name, label in program.labels.items()
        for node, factor in label.multipliers.items()
    }
