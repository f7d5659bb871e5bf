"""Records what Python code does with tensors as a `torch.fx` graph, function by function.

A `TorchFunctionMode` sees every call of torch's public functions, of `Tensor` methods and of
factories; a call becomes one node, whatever it does inside, so attention, linear and dropout stay
single nodes. `forward.py` records a model's forward with it, `construction.py` its constructor.
"""

from __future__ import annotations

import operator
import os
import sys
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from types import FrameType
from typing import Any

import torch
from torch import fx
from torch.overrides import TorchFunctionMode

from mufx.diagnostics import Place
from mufx.recording import DEVICE, Call, Origin, Size, Statement, TensorValue
from mufx.signatures import in_position

_TORCH = os.path.dirname(torch.__file__) + os.sep
_MUFX = os.path.dirname(__file__) + os.sep
_MODULES = os.path.join(_TORCH, "nn", "modules") + os.sep
_NUMBERS = tuple(
    os.path.join(os.path.dirname(_TORCH[:-1]), name, "") for name in ("numpy", "sympy")
)
_SPELLED = _MUFX + "spelled.py"
_CONTAINER_FRAMES = (
    os.path.join(_MODULES, "module.py"),
    os.path.join(_MODULES, "container.py"),
)

_ATOMS = frozenset({int, float, bool, str, type(None), torch.dtype})  # what most arguments are

TorchFunction = Callable[..., object]


class Recorder(TorchFunctionMode):
    """Builds a graph from the torch calls made while it is active.

    Tensors are known by identity (and, through `adopt`, by whatever a subclass knows of them).
    Subclasses decide how a call is carried out (`perform`) and where a tensor that no recorded
    call made comes from (`adopt`).
    """

    def __init__(self) -> None:
        """An empty graph."""
        super().__init__()
        self.graph = fx.Graph()
        self.values: dict[str, TensorValue | None] = {}
        self.origins: dict[str, Origin] = {}
        self.lengths: dict[str, int] = {}
        self.calls: list[Call] = []
        self._nodes: dict[int, fx.Node] = {}
        self._alive: list[torch.Tensor] = []  # an id is only unique while its object lives

    # -- what subclasses decide -------------------------------------------------------------

    def perform(
        self, func: TorchFunction, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> object:
        """Carries out one call."""
        return func(*args, **kwargs)

    def adopt(self, tensor: torch.Tensor) -> fx.Node:
        """The node of a tensor that no recorded call made."""
        raise NotImplementedError

    def size(self, number: torch.SymInt | torch.SymFloat | torch.SymBool) -> Size:
        """The argument that stands for a symbolic number."""
        raise NotImplementedError

    # -- the mode ---------------------------------------------------------------------------

    def __torch_function__(
        self,
        func: TorchFunction,
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        """Performs the call, and adds a node if tensors came out of it or were changed by it."""
        args, kwargs = in_position(func, args, kwargs or {})
        before = self.arguments((args, kwargs)) if is_recordable(func) else None
        result = self.perform(func, args, kwargs)
        if before is None or not (tensors(result) or mutates(func, result)):
            return result
        if not is_inplace(func, kwargs):
            result = _fresh(result, tensors((args, kwargs)))
        node_args, node_kwargs = before
        node = self._create(func, node_args, node_kwargs)
        self.bind(node, result)
        return result

    def bind(self, node: fx.Node, result: object) -> None:
        """Lets `node` stand for `result`: a tensor, or a tuple or list of tensors."""
        if isinstance(result, torch.Tensor):
            self.know(result, node)
            return
        self.values[node.name] = None
        if isinstance(result, (tuple, list)):
            self.lengths[node.name] = len(result)
            for i, item in enumerate(result):
                if tensors(item):
                    self.bind(self._create(operator.getitem, (node, i), {}), item)

    def know(self, tensor: torch.Tensor, node: fx.Node) -> None:
        """Lets `node` stand for `tensor`."""
        self._nodes[id(tensor)] = node
        self._alive.append(tensor)
        self.values[node.name] = self.value_of(tensor)

    def value_of(self, tensor: torch.Tensor) -> TensorValue:
        """Shape and dtype, as the recording keeps them."""
        sizes: list[Any] = list(tensor.shape)  # annotated as int, but free ones are symbolic
        shape = tuple(d if isinstance(d, int) else self.size(d) for d in sizes)
        return TensorValue(shape, tensor.dtype)

    def node_of(self, tensor: torch.Tensor) -> fx.Node:
        """The node that made `tensor`, or that it is adopted as."""
        node = self._nodes.get(id(tensor))
        return node if node is not None else self.adopt(tensor)

    def arguments(self, value: Any) -> Any:
        """`value` with nodes for tensors, sizes for symbolic numbers, one mark for devices."""
        if type(value) in _ATOMS:
            return value
        if isinstance(value, torch.Tensor):
            return self.node_of(value)
        if isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)):
            return self.size(value)
        if isinstance(value, torch.device):
            return DEVICE
        if isinstance(value, slice):
            return slice(*(self.arguments(v) for v in (value.start, value.stop, value.step)))
        if isinstance(value, torch.Size):
            return tuple(self.arguments(v) for v in value)
        if isinstance(value, tuple):
            items = [self.arguments(v) for v in value]
            return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
        if isinstance(value, list):
            return [self.arguments(v) for v in value]
        if isinstance(value, Mapping):
            return {k: self.arguments(v) for k, v in value.items()}
        return _plain(value)

    # -- nodes ------------------------------------------------------------------------------

    def _create(self, func: TorchFunction, args: Any, kwargs: Any) -> fx.Node:
        op, target, args = spelling(func, args, kwargs)
        if "device" in kwargs and kwargs["device"] is not None:
            kwargs = {**kwargs, "device": DEVICE}
        node = self.graph.create_node(op, target, tuple(args), dict(kwargs))
        self.origins[node.name] = self.origin()
        return node

    def origin(self) -> Origin:
        """Where in the sources the running call stands."""
        call = self.calls[-1] if self.calls else None
        inner, user = _frames(sys._getframe(1))
        path, cls = (call.path, call.cls.__name__) if call is not None else ("", "")
        place = Place(user.f_code.co_filename, user.f_lineno, path, cls)
        return Origin(place, call, _statement(inner))

    def statement(self) -> Statement:
        """The statement of the model's code that is running."""
        return _statement(_frames(sys._getframe(1))[0])


