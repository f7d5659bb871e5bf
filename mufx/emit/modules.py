"""The module tree of the original: what each module becomes, and how it is reached."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from torch import nn

from mufx.emit.leaves import leaf_expression, public_class


class Kind(StrEnum):
    """What a module becomes in the emitted file."""

    LEAF = "leaf"
    """A module of torch, constructed as it is."""
    LIST = "list"
    DICT = "dict"
    SEQUENTIAL = "sequential"
    CLASS = "class"
    """A class of its own."""
    SHARED = "shared"
    """A module that an earlier path has."""
    ABSENT = "absent"
    """Nothing: it holds nothing and is never called."""


@dataclass(frozen=True)
class ModuleTree:
    """The modules of a model, by path, with what each becomes."""

    root: nn.Module
    modules: Mapping[str, nn.Module]
    """By every path: one module may have several."""
    kinds: Mapping[str, Kind]
    leaves: Mapping[str, str]
    """By path: the constructor call of a leaf."""
    places: frozenset[str]
    """Leaves that do nothing: they keep the places of those after them in a list."""
    shared: Mapping[str, str]
    """Further paths of modules, to the first one."""

    def children(self, path: str) -> Iterator[tuple[str, str]]:
        """Name and path of the children that the emitted file has, in order."""
        for name, child in self.modules[path]._modules.items():
            full = f"{path}.{name}" if path else name
            if child is not None and self.kinds.get(full, Kind.ABSENT) is not Kind.ABSENT:
                yield name, full

    def within(self, path: str, start: str) -> str | None:
        """A path of the module at `path` that lies below `start`."""
        names = [path, *(other for other, first in self.shared.items() if first == path)]
        return next((n for n in names if not start or n.startswith(f"{start}.")), None)

    def attribute(self, path: str, start: str = "") -> str:
        """How a module or tensor is reached from the module at `start`: `self.h[0].weight`."""
        relative = path[len(start) + 1 :] if start else path
        text, here = "self", start
        for segment in relative.split("."):
            owner = self.modules.get(here)
            text += step(owner, segment, at_root=not here) if owner is not None else f".{segment}"
            here = f"{here}.{segment}" if here else segment
        return text

    def lists(self, start: str = "") -> dict[str, int]:
        """The lists of modules below `start`, as they are written there, with their lengths."""
        found: dict[str, int] = {}
        for path, kind in self.kinds.items():
            inside = path.startswith(f"{start}.") if start else bool(path)
            if kind in (Kind.LIST, Kind.SEQUENTIAL) and inside:
                found[self.attribute(path, start)] = len(self.modules[path]._modules)
        return found


def is_list(module: nn.Module) -> bool:
    """Whether the module is a list of modules in the emitted file."""
    return not _owns(module) and (
        type(module) is nn.Sequential or isinstance(module, nn.ModuleList)
    )


def is_dict(module: nn.Module) -> bool:
    """Whether the module is a dict of modules in the emitted file."""
    return not _owns(module) and isinstance(module, nn.ModuleDict)


def is_indexed(module: nn.Module) -> bool:
    """Whether its parts are numbered: the class that is emitted for it is a list of them too."""
    parts = module._modules
    numbered = list(parts) == [str(i) for i in range(len(parts))] and None not in parts.values()
    return bool(parts) and numbered and isinstance(module, nn.Sequential | nn.ModuleList)


def _owns(module: nn.Module) -> bool:
    return any(t is not None for t in (*module._parameters.values(), *module._buffers.values()))


def step(module: nn.Module, name: str, *, at_root: bool) -> str:
    """How a part of a module is reached from it; the root is a class of its own."""
    if name.isdigit() and (is_indexed(module) or (is_list(module) and not at_root)):
        return f"[{name}]"
    if (
        is_dict(module)
        and not at_root
        and (not name.isidentifier() or hasattr(nn.ModuleDict, name))
    ):
        return f'["{name}"]'
    if name.isidentifier():
        return f".{name}"
    if name in module._modules:
        return f'.get_submodule("{name}")'
    return f'.get_parameter("{name}")' if name in module._parameters else f'.get_buffer("{name}")'


def module_tree(model: nn.Module, called: set[str], changed: set[str]) -> ModuleTree:
    """Decides what every module becomes.

    Args:
        model: The original, on any device.
        called: The paths of the modules that a recording called.
        changed: The paths of the modules in whose call something was rewritten.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    first: dict[nn.Module, str] = {}
    for path, module in modules.items():
        first.setdefault(module, path)
    shared = {path: first[module] for path, module in modules.items() if first[module] != path}
    kinds: dict[str, Kind] = {}
    leaves: dict[str, str] = {}
    cache: dict[str, str | None] = {}
    places: set[str] = set()
    for path, module in modules.items():
        parent = path.rpartition(".")[0]
        if path and kinds.get(parent) in (Kind.LEAF, Kind.ABSENT):
            kinds[path] = Kind.ABSENT
            continue
        if path in shared:
            there = parent not in shared and kinds[shared[path]] is not Kind.ABSENT
            kinds[path] = Kind.SHARED if there else Kind.ABSENT
        else:
            kinds[path] = (
                _kind(path, module, called, changed, leaves, cache) if path else Kind.CLASS
            )
        inside = kinds.get(parent) in (Kind.LIST, Kind.SEQUENTIAL) or is_indexed(modules[parent])
        if kinds[path] is Kind.ABSENT and inside:
            kinds[path], leaves[path] = Kind.LEAF, "nn.Identity()"
            places.add(path)
    return ModuleTree(model, modules, kinds, leaves, frozenset(places), shared)


def _kind(
    path: str,
    module: nn.Module,
    called: set[str],
    changed: set[str],
    leaves: dict[str, str],
    cache: dict[str, str | None],
) -> Kind:
    inside = f"{path}." if path else ""
    used = any(c == path or c.startswith(inside) for c in called)
    if not used and not any(True for _ in _tensors(module)):
        return Kind.ABSENT
    if is_list(module):
        return Kind.LIST if isinstance(module, nn.ModuleList) else Kind.SEQUENTIAL
    if is_dict(module):
        return Kind.DICT
    changes = any(c == path or c.startswith(inside) for c in changed)
    if not changes and public_class(module) is not None:  # else its repr is the user's own code
        key = f"{type(module).__module__}.{type(module).__qualname__}:{module!r}"
        if key not in cache:
            cache[key] = leaf_expression(module)
        expression = cache[key]
        if expression is not None:
            leaves[path] = expression
            return Kind.LEAF
    return Kind.CLASS


def _tensors(module: nn.Module) -> Iterator[object]:
    yield from module.parameters()
    yield from module.buffers()
