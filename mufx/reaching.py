"""What a step leads to, again and again: the walk over a graph's nodes, or anything else's."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import TypeVar

_T = TypeVar("_T", bound=Hashable)


def reached(first: Iterable[_T], following: Callable[[_T], Iterable[_T]]) -> Iterator[_T]:
    """`first`, what follows them, and what follows that; each once."""
    seen = dict.fromkeys(first)
    waiting = list(seen)
    while waiting:
        item = waiting.pop()
        yield item
        new = [other for other in following(item) if other not in seen]
        seen.update(dict.fromkeys(new))
        waiting.extend(new)
