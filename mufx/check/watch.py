"""Every activation of one forward pass, by node: the recorder with real tensors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any, TypeGuard

import torch
from torch import Tensor, fx, nn

from mufx.inputs import Inputs
from mufx.recorder import Recorder, TorchFunction, tensors
from mufx.recording import Call, Origin
from mufx.rules.table import operation

LOGITS = "logits"
_HEADS = 4  # of the first sample: enough to see the size of attention logits


class Watch(Recorder):
    """Keeps what every node computes; views of an activation are not kept again.

    A single number, such as a loss, is no activation: its change goes through 0 now and then, and
    no other entries make up for that.

    A node is called `module:operation#n`, its n-th use in that module: the same name at every
    width, in the original and in the emitted module. Attention weights inside a fused kernel are
    never in memory; the logits of some heads of the first sample are computed beside it.
    """

    def __init__(self, model: nn.Module) -> None:
        """Nothing is seen yet."""
        super().__init__()
        self.found: dict[str, Tensor] = {}
        self._weights = {id(p) for p in model.parameters()}
        self._seen: Counter[tuple[str, str]] = Counter()

    def perform(
        self, func: TorchFunction, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> object:
        """Runs the call, and notes what is a value of weights alone, or no new value."""
        result = func(*args, **kwargs)
        given = tensors((args, dict(kwargs)))
        self._skip = bool(given) and all(id(t) in self._weights for t in given)
        if self._skip:
            made = tensors(result)
            self._weights.update(map(id, made))
            self._alive.extend(made)
        self._logits = _attention_logits(func, args, kwargs)
        storages = {t.untyped_storage().data_ptr() for t in given}
        self._old = None if _writes(func) else storages
        return result

    def adopt(self, tensor: Tensor) -> fx.Node:
        """An input, a parameter or a buffer: a node without a measurement."""
        node = self.graph.create_node("placeholder", "given")
        self._nodes[id(tensor)] = node
        self._alive.append(tensor)
        return node

    def bind(self, node: fx.Node, result: object) -> None:
        """Names the node, and keeps its result where that is a new activation."""
        super().bind(node, result)
        if self._skip and isinstance(result, Tensor):
            self._weights.add(id(result))
        name = named(node, self.origins[node.name], self._seen)
        if self._skip or not _is_activation(result):
            return
        if self._logits is not None:
            self.found[f"{name}/{LOGITS}"] = self._logits
        if self._old is None or result.untyped_storage().data_ptr() not in self._old:
            self.found[name] = result.detach().clone()


def named(node: fx.Node, origin: Origin, seen: Counter[tuple[str, str]]) -> str:
    """`module:operation#n`, where `seen` counts the operations so far."""
    key = (origin.call.path if origin.call is not None else "", operation(node))
    seen[key] += 1
    return f"{key[0]}:{key[1]}#{seen[key]}"


@torch.no_grad()
def activations(model: nn.Module, batch: Inputs) -> dict[str, Tensor]:
    """What every node of the forward pass computes on a batch, in the mode that the model is in."""
    watch = Watch(model)
    args, kwargs = batch
    with _followed(model, watch), watch:
        model(*args, **kwargs)
    return watch.found


@contextmanager
def _followed(model: nn.Module, watch: Watch) -> Generator[None]:
    """The watch knows which module runs."""
    handles = [
        handle
        for path, module in model.named_modules()
        for handle in (
            module.register_forward_pre_hook(_enter(watch, path), prepend=True),
            module.register_forward_hook(_leave(watch), always_call=True),
        )
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _enter(watch: Watch, path: str) -> Callable[[nn.Module, object], None]:
    def hook(module: nn.Module, _: object) -> None:
        parent = watch.calls[-1] if watch.calls else None
        watch.calls.append(Call(path, 0, parent, type(module)))

    return hook


def _leave(watch: Watch) -> Callable[[nn.Module, object, object], None]:
    def hook(_module: nn.Module, _inputs: object, _output: object) -> None:
        watch.calls.pop()

    return hook


def _is_activation(result: object) -> TypeGuard[Tensor]:
    return isinstance(result, Tensor) and result.is_floating_point() and result.numel() > 1


def _writes(func: TorchFunction) -> bool:
    name: str = getattr(func, "__name__", "")
    return name.startswith("__i") or (name.endswith("_") and not name.endswith("__"))


# -- attention logits ---------------------------------------------------------------------------


def _attention_logits(
    func: TorchFunction, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Tensor | None:
    if func is nn.functional.scaled_dot_product_attention:
        given = dict(zip(("query", "key", "value"), args, strict=False)) | dict(kwargs)
        return _product(given["query"], given["key"], given.get("scale"))
    if func is nn.functional.multi_head_attention_forward:
        return _of_multi_head(args, kwargs)
    return None


def _product(query: Tensor, key: Tensor, scale: float | None) -> Tensor:
    """Logits of the first sample, (heads, L, S); head h of grouped queries meets its key head."""
    q, k = query.flatten(0, -4)[0:1].squeeze(0), key.flatten(0, -4)[0:1].squeeze(0)
    q, k = (t if t.ndim == 3 else t.unsqueeze(0) for t in (q, k))
    shared = max(1, q.shape[0] // k.shape[0])
    heads = min(_HEADS, q.shape[0])
    keys = torch.stack([k[h // shared] for h in range(heads)])
    factor = q.shape[-1] ** -0.5 if scale is None else scale
    return (q[:heads] @ keys.transpose(-1, -2)).float() * factor


def _of_multi_head(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor | None:
    """From the packed projection; None where query, key and value have weights of their own."""
    names = ("query", "key", "value", "embed", "heads", "weight", "bias")
    given = dict(zip(names, args, strict=False))
    if len(given) < len(names) or given["weight"] is None or kwargs.get("use_separate_proj_weight"):
        return None
    embed, heads = int(given["embed"]), int(given["heads"])
    bias = given["bias"]
    q, k = (
        nn.functional.linear(
            given[name][:, 0] if given[name].ndim == 3 else given[name],
            given["weight"][i * embed : (i + 1) * embed],
            None if bias is None else bias[i * embed : (i + 1) * embed],
        )
        .reshape(-1, heads, embed // heads)
        .transpose(0, 1)
        for i, name in enumerate(("query", "key"))
    )
    return _product(q.unsqueeze(0), k.unsqueeze(0), None)
