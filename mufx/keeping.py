"""What a module holds, to put it back after its forward ran: tables and tensors that it put by."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from typing import Any

from torch import nn


class Kept:
    """The attributes of one module, and what is in its dicts, lists and sets."""

    def __init__(self, module: nn.Module) -> None:
        """Remembers them; nothing in them is copied."""
        self._attributes = vars(module)
        self._values = dict(self._attributes)
        self._contents = [(held, held.copy()) for held in self._values.values() if _is_open(held)]

    def restore(self) -> None:
        """Puts everything back, into the same objects."""
        _refill(self._attributes, self._values)
        for held, content in self._contents:
            _refill(held, content)


_OPEN = (dict, OrderedDict, defaultdict, list, set)  # of others nobody knows how they are filled


def _is_open(value: object) -> bool:
    return type(value) in _OPEN


def _refill(held: Any, content: Any) -> None:
    held.clear()
    if isinstance(held, list):
        held.extend(content)
    else:
        held.update(content)
