"""Which of the tables an optimizer follows: what its step depends on.

What matters is how a step follows the size of the gradient. Adam divides it out, SGD takes it
along, and the learning rates of Tensor Programs V (Tables 3, 8 and 9) are for these two. An
optimizer that rescales a step by the size of the weight (Adafactor, LAMB), or by its singular
values (Muon, Shampoo), follows neither.
"""

from __future__ import annotations

from typing import Any

from torch import optim

from mufx.program import Optimizer

_LAWS: dict[type[optim.Optimizer], Optimizer] = {
    optim.SGD: Optimizer.SGD,
    optim.AdamW: Optimizer.ADAMW,
    **dict.fromkeys(
        (
            optim.Adam,
            optim.NAdam,
            optim.RAdam,
            optim.Adamax,
            optim.RMSprop,
            optim.Adagrad,
        ),
        Optimizer.ADAM,
    ),
}


def update_law(cls: type[optim.Optimizer], like: str) -> None:
    """Says which optimizer's rules one of your own follows, so that it can be audited.

    Args:
        cls: The class; its subclasses follow it.
        like: "adamw" where a step does not depend on the size of the gradient, and decay takes
            `lr * weight_decay` of a weight (Lion); "adam" where decay is added to the gradient
            before that; "sgd" where a step is proportional to the gradient.

    Raises:
        ValueError: `like` is none of these.

    Example:
        >>> class Lion(optim.Optimizer): ...
        >>> update_law(Lion, like="adamw")
    """
    _LAWS[cls] = Optimizer(like)


def law_of(optimizer: optim.Optimizer) -> Optimizer | None:
    """The rules that an optimizer follows; `None` where that is not known."""
    found = next((_LAWS[cls] for cls in type(optimizer).__mro__ if cls in _LAWS), None)
    groups: list[dict[str, Any]] = optimizer.param_groups
    if found is Optimizer.ADAM and groups[0].get("decoupled_weight_decay", False):
        return Optimizer.ADAMW
    return found
