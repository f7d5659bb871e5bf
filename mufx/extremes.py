"""Python's `max` and `min` of free sizes."""

from __future__ import annotations

import builtins
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import reduce
from typing import Any

import torch

from mufx.refusals import replaced

_OWN = (os.path.dirname(torch.__file__) + os.sep, os.path.dirname(__file__) + os.sep)


def extremes_stay_free() -> AbstractContextManager[None]:
    """`max(0, limit - x.shape[1])` is a size, and no decision which of the two is larger."""
    kept = ((max, torch.sym_max), (min, torch.sym_min))
    return replaced([(builtins, old.__name__, _extreme(old, new)) for old, new in kept])


def _extreme(python: Callable[..., Any], symbolic: Callable[..., Any]) -> Callable[..., Any]:
    def extreme(*args: Any, **kwargs: Any) -> Any:
        by_torch = sys._getframe(1).f_code.co_filename.startswith(_OWN)
        if by_torch or not any(isinstance(arg, torch.SymInt) for arg in args):
            return python(*args, **kwargs)
        return reduce(symbolic, args)

    return extreme
