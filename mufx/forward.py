"""Records one forward pass of a model, without memory and without arithmetic.

Parameters, buffers and inputs are swapped for fake tensors for the time of the run, so that a
model on `meta` of any size takes milliseconds. Sizes of the inputs can be kept free: they become
symbols, and every number computed from them becomes an expression.
"""

from __future__ import annotations

import inspect
import logging
import operator
from collections.abc import Callable, Container, Generator, Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import fields, is_dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any

import sympy
import torch
from torch import fx, nn
from torch._dispatch.python import enable_python_dispatcher
from torch._dynamo.source import ConstantSource
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
)
from torch.fx.experimental.symbolic_shapes import (
    DimDynamic,
    GuardOnDataDependentSymNode,
    ShapeEnv,
    StatelessSymbolicContext,
)
from torch.nn.modules import transformer
from torch.utils._python_dispatch import TorchDispatchMode

from mufx import factory
from mufx.decisions import Decision, FreeSizes, guards_an_error, remarks
from mufx.diagnostics import Diagnostic, MufxError, Place, error, note, raise_errors
from mufx.drawing import Draw, at_extremes, drawing
from mufx.extremes import extremes_stay_free
from mufx.keeping import Kept
from mufx.recall import Recall
from mufx.recorder import Recorder, device_question, place_of, tensors
from mufx.recording import Call, Origin, Precision, Recording, Size
from mufx.refusals import refuse_lost_gradient, refusing_flattened_regions, replaced
from mufx.stand_ins import STAND_INS

Inputs = tuple[tuple[object, ...], dict[str, object]]
Fixed = Mapping[tuple[str, int], Place]
"""Placeholders and dimensions whose size is not free, and where it was needed."""

_DATA_DEPENDENT = (
    DataDependentOutputException,
    DynamicOutputShapeException,
    GuardOnDataDependentSymNode,
)


def record_forward(
    model: nn.Module,
    inputs: Inputs,
    *,
    training: bool,
    free_sizes: bool = False,
    precision: Precision = Precision.AS_BUILT,
    spelled: Mapping[Callable[..., object], Callable[..., object]] | None = None,
    watch: Watch | None = None,
) -> Recording:
    """Records `model(*args, **kwargs)` as it runs in training or in evaluation.

    Args:
        model: A model on any device, `meta` included. It is left as it was.
        inputs: Positional and keyword arguments. Tensors become placeholders; everything else
            is part of the recording.
        training: The mode to record.
        free_sizes: Whether the sizes of the inputs stay free where the model lets them.
        precision: The floating type that the model runs in.
        spelled: Fused functions to the functions that are recorded, step by step, instead.
        watch: Sees every ATen call below the recorded functions.

    Raises:
        MufxError: `MUF101`, `MUF102`, `MUF103`, `MUF105` or `MUF115`, with the place in the
            source.
    """

    def record(free_sizes: bool, watch: Watch | None) -> Recording:
        new = partial(_Forward, model, free_sizes, precision, spelled or {}, watch)
        return _recorded(new, inputs)

    again = partial(record, False, None)  # followed line by line; free sizes would take many
    with _in_mode(model, training):
        recording, draws = drawing(partial(record, free_sizes, watch), again)
        if not draws:
            return recording
        told = _of_draws(draws, again)
    raise_errors(told)
    return replace(recording, diagnostics=(*recording.diagnostics, *told))


@contextmanager
def _in_mode(model: nn.Module, training: bool) -> Generator[None]:
    modes = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _recorded(new: Callable[[Fixed], _Forward], inputs: Inputs) -> Recording:
    fixed: Fixed = {}
    while True:
        forward = new(fixed)
        try:
            return forward.record(inputs)
        except _TooInvolvedError as problem:
            fixed = {**fixed, **problem.sizes}


def _of_draws(draws: Iterable[Draw], record: Callable[[], Recording]) -> list[Diagnostic]:
    """What is told of numbers that torch does not draw: other ones may give another graph."""
    try:
        low, high = at_extremes(lambda: _operations(record()))
    except MufxError:  # where these lead, the first did not
        return [_chosen_by(draw) for draw in draws]
    return [_chosen_by(draw) if low != high else _without_effect(draw) for draw in draws]