def _plain(value: object) -> object:
    """A number of numpy's as Python's, anything else as it is."""
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, Real) else value


def _statement(frame: FrameType) -> Statement:
    code = frame.f_code
    return Statement(code.co_filename, frame.f_lineno, code.co_qualname, frame.f_lasti)


def _frames(frame: FrameType | None) -> tuple[FrameType, FrameType]:
    """The innermost frame of a model's code, torch's own modules included; and of user code."""
    inner: FrameType | None = None
    last = frame
    while frame is not None:
        last = frame
        name = frame.f_code.co_filename
        if is_users(name):
            return (inner or frame), frame
        named = name == _SPELLED or (name.startswith(_MODULES) and name not in _CONTAINER_FRAMES)
        if inner is None and named:
            inner = frame
        frame = frame.f_back
    assert last is not None
    return inner or last, last


def is_users(file: str) -> bool:
    """Whether a file holds user code: neither torch's, nor ours, nor numpy's or sympy's."""
    return not file.startswith((_TORCH, _MUFX, *_NUMBERS, "<frozen"))


def place_of(problem: BaseException) -> Place | None:
    """The last line of user code that an exception passed through."""
    found: Place | None = None
    trace = problem.__traceback__
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if is_users(name):
            found = Place(name, trace.tb_lineno)
        trace = trace.tb_next
    return found


# Asking a tensor about itself is not an operation on it; these also must not be given a
# fresh identity.
_QUERIES = frozenset(
    {
        torch.Tensor.size,
        torch.Tensor.dim,
        torch.Tensor.numel,
        torch.Tensor.stride,
        torch.Tensor.is_floating_point,
        torch.Tensor.is_contiguous,
        torch.Tensor.__len__,
        torch.Tensor.requires_grad_,
        torch.Tensor.__hash__,
        torch.Tensor.untyped_storage,
        torch.Tensor.share_memory_,
        torch.Tensor.retain_grad,
        torch.Tensor.register_hook,
    }
)


