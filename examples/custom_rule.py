"""A rule for an operation of your own: squared distances to learned centres.

Run it with `python examples/custom_rule.py`. Without the rule, mufx refuses the model; with it the
distances keep their size at every width.
"""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn

import mufx
from mufx.magnitudes import Value, powered
from mufx.rules import Flow
from mufx.rules.reductions import growth
from mufx.rules.views import together

base = {"width": 64}
target = {"width": 256}

rules = mufx.RuleTable()


torch.library.define("example::squared_distances", "(Tensor x, Tensor centres) -> Tensor")


@torch.library.impl("example::squared_distances", "CompositeImplicitAutograd")
def _(x: Tensor, centres: Tensor) -> Tensor:
    """(batch, d) and (k, d) to (batch, k)."""
    return (x.unsqueeze(1) - centres).square().sum(-1)


@rules.rule("example::squared_distances")
def _squared_distances(flow: Flow, node: fx.Node) -> Value:
    """A sum of squared differences: d terms of one sign, each as large as its operands squared."""
    difference = together(flow, [flow.magnitude(0), flow.magnitude(1)])
    terms = growth(flow.axes_of(0), (1,))
    return flow.moved(powered(difference, 2), terms)


class Prototypes(nn.Module):
    """Classifies by the nearest centre."""

    def __init__(self, width: int = 64, classes: int = 10) -> None:
        super().__init__()
        self.first = nn.Linear(32, width)
        self.centres = nn.Parameter(torch.randn(classes, width))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = torch.ops.example.squared_distances(self.first(x), self.centres)
        return -logits


def example_inputs(batch: int = 2) -> tuple[Tensor]:
    return (torch.randn(batch, 32),)


def main() -> None:
    """Converts the model and prints what was changed."""
    conversion = mufx.convert(Prototypes, example_inputs, base, target, rules=mufx.RULES | rules)
    for change in conversion.manifest.changes:
        print(f"{change.place}: {change.before} -> {change.after}, {change.because}")
    print(f"centres: {conversion.manifest.parameters['centres'].role}")


if __name__ == "__main__":
    main()