def _operations(recording: Recording) -> list[tuple[str, object, str]]:
    return [(n.op, n.target, repr((n.args, n.kwargs))) for n in recording.graph.nodes]


def _chosen_by(draw: Draw) -> Diagnostic:
    return error(
        "MUF115",
        f"the forward pass draws from {draw.generator} and does what comes out of that, so one "
        "recording does not hold for other draws",
        hint="draw with torch and compute both sides, by torch.where or a factor of 0 or 1; or "
        "switch it off for the conversion",
        place=draw.place,
    )


def _without_effect(draw: Draw) -> Diagnostic:
    return note(
        "MUF115",
        f"the forward pass draws from {draw.generator}, and does the same for other draws: they "
        "are not in the converted model",
        hint="nothing has to be done",
        place=draw.place,
    )


class _TooInvolvedError(Exception):
    """Sizes that cannot be kept free: another recording fixes them."""

    def __init__(self, sizes: Fixed) -> None:
        super().__init__(sizes)
        self.sizes = sizes


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Looks on at a recording: every ATen call, and which node stands for which tensor."""

    def know(self, node: fx.Node, tensor: torch.Tensor) -> None:
        """`node` stands for `tensor`."""


_TYPES = {Precision.BFLOAT16: torch.bfloat16, Precision.FLOAT64: torch.float64}


class _Forward(Recorder):
    """The recorder of a forward pass."""

    def __init__(
        self,
        model: nn.Module,
        free_sizes: bool,
        precision: Precision,
        spelled: Mapping[Callable[..., object], Callable[..., object]],
        watch: Watch | None = None,
        fixed: Fixed = MappingProxyType({}),
    ) -> None:
        super().__init__()
        self.fixed = fixed
        self.model = model
        self.spelled = spelled
        self.watch = watch
        self.precision = precision
        self.decisions: dict[tuple[object, str, int], Decision] = {}
        self.shape_env = FreeSizes(self._decided) if free_sizes else None
        self.fake_mode = FakeTensorMode(shape_env=self.shape_env, allow_non_fake_inputs=True)
        self.recall = Recall(self.fake_mode)
        self.symbols: dict[str, tuple[str, int]] = {}
        self.arguments_of: dict[tuple[str, int], dict[str, object]] = {}
        self.results: dict[tuple[str, int], object] = {}
        self.diagnostics: list[Diagnostic] = []
        self._paths = {id(m): path for path, m in reversed(list(model.named_modules()))}
        self._counts: dict[str, int] = {}
        self._without_gradients: set[tuple[str, int]] = set()
        self._end: fx.Node = self.graph._root
        self._signatures: dict[type[nn.Module], inspect.Signature] = {}
        self._names: dict[int, str] = {}  # fake parameter or buffer -> its qualified name

    def record(self, inputs: Inputs) -> Recording:
        args, kwargs = self._placeholders(inputs)
        with ExitStack() as stack:
            stack.enter_context(self._fake_state())
            stack.enter_context(self._module_calls())
            if self.precision is Precision.AUTOCAST:
                stack.enter_context(torch.autocast("cpu", torch.bfloat16, cache_enabled=False))
            stack.enter_context(refusing_flattened_regions(self.origin, self.diagnostics.append))
            stack.enter_context(torch.enable_grad())
            stack.enter_context(torch.compiler.set_stance("force_eager"))
            stack.enter_context(_quiet())
            stack.enter_context(_without_mha_fastpath())
            stack.enter_context(_masks_unread())
            stack.enter_context(self.fake_mode)
            if self.shape_env is not None:
                stack.enter_context(enable_python_dispatcher())
                stack.enter_context(extremes_stay_free())
            if self.watch is not None:
                stack.enter_context(self.watch)
            stack.enter_context(self)
            output = self._run(args, kwargs)
        names = output_class(output)
        returned: Any = self._known(as_container(output))
        self.graph.output(returned)
        return self._finish(names)

    def _run(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> object:
        try:
            output: object = self.model(*args, **kwargs)
        except MufxError:
            raise
        except _DATA_DEPENDENT as problem:
            raise MufxError(self._data_dependent(self._failed_at(problem))) from None
        except Exception as problem:
            self._refuse_involved(self._failed_at(problem))
            raise MufxError(
                error(
                    "MUF105",
                    f"forward failed: {type(problem).__name__}: {problem}",
                    hint="check that the inputs fit the model at this size; one that is as wide "
                    "as the model names a knob among its sizes",
                    place=self._failed_at(problem),
                )
            ) from problem
        self._refuse_involved(None)  # the model may have caught the error
        return output

    def _refuse_involved(self, place: Place | None) -> None:
        if self.shape_env is not None and self.shape_env.involved:
            found = {self.symbols[symbol] for symbol in self.shape_env.involved}
            place = place or factory.place_of(type(self.model))
            raise _TooInvolvedError(dict.fromkeys(found, place))

    def _finish(self, names: str | None) -> Recording:
        simplify = self._simplifier()
        unused: set[fx.Node] = set()
        for node in list(reversed(self.graph.nodes)):
            if node.op == "call_function" and node.target is operator.getitem and not node.users:
                self.graph.erase_node(node)
                del self.values[node.name]
                unused.add(node)
                continue
            node.args = simplify(node.args)
            node.kwargs = simplify(node.kwargs)
        values = {
            name: value and type(value)(simplify(value.shape), value.dtype)
            for name, value in self.values.items()
        }
        return Recording(
            self.graph,
            values,
            self.origins,
            {k: simplify(without(v, unused)) for k, v in self.arguments_of.items()},
            {k: simplify(without(v, unused)) for k, v in self.results.items()},
            self.symbols,
            self.lengths,
            names,
            tuple(self.diagnostics),
            tuple(self.decisions.values()),
        )

    # -- Recorder ---------------------------------------------------------------------------

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        if func in self.spelled:
            with self:
                return self.spelled[func](*args, **(kwargs or {}))
        return super().__torch_function__(func, types, args, kwargs)

    def perform(
        self, func: Callable[..., object], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> object:
        asked = device_question(func)
        if asked is not None:
            self._tell(_of_the_cpu(asked, self.origin().place))
        replaced = 0 if self.shape_env is None else len(self.shape_env.replacements)
        try:
            called = STAND_INS.get(func, func)
            if self.watch is None:
                result = self.recall.perform(called, args, kwargs)
            else:  # what is recalled would not be seen
                result = called(*args, **kwargs)
        except _DATA_DEPENDENT:
            raise MufxError(self._data_dependent(self.origin().place)) from None
        if self.shape_env is not None and (isinstance(result, tuple | list) or not tensors(args)):
            for condition in self.shape_env.fixed_since(replaced):
                self._decided(Decision(condition, self.origin().place))
        if not torch.is_grad_enabled() and func is not torch.Tensor.detach:
            inputs = tensors((args, kwargs))
            again = partial(called, *args, **kwargs)
            refuse_lost_gradient(again, inputs, tensors(result), self._region())
        return result

    def _region(self) -> Origin:
        """Where the model is, in the call that has switched gradients off."""
        origin = self.origin()
        call = origin.call
        while call is not None and call.key in self._without_gradients:
            call = call.parent
        return replace(origin, call=call)

    def _tell(self, diagnostic: Diagnostic) -> None:
        if diagnostic not in self.diagnostics:
            self.diagnostics.append(diagnostic)

    def adopt(self, tensor: torch.Tensor) -> fx.Node:
        name = self._names.get(id(tensor))
        if name is None:
            origin = self.origin()
            raise MufxError(
                error(
                    "MUF103",
                    f"a tensor of shape {tuple(tensor.shape)} is neither a parameter nor a "
                    "buffer nor made from the inputs",
                    hint="register it with register_buffer(name, tensor, persistent=False)",
                    place=origin.place,
                )
            )
        with self.graph.inserting_before(self._first_operation()):
            node = self.graph.create_node("get_attr", name)
        self.origins[node.name] = self.origin()
        self.know(tensor, node)
        return node

    def know(self, tensor: torch.Tensor, node: fx.Node) -> None:
        super().know(tensor, node)
        if self.watch is not None:
            self.watch.know(node, tensor)

    def size(self, number: torch.SymInt | torch.SymFloat | torch.SymBool) -> Size:
        return Size(number.node.expr, number.node.hint)

    # -- inputs, parameters and buffers -----------------------------------------------------

    def _placeholders(self, inputs: Inputs) -> tuple[tuple[object, ...], dict[str, object]]:
        args, kwargs = inputs
        signature = inspect.signature(self.model.forward)
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as problem:
            raise MufxError(
                error(
                    "MUF105",
                    f"the inputs do not fit forward{signature}: {problem}",
                    hint="give the inputs by the names of forward's parameters",
                )
            ) from None
        for name, value in bound.arguments.items():
            bound.arguments[name] = self._placeholder(name, value)
        return bound.args, dict(bound.kwargs)

    def _placeholder(self, name: str, value: object) -> object:
        if isinstance(value, torch.Tensor):
            fake = self._fake_input(name, value)
            node = self.graph.placeholder(name)
            self.know(fake, node)
            self.origins[node.name] = self.origin()
            return fake
        if isinstance(value, (tuple, list)):
            return type(value)(self._placeholder(f"{name}_{i}", v) for i, v in enumerate(value))
        if isinstance(value, dict):
            return {k: self._placeholder(f"{name}_{k}", v) for k, v in value.items()}
        return value

    def _fake_input(self, name: str, value: torch.Tensor) -> torch.Tensor:
        dtype = self._type_of(value)
        if self.shape_env is None:
            with self.fake_mode:
                return torch.empty(value.shape, dtype=dtype, device="cpu")
        plain = torch.empty(value.shape, dtype=dtype, device="cpu")
        dynamic = [DimDynamic.DYNAMIC if d > 1 else DimDynamic.STATIC for d in value.shape]
        fake = self.fake_mode.from_tensor(
            plain,
            symbolic_context=StatelessSymbolicContext(dynamic_sizes=dynamic),
            source=ConstantSource(name),
        )
        sizes: list[Any] = list(fake.shape)  # annotated as int, but free ones are symbolic
        for dim, number in enumerate(sizes):
            if isinstance(number, torch.SymInt):
                self.symbols[str(number.node.expr)] = (name, dim)
                if (name, dim) in self.fixed:
                    self._fix(number, self.fixed[name, dim])
        return fake

    def _fix(self, size: torch.SymInt, place: Place) -> None:
        """As if the model had decided by the size at that place."""
        assert self.shape_env is not None
        condition = self.shape_env.fix(size)
        self.decisions[condition, place.file, place.line] = Decision(condition, place)

    @contextmanager
    def _fake_state(self) -> Generator[None]:
        """Swaps every parameter, buffer and tensor attribute of the model for a fake.

        Afterwards the model is as it was, without what it has put by for its next call.
        """
        fakes: dict[int, torch.Tensor] = {}
        kept = [Kept(module) for module in self.model.modules()]
        for path, module in self.model.named_modules():
            stores: list[dict[str, Any]] = [module._parameters, module._buffers, module.__dict__]
            for store in stores:
                for key, tensor in list(store.items()):
                    if not isinstance(tensor, torch.Tensor):
                        continue
                    if id(tensor) not in fakes:
                        plain = store is module.__dict__  # `model.bfloat16()` leaves it alone
                        dtype = tensor.dtype if plain else self._type_of(tensor)
                        fakes[id(tensor)] = fake = self._fake_like(tensor, dtype)
                        self._names[id(fake)] = f"{path}.{key}" if path else key
                        self._alive.append(fake)
                    store[key] = fakes[id(tensor)]
        try:
            yield
        finally:
            for state in kept:
                state.restore()

    def _fake_like(self, tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        empty = torch.empty_strided(tensor.size(), tensor.stride(), dtype=dtype, device="meta")
        fake = FakeTensor(
            self.fake_mode,
            empty,
            torch.device("cpu"),
            requires_grad=tensor.requires_grad,
            _is_param=isinstance(tensor, nn.Parameter),
        )
        for name, value in vars(tensor).items():  # what the model has hung on it: base shapes, say
            vars(fake).setdefault(name, value)
        return fake

    def _type_of(self, tensor: torch.Tensor) -> torch.dtype:
        wanted = _TYPES.get(self.precision) if tensor.is_floating_point() else None
        return tensor.dtype if wanted is None else wanted

    def _first_operation(self) -> fx.Node:
        nodes: Iterable[fx.Node] = self.graph.nodes
        return next((n for n in nodes if n.op not in ("placeholder", "get_attr")), self._end)

    # -- module calls -----------------------------------------------------------------------

    @contextmanager
    def _module_calls(self) -> Generator[None]:
        """Keeps the stack of module calls while the model runs."""
        original: Callable[..., object] = nn.Module.__call__

        def call(module: nn.Module, *args: object, **kwargs: object) -> object:
            path = self._paths.get(id(module))
            if path is None:
                return original(module, *args, **kwargs)
            self._enter(module, path, args, kwargs)
            result = original(module, *args, **kwargs)
            self._leave(result)
            return result

        with replaced([(nn.Module, "__call__", call)]):
            yield

    def _enter(
        self, module: nn.Module, path: str, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> None:
        if isinstance(module, torch.jit.ScriptModule):
            raise MufxError(
                error(
                    "MUF102",
                    f"the code of the TorchScript module {path or 'itself'} would be lost",
                    hint="give mufx the Python module that it was scripted from",
                    place=self.origin().place,
                )
            )
        index = self._counts.get(path, 0)
        self._counts[path] = index + 1
        parent = self.calls[-1] if self.calls else None
        call = Call(path, index, parent, type(module), self.statement())
        self.calls.append(call)
        if not torch.is_grad_enabled():
            self._without_gradients.add(call.key)
        self.arguments_of[call.key] = self._bound(type(module), args, kwargs)

    def _leave(self, output: object) -> None:
        call = self.calls.pop()
        with torch._C.DisableTorchFunctionSubclass():
            self.results[call.key] = self._known(as_container(output))

    def _bound(
        self, cls: type[nn.Module], args: tuple[object, ...], kwargs: dict[str, object]
    ) -> dict[str, object]:
        if cls not in self._signatures:
            self._signatures[cls] = inspect.signature(cls.forward)
        try:
            bound = self._signatures[cls].bind(None, *args, **kwargs).arguments
        except TypeError:
            return {}
        return {name: self._known(value) for name, value in list(bound.items())[1:]}

    def _known(self, value: object) -> object:
        """`value` with nodes for tensors; what is neither a container nor a constant is `None`."""
        if isinstance(value, torch.Tensor):
            own = id(value) in self._names  # handed on before any operation has used it
            return self.node_of(value) if own else self._nodes.get(id(value))
        if isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)):
            return self.size(value)
        if isinstance(value, (tuple, list)):
            return tuple(self._known(v) for v in value)
        if isinstance(value, dict):
            return {k: self._known(v) for k, v in value.items()}
        return value if isinstance(value, (int, float, bool, str)) else None

    # -- sizes ------------------------------------------------------------------------------

    def _simplifier(self) -> Callable[[Any], Any]:
        env = self.shape_env
        cache: dict[object, object] = {}

        def simplify(value: Any) -> Any:
            if isinstance(value, Size):
                if value.expr not in cache:
                    assert env is not None
                    expr = env.simplify(env.replace(value.expr))
                    constant = expr.is_number or isinstance(
                        expr, (sympy.logic.boolalg.BooleanTrue, sympy.logic.boolalg.BooleanFalse)
                    )
                    free: Any = expr
                    cache[value.expr] = value.hint if constant else Size(free, value.hint)
                return cache[value.expr]
            if isinstance(value, slice):
                return slice(simplify(value.start), simplify(value.stop), simplify(value.step))
            if isinstance(value, (tuple, list)):
                items = [simplify(v) for v in value]
                return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
            if isinstance(value, dict):
                return {k: simplify(v) for k, v in value.items()}
            return value

        if env is not None:
            self._note_fixed_sizes(env)
        return simplify

    def _decided(self, decision: Decision) -> None:
        """Keeps a decision once, where many blocks run the same line."""
        call, place = self.calls[-1] if self.calls else None, decision.place
        if call is not None:
            place = replace(place, module=call.path, cls=call.cls.__name__)
        key = decision.condition, place.file, place.line
        self.decisions.setdefault(key, replace(decision, place=place))

    def _note_fixed_sizes(self, env: ShapeEnv) -> None:
        told = {str(s) for d in self.decisions.values() for s in d.condition.free_symbols}
        for symbol, (name, dim) in self.symbols.items():
            fixed = env.replace(sympy.Symbol(symbol, positive=True, integer=True))
            if fixed.is_number and dim == 0 and symbol not in told:
                self.diagnostics.append(
                    note(
                        "MUF108",
                        f"the model fixes size {fixed} of dimension {dim} of input {name}",
                        hint="other sizes will not fit the emitted model",
                    )
                )
        shown = {symbol: f"{name}.shape[{dim}]" for symbol, (name, dim) in self.symbols.items()}
        open_ones = [
            d
            for d in self.decisions.values()
            if not (d.took_one and env.replace(d.condition) == sympy.true)
        ]
        self.diagnostics.extend(remarks(open_ones, shown))

    # -- diagnostics ------------------------------------------------------------------------

    def _failed_at(self, problem: Exception) -> Place | None:
        """Where an exception came from that has left the model; its calls are still open."""
        place, call = place_of(problem), self.calls[-1] if self.calls else None
        if place is None or call is None:
            return place
        return Place(place.file, place.line, call.path, call.cls.__name__)

    def _data_dependent(self, place: Place | None) -> Diagnostic:
        return error(
            "MUF101",
            "the forward pass takes a decision from the values of a tensor, "
            "so one recording does not hold for other values",
            hint=_instead_of_decision(place),
            place=place,
        )


def _instead_of_decision(place: Place | None) -> str:
    if place is not None and guards_an_error(place.file, place.line):
        return "leave this check out of the forward pass: make it where the inputs are made"
    return "compute both sides with torch.where, or decide from a shape or a Python value"


def _of_the_cpu(asked: str, place: Place) -> Diagnostic:
    return note(
        "MUF113",
        f"the model asks for {asked}; what it does on a CPU is what becomes part of the converted "
        "model",
        hint="let all its branches compute the same; put one for another device back into the "
        "emitted file",
        place=place,
    )


def as_container(output: object) -> object:
    """A record with named fields (a dataclass, a named tuple, an ordered mapping) as a `dict`."""
    if is_dataclass(output) and not isinstance(output, type):
        named = {f.name: getattr(output, f.name) for f in fields(output)}
    elif isinstance(output, Mapping):
        named = dict(output)
    elif isinstance(output, tuple) and hasattr(output, "_asdict"):
        as_dict: Callable[[], dict[str, object]] = getattr(output, "_asdict")  # noqa: B009
        named = as_dict()
    else:
        return output
    return {name: as_container(value) for name, value in named.items() if value is not None}


def output_class(output: object) -> str | None:
    """The class name of a record with named fields, `None` for anything else."""
    record = is_dataclass(output) or (isinstance(output, tuple) and hasattr(output, "_fields"))
    return type(output).__name__ if record else None


def without(value: object, gone: Container[fx.Node]) -> object:
    """`value` with `None` for the nodes that are gone."""
    if isinstance(value, fx.Node):
        return None if value in gone else value
    if isinstance(value, tuple):
        return tuple(without(v, gone) for v in value)
    if isinstance(value, dict):
        return {k: without(v, gone) for k, v in value.items()}
    return value


@contextmanager
def _quiet() -> Generator[None]:
    """What fake tensors log of a failure is said better by the diagnostic."""
    log = logging.getLogger("torch._subclasses.fake_tensor")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)


@contextmanager
def _without_mha_fastpath() -> Generator[None]:
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


def _masks_unread() -> AbstractContextManager[None]:
    """Torch's transformers look into a mask for whether it is causal, which only makes it faster.

    A mask that is not said to be causal is applied as any other.
    """

    def is_said(mask: object, is_causal: bool | None = None, size: object = None) -> bool:
        del mask, size
        return is_causal is True

    return replaced([(transformer, "_detect_is_causal_mask", is_said)])
