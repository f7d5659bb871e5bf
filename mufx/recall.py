"""Remembers what torch functions return for fake tensors: shape, strides, dtype, gradient.

A model of 80 equal blocks calls the same functions on the same shapes 80 times, and with free
sizes one call takes milliseconds of symbolic arithmetic. What a function returns for fake tensors
depends on nothing but its arguments' metadata and constants, so the second call is looked up.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, in_kernel_invocation_manager
from torch.autograd.function import Function
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

_CPU = torch.device("cpu")
_PLAIN = (bool, int, float, str, type(None), torch.dtype, torch.memory_format, type(Ellipsis))


@dataclass(frozen=True, slots=True)
class _Result:
    """A tensor that a function returned, without an identity: on `meta`, with its metadata."""

    empty: Tensor
    meta: int
    requires_grad: bool


class Recall:
    """The results of one recording, by function and metadata of the arguments."""

    def __init__(self, mode: FakeTensorMode) -> None:
        """Nothing remembered yet; `mode` owns every tensor that comes and goes."""
        self._mode = mode
        self._results: dict[Hashable, tuple[_Result, ...] | _Result] = {}
        self._interned: dict[Hashable, int] = {}
        self._metas: dict[int, int] = {}  # id of a tensor that a result was recalled as
        self._alive: list[Tensor] = []
        self._anchor = torch.empty((), requires_grad=True)

    def perform(
        self, func: Callable[..., object], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> object:
        """`func(*args, **kwargs)`, recalled where the same call was made before."""
        key = self._key(func, args, kwargs)
        if key is None:
            return func(*args, **kwargs)
        known = self._results.get(key)
        if known is None:
            result = func(*args, **kwargs)
            self._remember(key, result)
            return result
        if isinstance(known, tuple):
            return tuple(self._again(r) for r in known)
        return self._again(known)

    # -- what a call depends on -------------------------------------------------------------

    def _key(
        self, func: Callable[..., object], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Hashable | None:
        """`None` where a result may depend on more than metadata, or is no new tensor."""
        name: str = getattr(func, "__name__", "")
        if name in _NOT_RECALLED or (name.endswith("_") and not name.endswith("__")):
            return None
        if name.startswith("__i") or "out" in kwargs or kwargs.get("inplace"):
            return None
        if not torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"):
            return None
        try:
            known = self._hashable(args), self._hashable(kwargs)
        except _UnknownError:
            return None
        return func, getattr(func, "__self__", None), torch.get_default_dtype(), known

    def _hashable(self, value: Any) -> Hashable:
        if isinstance(value, Tensor):
            return Tensor, self._meta(value)
        if isinstance(value, torch.SymInt):
            return torch.SymInt, value.node.expr
        if isinstance(value, (tuple, list)):
            return type(value), tuple(self._hashable(v) for v in value)
        if isinstance(value, slice):
            return slice, self._hashable((value.start, value.stop, value.step))
        if isinstance(value, dict):
            return tuple((k, self._hashable(v)) for k, v in value.items())
        if isinstance(value, _PLAIN):
            return type(value), value  # 1, 1.0 and True are equal, and give other dtypes
        raise _UnknownError

    def _meta(self, tensor: Tensor) -> int:
        known = self._metas.get(id(tensor))
        if known is not None:
            return known
        if not isinstance(tensor, FakeTensor) or tensor.constant is not None:
            raise _UnknownError
        if tensor.layout is not torch.strided or tensor.fake_device != _CPU:
            raise _UnknownError
        metadata = (
            tuple(_number(n) for n in tensor.shape),
            tuple(_number(n) for n in tensor.stride()),
            _number(tensor.storage_offset()),
            tensor.dtype,
            tensor.requires_grad,
            tensor.is_conj(),
            tensor.is_neg(),
        )
        found = self._interned.setdefault(metadata, len(self._interned))
        self._keep(tensor, found)
        return found

    def _keep(self, tensor: Tensor, meta: int) -> None:
        self._metas[id(tensor)] = meta
        self._alive.append(tensor)  # an id is only unique while its object lives

    # -- what it returned -------------------------------------------------------------------

    def _remember(self, key: Hashable, result: object) -> None:
        try:
            if isinstance(result, Tensor):
                self._results[key] = self._without_identity(result)
            elif type(result) is tuple and result:
                self._results[key] = tuple(self._without_identity(r) for r in result)
        except _UnknownError:
            return

    def _without_identity(self, value: object) -> _Result:
        if not isinstance(value, FakeTensor) or (value.is_leaf and value.requires_grad):
            raise _UnknownError
        meta = self._meta(value)
        if free_unbacked_symbols(value):
            raise _UnknownError
        with in_kernel_invocation_manager(self._mode):
            empty = value.detach()
        return _Result(empty, meta, value.requires_grad)

    def _again(self, result: _Result) -> Tensor:
        def make() -> Tensor:
            return FakeTensor(self._mode, result.empty, _CPU)

        tensor = _with_history(self._anchor, make) if result.requires_grad else make()
        self._keep(tensor, result.meta)
        return tensor


class _UnknownError(Exception):
    """An argument of which more than metadata may matter."""


def _number(value: int | torch.SymInt) -> Hashable:
    if not isinstance(value, torch.SymInt):
        return value
    expression: Hashable = value.node.expr
    return expression


class _Made(Function):
    """Gives a tensor that requires gradients a history, so that it can be changed in place."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, make: Callable[[], Tensor]) -> Tensor:
        del ctx, anchor
        return make()


# Taken now: a recording replaces `Function.apply`.
_with_history: Callable[[Tensor, Callable[[], Tensor]], Tensor] = _Made.apply
_NOT_RECALLED = frozenset({"__get__", "__set__", "__setitem__", "requires_grad_", "detach"})
