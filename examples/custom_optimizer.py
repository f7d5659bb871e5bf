"""An optimizer that mufx does not know: Lion, with the groups made for AdamW.

Run it with `python examples/custom_optimizer.py`. It trains the same model at two widths for a few
steps, with the groups and without, and prints how far the steps move the logits.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

import mufx

LR = 1e-4
STEPS = 5
BASE = 64


class MLP(nn.Module):
    def __init__(self, width: int = BASE) -> None:
        super().__init__()
        self.first = nn.Linear(32, width)
        self.second = nn.Linear(width, width)
        self.readout = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.readout(torch.relu(self.second(torch.relu(self.first(x)))))
        return logits


class Lion(torch.optim.Optimizer):
    """Moves every entry by the learning rate, in the direction of a momentum (Chen et al. 2023).

    Like Adam's, the size of a step does not depend on the size of the gradient, so Adam's learning
    rates and weight decays hold. There is no eps.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], betas: tuple[float, float] = (0.9, 0.99)):
        super().__init__(groups, {"lr": 1e-4, "weight_decay": 0.0, "betas": betas})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            first, second = group["betas"]
            for p in group["params"]:
                momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.sub_(group["lr"] * momentum.lerp(p.grad, 1 - first).sign())
                momentum.lerp_(p.grad, 1 - second)


def moved(width: int, mup: bool) -> float:
    """How far the steps move an entry of the logits, on average."""
    conversion = mufx.convert(
        MLP, (torch.zeros(2, 32),), {"width": BASE}, {"width": width}, vary=["width"]
    )
    model = conversion.module(seed=0)
    groups = mufx.param_groups(model, conversion.manifest, lr=LR, weight_decay=0.1)
    if not mup:
        groups = [{"params": list(model.parameters()), "lr": LR, "weight_decay": 0.1}]
    optimizer = Lion(groups)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(128, 32, generator=generator)
    labels = torch.randint(10, (128,), generator=generator)
    before: Tensor = model(x).detach()
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), labels)
        torch.autograd.backward(loss)
        optimizer.step()
    return float((model(x).detach() - before).abs().mean())


def main() -> None:
    """Prints the moves at base width and at 16 times that."""
    for title, mup in (("one learning rate", False), ("the groups of AdamW", True)):
        small, large = moved(BASE, mup), moved(16 * BASE, mup)
        print(f"{title}: {small:.4f} at width {BASE}, {large:.4f} at width {16 * BASE}")


if __name__ == "__main__":
    main()
