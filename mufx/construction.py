"""The init tape: a model's constructor, recorded without memory.

The model is built on `meta` while every torch call is recorded, so the exact initialisation of
each parameter and the value of each buffer is a small program: it can be replayed with a seed
(bitwise the model's own init), evaluated for one tensor, read for its distribution
(`moments.py`), or written out as source.
"""

from __future__ import annotations

import heapq
import importlib
import math
import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Generator, Iterable, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from types import FunctionType, MappingProxyType
from typing import Any

import torch
from torch import fx, nn
from torch.nn import init
from torch.utils._device import _device_constructors

from mufx import factory
from mufx.diagnostics import Diagnostic, MufxError, Place, error
from mufx.drawing import Draw, drawing
from mufx.recorder import Recorder, place_of
from mufx.recording import InputDevice, Origin, Size, TensorValue
from mufx.undrawn import MOVES, fills, unmoved


@dataclass(frozen=True, slots=True)
class Span:
    """The elements of its memory that a tensor covers: all from start to stop if `dense`."""

    start: int
    stop: int
    dense: bool
    strides: tuple[int, ...] = field(default=(), compare=False)


@dataclass(frozen=True, eq=False)
class Construction:
    """A model on `meta`, and the program that would fill it.

    `tensors` maps every parameter and buffer, tied names included, to the node that created it;
    later nodes with the same `storage` write to it in place.
    """

    model: nn.Module
    graph: fx.Graph
    values: Mapping[str, TensorValue | None]
    origins: Mapping[str, Origin]
    tensors: Mapping[str, str]
    storages: Mapping[str, int]
    """By node name: nodes with the same number share memory."""
    constants: Mapping[str, torch.Tensor]
    """Tensors that no recorded call made (from numpy, say), by `get_attr` target."""
    spans: Mapping[str, Span]
    """By node name: what of its memory a node stands for, or a `setitem` writes to."""
    nodes: Mapping[str, fx.Node] = field(repr=False, default_factory=dict)
    attributes: tuple[str, ...] = ()
    """The buffers that were plain attributes of their modules."""
    draws_outside: tuple[Draw, ...] = ()
    """Where the constructor draws numbers that torch does not make: they are constants here."""

    def replay(self, seed: int | None = None, device: str = "cpu") -> dict[str, torch.Tensor]:
        """Runs the whole constructor's program for real: every parameter and buffer by name.

        With `seed`, the global generator is seeded first. On the CPU the result is bit for bit
        what building the model there with that seed gives.
        """
        if seed is not None:
            torch.manual_seed(seed)
        env = run_nodes(self.graph.nodes, self.constants, device)
        return {name: env[self.nodes[node]] for name, node in self.tensors.items()}

    def program(self, name: str) -> list[fx.Node]:
        """The nodes that one parameter or buffer depends on, in order."""
        return self._uses.slice(self.nodes[self.tensors[name]])

    def without(self, names: Collection[str]) -> Construction:
        """The same, in which these of its `attributes` are no buffers again."""
        for name in names:
            path, _, attribute = name.rpartition(".")
            module = self.model.get_submodule(path)
            value = module._buffers.pop(attribute)
            module._non_persistent_buffers_set.discard(attribute)
            setattr(module, attribute, value)
        tensors = {name: node for name, node in self.tensors.items() if name not in names}
        kept = tuple(name for name in self.attributes if name not in names)
        return replace(self, tensors=tensors, attributes=kept)

    @cached_property
    def _uses(self) -> _Uses:
        return _Uses(self.graph.nodes, self.storages)

    def value(self, name: str, device: str = "cpu") -> torch.Tensor:
        """One parameter or buffer, computed for real. Meant for those without random draws."""
        env = run_nodes(self.program(name), self.constants, device)
        value: torch.Tensor = env[self.nodes[self.tensors[name]]]
        return value

    def draws(self, name: str) -> bool:
        """Whether the values of this parameter or buffer are random."""
        return any(is_random(node) for node in self.program(name))


def record_construction(
    build: Callable[[], nn.Module], *, registering: bool = False
) -> Construction:
    """Calls `build()` on the `meta` device and records it.

    With `registering`, tensors that modules keep as plain attributes become buffers.

    The global random state is left untouched; that of Python and numpy is always the same.

    Raises:
        MufxError: `MUF104` if the model does not build without memory, `MUF109` if its build
            decides from random values.
    """
    record = partial(_recorded, build, registering)
    construction, draws = drawing(record, record)
    return replace(construction, draws_outside=draws)


