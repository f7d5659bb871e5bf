"""Python's `max` and `min` of free sizes."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import reduce
from typing import Any

import torch

from mufx.decisions import LIBRARIES
from mufx.refusals import replaced


def extremes_stay_free() -> AbstractContextManager[None]:
    """`max(0, limit - x.shape[1])` is a size, and no decision which of the two is larger."""
    kept = ((max, torch.sym_max), (min, torch.sym_min))
    return replaced([(builtins, old.__name__, _extreme(old, new)) for old, new in kept])


def _extreme(python: Callable[..., Any], symbolic: Callable[..., Any]) -> Callable[..., Any]:
    def extreme(*args: Any, **kwargs: Any) -> Any:
        of_sizes = not kwargs and any(isinstance(arg, torch.SymInt) for arg in args)
        if not of_sizes or sys._getframe(1).f_code.co_filename.startswith(LIBRARIES):
            return python(*args, **kwargs)
        return reduce(symbolic, args)

    return extreme