def is_recordable(func: TorchFunction) -> bool:
    """Whether a call is an operation on tensors, not a question about them."""
    if func in _QUERIES:
        return False
    if _is_getter(func):
        return _property_name(func) in _TENSOR_PROPERTIES
    return getattr(func, "__name__", "") not in ("__set__", "__delete__")


_TENSOR_PROPERTIES = frozenset({"T", "mT", "H", "mH", "data", "real", "imag"})


def _is_getter(func: TorchFunction) -> bool:
    return getattr(func, "__name__", "") == "__get__"


_DEVICE_QUESTIONS = frozenset({"is_cuda", "is_cpu", "is_mps", "is_xpu"})


def device_question(func: TorchFunction) -> str | None:
    """`is_cuda` where the model's own code, not torch, reads that property of a tensor."""
    name = _property_name(func) if _is_getter(func) else ""
    if name not in _DEVICE_QUESTIONS:
        return None
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_MUFX):
        frame = frame.f_back
    return None if frame is None or frame.f_code.co_filename.startswith(_TORCH) else name


def _property_name(func: TorchFunction) -> str:
    return str(getattr(getattr(func, "__self__", None), "__name__", ""))


_OPERATORS = {
    "add": "add", "sub": "sub", "mul": "mul", "div": "truediv", "matmul": "matmul", "pow": "pow",
    "add_": "iadd", "sub_": "isub", "mul_": "imul", "div_": "itruediv",
    "eq": "eq", "ne": "ne", "lt": "lt", "le": "le", "gt": "gt", "ge": "ge",
}  # fmt: skip


def spelling(func: TorchFunction, args: Any, kwargs: Any) -> tuple[str, Any, Any]:
    """How fx writes the call: (node op, target, args)."""
    if _is_getter(func):
        return "call_function", getattr, (args[0], _property_name(func))
    name = getattr(func, "__name__", "")
    owner = getattr(func, "__objclass__", None)
    is_method = getattr(torch.Tensor, name, None) is func or (
        owner is not None and issubclass(torch.Tensor, owner)
    )
    if not is_method:
        return "call_function", func, args
    if name in _OPERATORS and not kwargs and len(args) == 2:
        return "call_function", getattr(operator, _OPERATORS[name]), args
    dunder = name.removeprefix("__").removesuffix("__") if name.startswith("__") else None
    if dunder is None:
        return "call_method", name, args
    dunder = "rtruediv" if dunder == "rdiv" else dunder
    if dunder.startswith("r") and hasattr(operator, dunder[1:]) and dunder not in _NOT_REVERSED:
        return "call_function", getattr(operator, dunder[1:]), (args[1], args[0])
    python = getattr(operator, dunder, None) or getattr(operator, dunder + "_", None)
    if python is not None:
        return "call_function", python, args
    return "call_method", name, args


_NOT_REVERSED = frozenset({"rshift"})


def mutates(func: TorchFunction, result: object) -> bool:
    """Whether a call without a result wrote into a tensor."""
    return result is None and getattr(func, "__name__", "") == "__setitem__"


def is_inplace(func: TorchFunction, kwargs: Mapping[str, Any]) -> bool:
    """Whether a call returns a tensor that it wrote into."""
    name: str = getattr(func, "__name__", "")
    if name.startswith("__"):
        return name.startswith("__i") and name not in ("__invert__", "__index__", "__int__")
    return name.endswith("_") or bool(kwargs.get("inplace")) or kwargs.get("out") is not None


def _fresh(result: object, inputs: list[torch.Tensor]) -> object:
    """`result` with an identity of its own.

    `x.to(x.dtype)`, `x.contiguous()` and dropout in eval return `x` itself. If the node took
    over the identity of `x`, every later use of `x` would be wired through the no-op.
    """
    if isinstance(result, torch.Tensor) and any(result is t for t in inputs):
        with torch._C.DisableTorchFunctionSubclass():
            return result.view_as(result)
    return result


def tensors(value: object) -> list[torch.Tensor]:
    """The tensors in nested tuples, lists and mappings."""
    if type(value) in _ATOMS:
        return []
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, (tuple, list)):
        return [t for v in value for t in tensors(v)]
    if isinstance(value, Mapping):
        return [t for v in value.values() for t in tensors(v)]
    return []