def _recorded(build: Callable[[], nn.Module], registering: bool) -> Construction:
    recorder = _Construction()
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[]))
        recorder.originals = stack.enter_context(_visible_inits())
        stack.enter_context(_transformers_initialise())
        stack.enter_context(recorder)
        try:
            model = build()
        except MufxError:
            raise
        except Exception as problem:
            raise MufxError(
                error(
                    "MUF104",
                    f"building the model failed: {type(problem).__name__}: {problem}",
                    hint="the constructor must run on the meta device: "
                    'with torch.device("meta"): build(...)',
                    place=place_of(problem),
                )
            ) from problem
    attributes = _registered(model) if registering else ()
    return replace(recorder.finish(model), attributes=attributes)


class _Construction(Recorder):
    """The recorder of a constructor."""

    def __init__(self) -> None:
        super().__init__()
        self.storages: dict[str, int] = {}
        self.constants: dict[str, torch.Tensor] = {}
        self.spans: dict[str, Span] = {}
        self.originals: Mapping[Any, Callable[..., object]] = {}
        self._made: dict[int, list[tuple[torch.Tensor, fx.Node]]] = {}
        self._tensors: dict[str, torch.Tensor] = {}
        self._factories = _device_constructors()

    def finish(self, model: nn.Module) -> Construction:
        tensors: dict[str, str] = {}
        named = [
            *model.named_parameters(remove_duplicate=False),
            *model.named_buffers(remove_duplicate=False),
        ]
        for name, tensor in named:
            known = len(self.constants)
            node = self.node_of(tensor)
            tensors[name] = node.name
            if len(self.constants) > known:  # nobody's code is running any more
                owner = self.origins[node.name]
                self.origins[node.name] = replace(owner, place=owner_of(model, name))
        return Construction(
            model,
            self.graph,
            self.values,
            self.origins,
            tensors,
            self.storages,
            self.constants,
            self.spans,
            {n.name: n for n in self.graph.nodes},
        )

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
        if func is torch.Tensor.__deepcopy__:
            return self._copied(*args)
        if func in _LEAVES_THE_GRAPH and args[0].is_meta:
            return func(self._evaluate(args[0], func), *args[1:], **kwargs)
        if func in MOVES:
            with self:
                stayed = unmoved(func, args, kwargs)
            if stayed is not None:
                return stayed
        return super().__torch_function__(func, types, args, kwargs)

    def _copied(self, tensor: torch.Tensor, memo: dict[int, torch.Tensor]) -> torch.Tensor:
        """`copy.deepcopy` of a tensor: its own memory, once for all that share the tensor."""
        if id(tensor) not in memo:
            with self:
                memo[id(tensor)] = tensor.detach().clone().requires_grad_(tensor.requires_grad)
        return memo[id(tensor)]

    def perform(
        self, func: Callable[..., object], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> object:
        if func in self.originals:
            return self.originals[func](*args, **kwargs)
        if fills(func, args):
            return args[0]
        if func in self._factories and kwargs.get("device") is None:
            kwargs = {**kwargs, "device": "meta"}
        return func(*args, **kwargs)

    def know(self, tensor: torch.Tensor, node: fx.Node) -> None:
        super().know(tensor, node)
        storage = _storage(tensor)
        self.storages[node.name] = storage
        self.spans[node.name] = _span(tensor)
        self._tensors[node.name] = tensor
        self._made.setdefault(storage, []).append((tensor, node))

    def bind(self, node: fx.Node, result: object) -> None:
        super().bind(node, result)
        if result is None and node.args and isinstance(node.args[0], fx.Node):
            target = node.args[0].name
            self.storages[node.name] = self.storages[target]
            self.spans[node.name] = self._part(target, node.args[1])

    def node_of(self, tensor: torch.Tensor) -> fx.Node:
        """`p.data = t` gives a known object other memory, so that it counts as unknown."""
        node = self._nodes.get(id(tensor))
        if node is None or self.storages[node.name] != _storage(tensor):
            return self.adopt(tensor)
        return node

    def _part(self, target: str, index: Any) -> Span:
        """What of its memory `target[index] = ...` writes to."""
        whole = self.spans[target]
        if _has_node(index):
            return Span(whole.start, whole.stop, dense=False)
        with torch._C.DisableTorchFunctionSubclass():
            part = self._tensors[target][index]
            return _span(part) if _storage(part) == self.storages[target] else whole

    def adopt(self, tensor: torch.Tensor) -> fx.Node:
        """`nn.Parameter(t)` is a new object over the memory of `t`; the rest is a constant."""
        with torch._C.DisableTorchFunctionSubclass():
            for made, node in self._made.get(_storage(tensor), ()):
                if _layout(made) == _layout(tensor):
                    self._nodes[id(tensor)] = node
                    self._alive.append(tensor)
                    return node
            if tensor.is_meta:
                raise MufxError(
                    error(
                        "MUF109",
                        f"a tensor of shape {tuple(tensor.shape)} was made in a way that is not "
                        "visible to torch's function layer",
                        hint="make it with torch's public functions in the constructor",
                        place=self.origin().place,
                    )
                )
            name = f"constant_{len(self.constants)}"
            self.constants[name] = tensor.detach().clone()
        node = self.graph.create_node("get_attr", name)
        self.origins[node.name] = self.origin()
        self.know(tensor, node)
        return node

    def size(self, number: torch.SymInt | torch.SymFloat | torch.SymBool) -> Size:
        raise AssertionError("a constructor has no free sizes")

    def _evaluate(self, tensor: torch.Tensor, read: Callable[..., object]) -> torch.Tensor:
        """A small tensor's real value, for a constructor that turns it into Python numbers."""
        node = self.node_of(tensor)
        needed = _Uses(self.graph.nodes, self.storages).slice(node)
        if any(is_random(n) for n in needed):
            raise MufxError(_random_value(read, self.origin().place))
        value: torch.Tensor = run_nodes(needed, self.constants, "cpu")[node]
        return value


def _registered(model: nn.Module) -> tuple[str, ...]:
    """Makes buffers of what modules keep as plain attributes: the state dict stays without them.

    Not of what shares memory with a parameter or a buffer, which it would no longer follow.
    """
    held = {_storage(t) for t in (*model.parameters(), *model.buffers())}
    names: list[str] = []
    for path, module in model.named_modules():
        for name, value in list(vars(module).items()):
            if isinstance(value, torch.Tensor) and not value.requires_grad:
                if _storage(value) in held:
                    continue
                delattr(module, name)
                module.register_buffer(name, value, persistent=False)
                names.append(f"{path}.{name}" if path else name)
    return tuple(names)


def owner_of(model: nn.Module, tensor: str) -> Place:
    """The class of the module that holds a tensor."""
    path = tensor.rpartition(".")[0]
    return replace(factory.place_of(type(model.get_submodule(path))), module=path)


def _random_value(read: Callable[..., object], place: Place) -> Diagnostic:
    """A draw that leaves torch, where the tape ends: another seed would be another model."""
    if read in _DECIDES:
        message = "the constructor takes a decision from a random draw"
        hint = "draw it with Python's random module, or pass it in as an argument"
    else:
        kind = "a numpy array" if read in _AS_ARRAY else "a Python number"
        message = (
            f"the constructor turns a random draw into {kind}, by {read.__name__.strip('_')}(), "
            "and what it makes of that cannot be recorded"
        )
        hint = "keep it a tensor, and compute with torch's functions"
    return error("MUF109", message, hint=hint, place=place)


class _Uses:
    """The nodes of a graph by the memory that they stand for."""

    def __init__(self, nodes: Iterable[fx.Node], storages: Mapping[str, int]) -> None:
        self._storages = storages
        self._nodes = list(nodes)
        self._position = {node: i for i, node in enumerate(self._nodes)}
        self._users: dict[int, list[int]] = defaultdict(list)
        for i, node in enumerate(self._nodes):
            if node.name in storages:
                self._users[storages[node.name]].append(i)

    def slice(self, node: fx.Node) -> list[fx.Node]:
        """All nodes that the final content of `node` depends on, in the graph's order."""
        pending: list[int] = []  # negative positions: the last node first
        seen: set[int] = set()
        memory: set[int] = set()

        def want(node: fx.Node, before: int) -> None:
            positions = [self._position[node]]
            storage = self._storages.get(node.name)
            if storage is not None and storage not in memory:
                memory.add(storage)
                positions += self._users[storage]
            for i in positions:
                if i < before and i not in seen:
                    seen.add(i)
                    heapq.heappush(pending, -i)

        want(node, len(self._nodes))
        while pending:
            i = -heapq.heappop(pending)
            for source in self._nodes[i].all_input_nodes:
                want(source, i)
        return [self._nodes[i] for i in sorted(seen)]


def _storage(tensor: torch.Tensor) -> int:
    with torch._C.DisableTorchFunctionSubclass():
        return int(tensor.untyped_storage()._cdata)


def _layout(tensor: torch.Tensor) -> tuple[object, ...]:
    return tensor.shape, tensor.stride(), tensor.storage_offset()


def _span(tensor: torch.Tensor) -> Span:
    with torch._C.DisableTorchFunctionSubclass():
        start = int(tensor.storage_offset())
        axes = [(n, s) for n, s in zip(tensor.shape, tensor.stride(), strict=True) if s]
        if tensor.numel() == 0:
            return Span(start, start, dense=True, strides=tuple(tensor.stride()))
    extent = 1 + sum((n - 1) * s for n, s in axes)
    return Span(
        start,
        start + extent,
        dense=extent == math.prod(n for n, _ in axes),
        strides=tuple(tensor.stride()),
    )


def _has_node(value: Any) -> bool:
    if isinstance(value, slice):
        return any(_has_node(v) for v in (value.start, value.stop, value.step))
    if isinstance(value, (tuple, list)):
        return any(_has_node(v) for v in value)
    return isinstance(value, fx.Node)


def run_nodes(
    nodes: Iterable[fx.Node],
    constants: Mapping[str, torch.Tensor],
    device: str,
    given: Mapping[fx.Node, torch.Tensor] = MappingProxyType({}),
) -> dict[fx.Node, Any]:
    """Executes nodes of a construction for real on `device`; `given` are values of others."""
    env: dict[fx.Node, Any] = dict(given)

    def real(value: Any) -> Any:
        if isinstance(value, fx.Node):
            return env[value]
        if isinstance(value, InputDevice):
            return torch.device(device)
        if isinstance(value, Size):
            return value.hint
        if isinstance(value, slice):
            return slice(real(value.start), real(value.stop), real(value.step))
        if isinstance(value, (tuple, list)):
            return type(value)(real(v) for v in value)
        return value

    with torch.no_grad(), torch.device(device):
        for node in nodes:
            args, kwargs = real(node.args), {k: real(v) for k, v in node.kwargs.items()}
            if node.op == "get_attr":
                assert isinstance(node.target, str)
                env[node] = constants[node.target].to(device, copy=True)
            elif node.op == "call_method":
                assert isinstance(node.target, str)
                env[node] = getattr(args[0], node.target)(*args[1:], **kwargs)
            else:
                assert callable(node.target)
                env[node] = node.target(*args, **kwargs)
    return env


_RANDOM = frozenset({
    "uniform_", "normal_", "random_", "bernoulli_", "exponential_", "cauchy_", "geometric_",
    "log_normal_", "rand", "randn", "randint", "randperm", "rand_like", "randn_like",
    "randint_like", "normal", "bernoulli", "multinomial", "poisson", "trunc_normal_",
    "orthogonal_", "sparse_",
})  # fmt: skip


def is_in_place(node: fx.Node) -> bool:
    """Whether the node writes to the memory of its first operand."""
    if not node.op.startswith("call_"):
        return False
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    if name in ("setitem", "__setitem__") or node.kwargs.get("out") is not None:
        return True
    augmented = name in ("iadd", "isub", "imul", "itruediv", "ipow", "ifloordiv", "imod")
    return augmented or (name.endswith("_") and not name.startswith("__"))


def is_random(node: fx.Node) -> bool:
    """Whether the node draws from a generator."""
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return node.op.startswith("call_") and is_random_name(name)


def is_random_name(name: str) -> bool:
    """Whether a function of torch with this name draws from a generator."""
    return name in _RANDOM


# -- torch.nn.init ----------------------------------------------------------------------------


def _uniform(
    tensor: torch.Tensor, a: float, b: float, generator: torch.Generator | None
) -> torch.Tensor:
    with torch.no_grad():
        return tensor.uniform_(a, b, generator=generator)


def _normal(
    tensor: torch.Tensor, mean: float, std: float, generator: torch.Generator | None
) -> torch.Tensor:
    with torch.no_grad():
        return tensor.normal_(mean, std, generator=generator)


def _constant(tensor: torch.Tensor, val: float) -> torch.Tensor:
    with torch.no_grad():
        return tensor.fill_(val)


def _kaiming_uniform(
    tensor: torch.Tensor,
    a: float,
    mode: Any,
    nonlinearity: Any,
    generator: torch.Generator | None,
) -> torch.Tensor:
    if tensor.numel() == 0:
        return tensor
    fan = init._calculate_correct_fan(tensor, mode)
    bound = math.sqrt(3.0) * (init.calculate_gain(nonlinearity, a) / math.sqrt(fan))
    return _uniform(tensor, -bound, bound, generator)


# torch hands these four over whole; spelled out, every fan-dependent init is a plain draw with
# a number, and a draw is the same program for every shape.
_SPELLED_OUT: dict[str, tuple[Callable[..., object], Callable[..., object]]] = {
    "uniform_": (init.uniform_, _uniform),
    "normal_": (init.normal_, _normal),
    "constant_": (init.constant_, _constant),
    "kaiming_uniform_": (init.kaiming_uniform_, _kaiming_uniform),
}


def spelled_out(function: Callable[..., object]) -> Callable[..., object] | None:
    """What an overridable function of torch.nn.init does, in the methods of tensors."""
    known = _SPELLED_OUT.get(getattr(function, "__name__", ""))
    # looked up now: a library may have put its own function in the place of torch's
    if known is None or function not in (known[0], _current(function)):
        return None
    return known[1]


def _current(function: Callable[..., object]) -> object:
    return getattr(init, getattr(function, "__name__", ""), None)


# On a meta tensor these return early, before any torch function runs. For the time of a build
# they hand themselves over to the recorder, also where a model imported them by name.
SILENT_ON_META: dict[str, tuple[Any, str]] = {
    "trunc_normal_": (init.trunc_normal_, "mean=mean, std=std, a=a, b=b, generator=generator"),
    "orthogonal_": (init.orthogonal_, "gain=gain, generator=generator"),
    "dirac_": (init.dirac_, "groups=groups"),
    "sparse_": (init.sparse_, "sparsity=sparsity, std=std, generator=generator"),
}


@contextmanager
def _visible_inits() -> Generator[Mapping[Any, FunctionType]]:
    originals: dict[Any, FunctionType] = {}
    for function, keywords in SILENT_ON_META.values():
        originals[function] = _copy(function)
        names = ", ".join(function.__code__.co_varnames[: function.__code__.co_argcount])
        source = (
            f"def {function.__name__}({names}):\n"
            "    from mufx.construction import SILENT_ON_META\n"
            f"    public = SILENT_ON_META[{function.__name__!r}][0]\n"
            "    handle = torch.overrides.handle_torch_function\n"
            f"    return handle(public, (tensor,), tensor, {keywords})\n"
        )
        scope: dict[str, Any] = {}
        exec(source, {}, scope)  # the body runs with torch.nn.init's own globals
        function.__code__ = scope[function.__name__].__code__
    try:
        yield originals
    finally:
        for function, original in originals.items():
            function.__code__ = original.__code__


def _copy(function: FunctionType) -> FunctionType:
    return FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__
    )


@contextmanager
def _transformers_initialise() -> Generator[None]:
    """`transformers` skips its init where the default device is `meta`; here it must not."""
    name = "get_torch_context_manager_or_global_device"
    if "transformers" not in sys.modules:
        yield
        return
    modeling: Any = importlib.import_module("transformers.modeling_utils")
    if not hasattr(modeling, name):
        yield
        return
    original = getattr(modeling, name)
    setattr(modeling, name, lambda: None)
    try:
        yield
    finally:
        setattr(modeling, name, original)


_DECIDES = frozenset({torch.Tensor.__bool__, torch.Tensor.__contains__})
_NUMPY: object = torch.Tensor.numpy  # its stub has a self of its own
_AS_ARRAY = frozenset({_NUMPY, torch.Tensor.__array__})
_AS_NUMBER = frozenset(
    {
        torch.Tensor.item,
        torch.Tensor.tolist,
        torch.Tensor.__float__,
        torch.Tensor.__int__,
        torch.Tensor.__index__,
    }
)
_LEAVES_THE_GRAPH = frozenset({*_DECIDES, *_AS_ARRAY, *_AS_NUMBER})
