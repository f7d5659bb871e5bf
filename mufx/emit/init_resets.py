"""The part of a constructor's init that `reset_parameters()` of its modules does again.

Most constructors fill every layer of torch by its default and then write over what they want
otherwise. Where calling `reset_parameters()` on every module, in order, gives the same draws, and
none of them is left in the end, these calls stand for all the default fills.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import fx, nn
from torch.overrides import TorchFunctionMode

from mufx.construction import Construction, is_random, is_random_name, spelled_out
from mufx.emit.init_facts import WHOLE_WRITES, InitFacts
from mufx.rules.table import operation

RESET = (
    "for module in self.modules():",
    '    if hasattr(module, "reset_parameters"):',
    "        module.reset_parameters()",
)
_FUNCTIONS = ("reset_parameters", "reset_running_stats", "_fill_padding_idx_with_zero")

Draw = tuple[str, tuple[int, ...], tuple[object, ...]]


def default_resets(
    construction: Construction, facts: InitFacts, leaves: Collection[str]
) -> frozenset[fx.Node]:
    """The nodes that `RESET` does again; none where it would not be exact.

    `leaves` are the paths of the modules that the emitted file constructs as they are.
    """
    model = construction.model
    resettable = [p for p, m in model.named_modules() if hasattr(m, "reset_parameters")]
    if not resettable or not all(_is_inside(path, leaves) for path in resettable):
        return frozenset()
    resets = frozenset(n for n in construction.graph.nodes if _is_reset(construction, n))
    draws = [n for n in construction.graph.nodes if is_random(n)]
    expected = _draws_of_resets(model)
    first = draws[: len(expected)]
    if [_draw(construction, n) for n in first] != expected or not resets.issuperset(first):
        return frozenset()
    if any(n in resets for n in draws[len(expected) :]):
        return frozenset()
    return resets if all(_is_overwritten(n, facts, resets) for n in first) else frozenset()


def _is_inside(path: str, leaves: Collection[str]) -> bool:
    return any(path == leaf or path.startswith(f"{leaf}.") for leaf in leaves)


def _is_reset(construction: Construction, node: fx.Node) -> bool:
    statement = construction.origins[node.name].statement
    inside = "torch/nn/modules/" in statement.file.replace("\\", "/")
    return inside and statement.function.rpartition(".")[2] in _FUNCTIONS


def _draw(construction: Construction, node: fx.Node) -> Draw:
    value = construction.values[node.name]
    assert value is not None
    return operation(node), value.sizes, tuple(node.args[1:])


def _is_overwritten(node: fx.Node, facts: InitFacts, resets: frozenset[fx.Node]) -> bool:
    storage = facts.storage(node)
    if storage not in facts.names:
        return True
    after = facts.nodes[facts.nodes.index(node) + 1 :]
    return any(
        facts.storage(n) == storage
        and n not in resets
        and operation(n) in WHOLE_WRITES
        and facts.covers(n)
        for n in after
    )


def _draws_of_resets(model: nn.Module) -> list[Draw]:
    log = _Log()
    with log:
        for module in model.modules():
            reset: object = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
    return log.draws


class _Log(TorchFunctionMode):
    """Notes what is drawn into which shapes; on `meta` nothing else happens."""

    def __init__(self) -> None:
        super().__init__()
        self.draws: list[Draw] = []

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        kwargs = kwargs or {}
        spelled = spelled_out(func)
        if spelled is not None:
            with self:
                return spelled(**kwargs)
        name = str(getattr(func, "__name__", ""))
        if is_random_name(name) and isinstance(args[0], torch.Tensor):
            self.draws.append((name.removesuffix("_"), tuple(args[0].shape), tuple(args[1:])))
        return func(*args, **kwargs)
