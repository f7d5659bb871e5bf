"""What the forward of each module returns: all that any of its calls is asked for.

The last call in a loop often drops what the others carry on. The original computes it there all
the same, and one body serves all calls only if it is returned in all of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence

from torch import fx

from mufx.emit.calls import CallTree
from mufx.recording import Recording

Places = Sequence["fx.Node | None"]
"""What stands in a result, in order; `None` for what the call does not make."""


def settle_returns(
    calls: Sequence[tuple[Recording, Sequence[CallTree]]],
    class_of: Callable[[str], type | None],
) -> None:
    """Sets `returns` of all calls.

    A place of the result is returned where a module of the same class is asked for it, as long as
    this one has it; else where one of its own calls is asked for it.

    Args:
        calls: Each recording with its calls.
        class_of: By path: the class of a module; `None` where it returns what it always does.
    """
    places = {id(t): _places(recording, t) for recording, trees in calls for t in trees}
    by_class: dict[type, set[int]] = defaultdict(set)
    by_path: dict[str, set[int]] = defaultdict(set)
    for _, trees in calls:
        for tree in trees:
            found, cls = places[id(tree)], class_of(tree.path)
            asked = {i for i, v in enumerate(found) if v in tree.outputs or cls is None}
            by_path[tree.path] |= asked
            if cls is not None:
                by_class[cls] |= asked
    for path, own in by_path.items():
        cls = class_of(path)
        called = [[t for t in trees if t.path == path] for _, trees in calls]
        wanted = by_class[cls] if cls is not None else own
        if any(ts and not any(_has(places[id(t)], wanted) for t in ts) for ts in called):
            wanted = own
        for tree in (t for trees in called for t in trees):
            tree.returns = _returns(tree, places[id(tree)], wanted)


def _places(recording: Recording, tree: CallTree) -> Places:
    inside = set(tree.nodes())
    found: list[fx.Node | None] = []
    for value in _flat(recording.results.get(tree.key)):
        new = isinstance(value, fx.Node) and value in inside and value not in found
        found.append(value if isinstance(value, fx.Node) and new else None)
    return found


def _has(places: Places, wanted: set[int]) -> bool:
    return wanted <= {i for i, value in enumerate(places) if value is not None}


def _returns(tree: CallTree, places: Places, wanted: set[int]) -> list[fx.Node | None]:
    others = [node for node in tree.outputs if node not in places]
    return [*(places[i] if i < len(places) else None for i in sorted(wanted)), *others]


def _flat(value: object) -> Iterator[object]:
    """What stands in a structure of containers, in order, `None` too."""
    if isinstance(value, (tuple, list)):
        for item in value:
            yield from _flat(item)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _flat(item)
    else:
        yield value
