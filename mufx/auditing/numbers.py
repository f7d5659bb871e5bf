"""What is there: how init, learning rate, weight decay and eps change from base to target."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mufx.auditing.groups import Live, Setting
from mufx.moments import Moments
from mufx.program import Optimizer

_TOLERANCE = 0.01
_MEASURED = 0.1
"""What is measured on one draw of a small tensor is known to this accuracy only."""


@dataclass(frozen=True, slots=True)
class Found:
    """The numbers of one parameter, target over base; `None` where there is nothing to compare.

    `init` is `None` for what starts at zero, `lr` for what does not train, `weight_decay` for
    what does not decay, `eps` where the optimizer has none.
    """

    init: float | None
    lr: float | None
    weight_decay: float | None
    eps: float | None
    exact_init: bool
    std: float
    setting: Setting
    rows_init: float | None = None
    """Of the rows of a fused weight that read out; `init` is then of the others."""

    def init_is(self, wanted: float) -> bool:
        """Whether the init follows `wanted`; zeros follow everything."""
        tolerance = _TOLERANCE if self.exact_init else _MEASURED
        return self.init is None or close(self.init, wanted, tolerance)


def close(a: float, b: float, tolerance: float = _TOLERANCE) -> bool:
    """Whether two ratios agree, as numbers that people typed."""
    return math.isclose(a, b, rel_tol=tolerance)


def of_parameter(inits: tuple[Moments, Moments], settings: tuple[Setting, Setting] | None) -> Found:
    """The numbers of one parameter; `settings` at base and target, none if it does not train."""
    small, large = (m.size for m in inits)
    base, target = settings or (_FROZEN, _FROZEN)
    return Found(
        init=_over(small, large),
        lr=_over(base.lr, target.lr),
        weight_decay=_over(base.weight_decay, target.weight_decay),
        eps=_over(base.eps, target.eps),
        exact_init=all(m.kind != "measured" for m in inits),
        std=large,
        setting=target,
    )


_FROZEN = Setting(0.0, 0.0, 0.0, 0.0, -1, False)


def _over(base: float, target: float) -> float | None:
    if base == 0.0:
        return None if target == 0.0 else math.inf
    return target / base


def plain(optimizer: Optimizer) -> Setting:
    """One group for everything, as an optimizer makes it by itself."""
    decay = 1.0 if optimizer is Optimizer.ADAMW else 0.0
    eps = 0.0 if optimizer is Optimizer.SGD else 1e-8
    return Setting(1.0, 1.0, decay, eps, 0, False)


def settings(
    live: tuple[Live, Live] | None, name: str, optimizer: Optimizer
) -> tuple[Setting, Setting] | None:
    """The settings of one parameter at base and at target; `None` if it does not train."""
    if live is None:
        return plain(optimizer), plain(optimizer)
    base, target = (side.settings.get(name) for side in live)
    return (base, target) if base is not None and target is not None else None
