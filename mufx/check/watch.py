"""Every activation of a forward pass, by node."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode

from mufx.align import Trace
from mufx.inputs import Inputs
from mufx.recorder import TorchFunction, is_inplace, is_recordable, mutates, spelling, tensors
from mufx.recording import Origin
from mufx.rules.table import operation, operation_of
from mufx.spelled import SPELLED

LOGITS = "logits"
Seen = Counter[tuple[str, str]]
See = Callable[[str, Tensor], None]
_FUSED = dict(SPELLED.values())
_UNWRITTEN = ("new_empty", "empty_like")
_HEADS = 4  # of the first sample: enough to see the size of attention logits


class Watch(TorchFunctionMode):
    """Shows what every node computes; views of an activation are not shown again.

    A node is called `module:operation#n`, its n-th use in that module: the same name at every
    width, in the original and in the emitted module, and in the graph that the recorder makes of
    them. Attention weights inside a fused kernel are never in memory; the logits of some heads of
    the first sample are computed beside it. A single number, such as a loss, is no activation: its
    change goes through 0 now and then, and no other entries make up for that. Nor is a count, which
    is made of integers alone, or memory that nothing has been written to.
    """

    def __init__(self, model: nn.Module, see: See) -> None:
        """A watch on a model; what `see` is shown can be written over later."""
        super().__init__()
        self.see = see
        self.path: list[str] = []
        self._seen: Seen = Counter()
        self._weights = {id(p) for p in model.parameters()}
        self._counts: set[int] = set()
        self._alive: list[Tensor] = []  # an id is only unique while its object lives

    def __torch_function__(
        self,
        func: TorchFunction,
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        """Runs the call and shows its result where that is a new activation."""
        kwargs = kwargs or {}
        if func in _FUSED:
            return self._taken_apart(func, args, kwargs)
        result = func(*args, **kwargs)
        made = tensors(result)
        if is_recordable(func) and (made or mutates(func, result)):
            called = operation_of(*spelling(func, args, kwargs)[1:])
            name = self._named(called)
            logits = _attention_logits(func, args, kwargs)
            if logits is not None:
                self.see(f"{name}/{LOGITS}", logits)
            # The recorder takes several results apart, one node each.
            if isinstance(result, Tensor):
                shown = {name: result}
            else:
                shown = {self._named("getitem"): t for t in made}
            if called not in _UNWRITTEN:
                self._show(shown, tensors((args, kwargs)), is_inplace(func, kwargs))
        return result

    def _taken_apart(
        self, func: TorchFunction, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> object:
        """Shows the single steps, which is how it is written where a step had to be changed."""
        with suppress(NotImplementedError), self:
            _FUSED[func](*args, **kwargs)
        return func(*args, **kwargs)

    def _show(self, made: Mapping[str, Tensor], given: list[Tensor], in_place: bool) -> None:
        if given and all(id(t) in self._weights for t in given):
            self._weights.update(map(id, made.values()))
            self._alive.extend(made.values())
            return
        if self._counted(given, made, in_place):
            return
        old = set[int]() if in_place else set(map(_storage, given))
        for name, value in made.items():
            if _is_activation(value) and _storage(value) not in old:
                self.see(name, value.detach())

    def _counted(self, given: list[Tensor], made: Mapping[str, Tensor], in_place: bool) -> bool:
        """Whether all that is given are integers, or was made of them."""
        if in_place or not given or any(_is_float(t) and id(t) not in self._counts for t in given):
            self._counts.difference_update(map(id, [*made.values(), *given[:1]]))
            return False
        self._counts.update(map(id, made.values()))
        self._alive.extend(made.values())
        return True

    def _named(self, operation: str) -> str:
        return numbered(self.path[-1] if self.path else "", operation, self._seen)


def numbered(path: str, operation: str, seen: Seen) -> str:
    """`module:operation#n`, where `seen` counts the operations so far."""
    seen[path, operation] += 1
    return f"{path}:{operation}#{seen[path, operation]}"


def named_nodes(trace: Trace) -> Iterator[tuple[str, fx.Node]]:
    """The operations of a recorded graph, with the same names."""
    seen: Seen = Counter()
    for node in trace.graph.nodes:
        if node.op.startswith("call_"):
            yield named(node, trace.recording.origins[node.name], seen), node


def named(node: fx.Node, origin: Origin, seen: Seen) -> str:
    """The name of the next of them."""
    return numbered(origin.call.path if origin.call is not None else "", operation(node), seen)


@torch.no_grad()
def activations(model: nn.Module, batch: Inputs) -> dict[str, Tensor]:
    """What every node of the forward pass computes on a batch, in the mode that the model is in."""
    found: dict[str, Tensor] = {}
    args, kwargs = batch
    with watched(model, lambda name, value: found.update({name: value.clone()})):
        model(*args, **kwargs)
    return found


@contextmanager
def watched(model: nn.Module, see: See) -> Generator[None]:
    """Shows what every node of a forward pass inside computes."""
    watch = Watch(model, see)
    handles = [
        handle
        for path, module in model.named_modules()
        for handle in (
            module.register_forward_pre_hook(_enter(watch, path), prepend=True),
            module.register_forward_hook(_leave(watch), always_call=True),
        )
    ]
    try:
        with watch:
            yield
    finally:
        for handle in handles:
            handle.remove()


def _enter(watch: Watch, path: str) -> Callable[[nn.Module, object], None]:
    def hook(_module: nn.Module, _inputs: object) -> None:
        watch.path.append(path)

    return hook


def _leave(watch: Watch) -> Callable[[nn.Module, object, object], None]:
    def hook(_module: nn.Module, _inputs: object, _output: object) -> None:
        watch.path.pop()

    return hook


def _is_activation(value: Tensor) -> bool:
    return _is_float(value) and value.numel() > 1


def _is_float(value: Tensor) -> bool:
    return value.is_floating_point() or value.is_complex()


def _storage(value: Tensor) -> int:
    return value.untyped_storage().data_ptr()


# -- attention logits ---------------------------------------------------------------------------


def _attention_logits(
    func: TorchFunction, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Tensor | None:
    if func is nn.functional.scaled_dot_product_attention:
        given = dict(zip(("query", "key", "value"), args, strict=False)) | dict(kwargs)
        return _product(given["query"], given["key"], given.get("scale"))
    return None


@torch.no_grad()
def _product(query: Tensor, key: Tensor, scale: float | None) -> Tensor:
    """Logits of the first sample, (heads, L, S); head h of grouped queries meets its key head."""
    q, k = _of_first_sample(query), _of_first_sample(key)
    shared = max(1, q.shape[0] // k.shape[0])
    heads = min(_HEADS, q.shape[0])
    keys = torch.stack([k[h // shared] for h in range(heads)])
    factor = q.shape[-1] ** -0.5 if scale is None else scale
    return (q[:heads] @ keys.transpose(-1, -2)).float() * factor


def _of_first_sample(value: Tensor) -> Tensor:
    """(heads, L, head size) of (..., heads, L, head size); without heads, all samples are one."""
    return value.flatten(0, -4)[0] if value.ndim > 3 else value.reshape(-1, *value.shape[-2:])
