"""The constructor's program as statements on the live tensors of the emitted module.

Numbers stand in the statements as holes, tensors as `⟪their.name⟫`, local variables as `⟨id:hint⟩`.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx
from torch.nn import init
from torch.utils._device import _device_constructors

from mufx.construction import Construction, is_in_place, is_random
from mufx.diagnostics import MufxError, Place
from mufx.emit.expressions import INPLACE, expression, in_place, literal
from mufx.emit.init_facts import BY_SHAPE, WHOLE_WRITES, InitFacts, written
from mufx.emit.init_resets import default_resets
from mufx.emit.sources import statement_at
from mufx.emit.tables import table, table_names
from mufx.emit.text import hole
from mufx.recording import Size
from mufx.rules.table import argument, operation
from mufx.size_text import ATOM

_EMPTY = frozenset({"empty", "empty_like", "new_empty"})
_KEYWORDS_OF_NOTHING = re.compile(
    r"(, |(?<=\())(?:device|dtype|layout|pin_memory|generator|requires_grad|out)=None"
)
_PRESERVED = re.compile(r",? ?memory_format=torch\.preserve_format")
_REFERENCE = re.compile(r"⟪([^⟫]*)⟫")
_TIDY = re.compile(r"\(, ")


@dataclass(frozen=True, slots=True)
class InitStatements:
    """What the constructor does to the tensors that it leaves behind.

    `ordered` keeps the random stream; `free` are the deterministic ones, which can stand anywhere
    after it, in the order of the module tree.
    """

    ordered: tuple[str, ...]
    free: tuple[str, ...]
    overwritten: bool
    """Whether some draws are overwritten by later ones."""
    reset: bool
    """Whether all modules are reset to their defaults before (`init_resets.RESET`)."""


def reference(name: str) -> str:
    """The place of a tensor in a statement."""
    return f"⟪{name}⟫"


def references(text: str) -> list[str]:
    """The names of the tensors that a statement mentions."""
    return _REFERENCE.findall(text)


def tree_order(construction: Construction) -> dict[str, int]:
    """The names of all tensors in the order of the module tree."""
    names: list[str] = []
    for path, module in construction.model.named_modules(remove_duplicate=False):
        prefix = f"{path}." if path else ""
        names += [prefix + n for n, _ in module.named_parameters(recurse=False)]
        names += [prefix + n for n, _ in module.named_buffers(recurse=False)]
    return {name: i for i, name in enumerate(dict.fromkeys(names))}


def init_statements(construction: Construction, leaves: Collection[str] = ()) -> InitStatements:
    """The program, without what nobody can see and what `RESET` does."""
    return _Writer(construction, leaves).write()


@dataclass
class _Pending:
    """A temporary tensor that is still an expression."""

    text: str
    rank: int
    random: bool = False
    depends: frozenset[int] = frozenset()
    """The memory that it reads, of live tensors and of local variables."""
    constant: float | None = None


class _Writer:
    def __init__(self, construction: Construction, leaves: Collection[str]) -> None:
        self.construction = construction
        self.facts = InitFacts(construction)
        self.tables = table_names(self.facts)
        self.resets = default_resets(construction, self.facts, leaves)
        self.pending: dict[int, _Pending] = {}
        self.locals: dict[int, str] = {}
        self.shared: dict[fx.Node, str] = {}
        self.constants: dict[int, float] = {}
        self.used: set[int] = set()
        self.done: set[int] = set()
        self.lines: list[str] = []
        self.free: dict[str, str] = {}
        self.drawn: set[int] = set()
        self.overwritten = False
        self.current: fx.Node | None = None

    def write(self) -> InitStatements:
        for node in self.facts.kept:
            if node in self.resets:
                continue
            try:
                self._write(node)
            except MufxError as problem:
                place = self.place(node)
                located = (replace(d, place=d.place or place) for d in problem.diagnostics)
                raise MufxError(*located) from None
        order = tree_order(self.construction)
        free = sorted(self.free, key=lambda name: order[name])
        return InitStatements(
            tuple(self.lines),
            tuple(self.free[name] for name in free),
            self.overwritten,
            bool(self.resets),
        )

    def _write(self, node: fx.Node) -> None:
        self.current = node
        storage = self.facts.storage(node)
        if storage is None:
            self._share(node)
            return
        if node is self.facts.creators[storage]:
            self._create(node, storage)
        else:
            self._change(node, storage)
        if node is self.facts.last[storage] and storage not in self.done:
            self._finish(node, storage)

    def _share(self, node: fx.Node) -> None:
        """Results of several tensors that are used more than once become a local variable."""
        if len(node.users) < 2:
            return
        _, drawn = self._depends(node)
        text = self._expression(node)[0]
        self._flush(-1, is_random(node) or drawn)
        local = f"⟨{len(self.locals) + len(self.shared)}:{self._hint(node)}⟩"
        self.shared[node] = local
        self.lines.append(f"{local} = {text}")

    # -- nodes ------------------------------------------------------------------------------

    def _create(self, node: fx.Node, storage: int) -> None:
        home = self.facts.homes.get(storage)
        constant = self._constant(node)
        if home is None:
            self._hold(node, storage, constant)
            return
        if operation(node) in _EMPTY:
            return
        if is_random(node):
            self.drawn.add(storage)
        if constant is not None:
            self._emit(_filled(reference(home), constant), node, storage, whole=True)
        else:
            source = node.args[0] if operation(node) == "clone" else None
            text, _ = self.value(source) if isinstance(source, fx.Node) else self._expression(node)
            text = f"{reference(home)}.copy_({text})"
            self._emit(text, node, storage, whole=True)

    def _hold(self, node: fx.Node, storage: int, constant: float | None) -> None:
        self.pending[storage] = self._held(node, storage, constant)

    def _held(self, node: fx.Node, storage: int, constant: float | None = None) -> _Pending:
        """A node of a temporary as an expression, after what has to come before it."""
        depends, drawn = self._depends(node)
        text, rank = self._expression(node)
        random = is_random(node) or drawn
        self._flush(storage, is_random(node))
        return _Pending(text, rank, random, depends, constant)

    def _change(self, node: fx.Node, storage: int) -> None:
        target = written(node)
        assert target is not None
        if self._writes_itself(node):
            return
        whole = operation(node) in WHOLE_WRITES and self.facts.covers(node)
        self._count(node, storage, whole)
        constant = self._constant(node) if whole else None
        held = self.pending.get(storage)
        if held is not None and whole and self._replaces(node, target, storage):
            return
        if held is not None and self._chain(node, target, storage, held, constant):
            return
        if held is not None:
            self._name(storage)
        place = self.value(target)[0]
        self._emit(self._statement(node, place, constant), node, storage, whole)

    def _count(self, node: fx.Node, storage: int, whole: bool) -> None:
        if not whole:
            return
        if storage in self.drawn:
            self.overwritten = True
        if is_random(node):
            self.drawn.add(storage)
        else:
            self.drawn.discard(storage)

    def _writes_itself(self, node: fx.Node) -> bool:
        """`x[i] = x[i]` is what Python makes of `x[i] += 1` after the addition."""
        if operation(node) != "setitem" or not isinstance(node.args[2], fx.Node):
            return False
        source = node.args[2]
        spans = self.construction.spans
        same = self.facts.storage(source) == self.facts.storage(node)
        return same and is_in_place(source) and spans[source.name] == spans[node.name]

    def _replaces(self, node: fx.Node, target: fx.Node, storage: int) -> bool:
        """The last write to a temporary is all that a tensor is made of."""
        names = self.facts.names.get(storage, {})
        if operation(node) != "copy" or node is not self.facts.last[storage] or len(names) != 1:
            return False
        ((final, name),) = names.items()
        if self.facts.layout(self.construction.nodes[final]) != self.facts.layout(target):
            return False
        if self.pending[storage].random:
            return False
        del self.pending[storage]
        text = f"{reference(name)}.copy_({literal(node.args[1], self)})"
        self._emit(text, node, storage, whole=True, name=name)
        self.done.add(storage)
        return True

    def _chain(
        self,
        node: fx.Node,
        target: fx.Node,
        storage: int,
        held: _Pending,
        constant: float | None,
    ) -> bool:
        """Writes an in-place operation on a temporary behind the expression that it is."""
        if constant is not None:
            if held.random:
                self._flush(storage, random=True)
                self.lines.append(held.text)
            made = self.facts.creators[storage]  # the views of it come behind
            self.pending[storage] = _Pending(self._full(made, constant), ATOM, constant=constant)
            return True
        if node.op != "call_method" or not self.facts.is_whole(target):
            return False
        if held.random and operation(node) in WHOLE_WRITES:
            self._flush(storage, random=True)
            self.lines.append(held.text)
            self.overwritten = True
            held = _Pending(self._blank(node), ATOM)
            self.pending[storage] = held
        after = self._held(node, storage)
        depends = after.depends | held.depends
        self.pending[storage] = replace(
            after, random=after.random or held.random, depends=depends - {storage}
        )
        return True

    def _blank(self, node: fx.Node) -> str:
        value = self.construction.values[node.name]
        assert value is not None
        return f"torch.empty({literal(value.sizes, self)}{self._made_at(node)})"

    def _full(self, node: fx.Node, constant: float) -> str:
        value = self.construction.values[node.name]
        assert value is not None
        shape = literal(value.sizes, self)
        return f"torch.full({shape}, {hole(constant)}{self._made_at(node)})"

    def _finish(self, node: fx.Node, storage: int) -> None:
        """After the last change: temporaries become what they are needed for."""
        nodes, home = self.construction.nodes, self.facts.homes.get(storage)
        reads = self.facts.reads.get(storage, 0)
        held = self.pending.get(storage)
        if held is not None and reads == 0:
            self._flush(storage, held.random)
            self.overwritten = self.overwritten or held.random
            if held.random:
                self.lines.append(held.text)
            del self.pending[storage]
            return
        if held is not None and reads > 1 and held.constant is None:
            self._flush(storage, held.random)
            self._name(storage)
        for final, name in self.facts.names.get(storage, {}).items():
            if name != home and not (home and self.facts.is_whole(nodes[final])):
                text = f"{reference(name)}.copy_({self.value(nodes[final])[0]})"
                self.used.add(storage)
                self._emit(text, node, storage, whole=True, name=name)

    # -- statements -------------------------------------------------------------------------

    def _emit(
        self, text: str, node: fx.Node, storage: int, whole: bool, name: str | None = None
    ) -> None:
        home = name or self.facts.homes.get(storage)
        last = node is self.facts.last[storage]
        unread = name is not None or not self.facts.reads.get(storage)
        if home and whole and last and unread and self._stands_alone(text, home):
            self.free[home] = text
            self._drop_used()
            return
        self._flush(storage, "generator=generator" in text)
        self.lines.append(text)

    def _stands_alone(self, text: str, home: str) -> bool:
        if "generator=generator" in text or "⟨" in text:
            return False
        return set(references(text)) <= {home}

    def _flush(self, written: int, random: bool) -> None:
        """Names the temporaries that have to be computed before what comes now."""
        self._drop_used()
        for storage, held in list(self.pending.items()):
            if storage != written and ((held.random and random) or written in held.depends):
                self._name(storage)

    def _drop_used(self) -> None:
        for storage in self.used:
            held = self.pending.get(storage)
            once = self.facts.reads.get(storage, 0) <= 1
            if held is not None and (held.random or (once and held.constant is None)):
                del self.pending[storage]
        self.used.clear()

    def _name(self, storage: int) -> None:
        """Makes a temporary a local variable."""
        held = self.pending.pop(storage)
        made = self.facts.creators[storage]
        local = f"⟨{len(self.locals) + len(self.shared)}:{self._hint(made)}⟩"
        self.locals[storage] = local
        self.lines.append(f"{local} = {held.text}")

    def _hint(self, node: fx.Node) -> str:
        statement = self.construction.origins[node.name].statement
        targets = statement_at(statement.file, statement.line).targets
        taken = {"self", "generator", "device", "torch", "nn", "F"}
        hint = targets[0] if len(targets) == 1 else "value"
        return hint if hint.isidentifier() and hint not in taken else "value"

    def _statement(self, node: fx.Node, place: str, constant: float | None) -> str:
        if constant is not None:
            return _filled(place, constant)
        name = operation(node)
        if name in ("uniform", "normal"):
            return self._kaiming(node, place) or _draw(node, name, place)
        if name == "eye" and self._is_eye(node):
            return f"nn.init.eye_({place})"
        public = getattr(init, _python_name(node), None)
        if is_in_place(node) and node.op == "call_function" and node.target is public:
            return _init_call(node, public, place, self)
        if name == "setitem":
            index = expression_index(node.args[1], self)
            return f"{place}[{index}] = {literal(node.args[2], self)}"
        if node.target in INPLACE:
            return in_place(node, place, literal(node.args[1], self))
        return self._expression(node)[0]

    def _is_eye(self, node: fx.Node) -> bool:
        """Whether `torch.eye(n, m, out=t)` has the shape of `t`, as in `nn.init.eye_`."""
        value = self.construction.values[node.name]
        return value is not None and tuple(node.args) == value.sizes

    def _kaiming(self, node: fx.Node, place: str) -> str | None:
        """The default draw of torch's linear and convolution weights, said as torch says it."""
        target = written(node)
        assert target is not None
        value = self.construction.values[target.name]
        if value is None or len(value.sizes) < 2 or operation(node) != "uniform":
            return None
        if not references(place) or not self.facts.is_whole(target):
            return None
        fan_in = math.prod(value.sizes[1:])
        bound = math.sqrt(3.0) * (init.calculate_gain("leaky_relu", 5**0.5) / math.sqrt(fan_in))
        if not fan_in or node.args[1:3] != (-bound, bound):
            return None
        return f"nn.init.kaiming_uniform_({place}, a=5**0.5, generator=generator)"

    # -- expressions ------------------------------------------------------------------------

    def value(self, node: fx.Node) -> tuple[str, int]:
        """Text and precedence of a tensor."""
        storage = self.facts.storage(node)
        if node in self.shared:
            return self.shared[node], ATOM
        if storage is None:
            return expression(node, self)
        if self.facts.is_whole(node):
            return self._memory(storage)
        if is_in_place(node):
            target = written(node)
            assert target is not None
            return self.value(target)
        return expression(node, self)

    def _memory(self, storage: int) -> tuple[str, int]:
        if storage in self.locals:
            return self.locals[storage], ATOM
        home = self.facts.homes.get(storage)
        if home is not None:
            return reference(home), ATOM
        held = self.pending[storage]
        self.used.add(storage)
        return held.text, held.rank

    def size(self, size: Size) -> tuple[str, int]:
        """A constructor has no free sizes."""
        raise AssertionError(size)

    def device(self) -> str:
        """The device of the tensor that the value flows into."""
        node = self.current
        assert node is not None
        return self._device(node)

    def place(self, node: fx.Node) -> Place:
        """Where a node stands in the source."""
        return self.construction.origins[node.name].place

    def _device(self, node: fx.Node) -> str:
        owner = self.facts.owners.get(node.name)
        return f"{reference(owner)}.device" if owner is not None else "device"

    def _made_at(self, node: fx.Node) -> str:
        value = self.construction.values[node.name]
        assert value is not None
        dtype = "" if value.dtype == torch.get_default_dtype() else f", dtype={value.dtype}"
        return f"{dtype}, device={self._device(node)}"

    def _expression(self, node: fx.Node) -> tuple[str, int]:
        self.current = node
        if node.op == "get_attr":
            return self._written_out(node), ATOM
        made = "empty" if node in self.facts.blank else BY_SHAPE.get(operation(node))
        if made is not None:
            value = self.construction.values[node.name]
            assert value is not None
            shape = literal(value.sizes, self)
            generator = ", generator=generator" if is_random(node) else ""
            return f"torch.{made}({shape}{self._made_at(node)}{generator})", ATOM
        text, rank = expression(node, self)
        text = _PRESERVED.sub("", _KEYWORDS_OF_NOTHING.sub("", text))
        if node.target in _device_constructors() and "device=" not in text:
            text = f"{text[:-1]}, device={self._device(node)})"
        if is_random(node):
            text = f"{text[:-1]}, generator=generator)"
            if node.target == "normal_" and node.args[1:] == (0.0, 1.0):
                text = text.replace(f"normal_({hole(0.0)}, {hole(1.0)}, ", "normal_(")
        return _TIDY.sub("(", text), rank

    def _written_out(self, node: fx.Node) -> str:
        """A tensor from outside of torch: from a file, or number by number."""
        if node.name in self.tables:
            return table(self.tables[node.name])
        constant = self.construction.constants[str(node.target)]
        numbers = literal(constant.tolist(), self)
        return f"torch.tensor({numbers}, dtype={constant.dtype}, device={self._device(node)})"

    def _depends(self, node: fx.Node) -> tuple[frozenset[int], bool]:
        """The memory that an expression reads, and whether a draw stands in it."""
        memory: set[int] = set()
        random = False
        for source in self._sources(node):
            storage = self.facts.storage(source)
            assert storage is not None
            held = self.pending.get(storage)
            if held is None:
                memory.add(storage)
                continue
            memory |= held.depends
            random = random or held.random
        return frozenset(memory), random

    def _sources(self, node: fx.Node) -> Iterator[fx.Node]:
        for source in self.facts.inputs(node):
            if self.facts.storage(source) is None:
                yield from self._sources(source)
            else:
                yield source

    def _constant(self, node: fx.Node) -> float | None:
        """The number that a whole tensor is after `node`."""
        name = operation(node)
        if name in ("zeros", "zeros_like", "new_zeros", "zero"):
            return 0.0
        if name in ("ones", "ones_like", "new_ones"):
            return 1.0
        value: Any = None
        if name in ("fill", "full", "full_like", "new_full"):
            value = argument(node, 1, "value")[1]
            value = node.kwargs.get("fill_value") if value is None else value
        elif name == "tensor":
            value = node.args[0]
        elif name in ("clone", "copy"):
            return self._known(node.args[1 if name == "copy" else 0])
        return value if isinstance(value, (int, float)) else None

    def _known(self, node: Any) -> float | None:
        storage = self.facts.storage(node) if isinstance(node, fx.Node) else None
        held = self.pending.get(storage) if storage is not None else None
        return held.constant if held is not None else None


def expression_index(index: Any, names: _Writer) -> str:
    """The text between the brackets of a subscript."""
    if isinstance(index, tuple):
        return ", ".join(expression_index(i, names) for i in index)
    if isinstance(index, slice):
        parts = ["" if v is None else literal(v, names) for v in (index.start, index.stop)]
        step = "" if index.step is None else f":{literal(index.step, names)}"
        return f"{parts[0]}:{parts[1]}{step}"
    return literal(index, names)


def _filled(place: str, value: float) -> str:
    if value == 0:
        return f"nn.init.zeros_({place})"
    if value == 1:
        return f"nn.init.ones_({place})"
    return f"nn.init.constant_({place}, {hole(value, 'value')})"


def _draw(node: fx.Node, name: str, place: str) -> str:
    first, second = ("from", "to") if name == "uniform" else ("mean", "std")
    low, high = argument(node, 1, first)[1], argument(node, 2, second)[1]
    if name == "uniform":
        low, high = (0.0 if low is None else low), (1.0 if high is None else high)
        text = f"{hole(low, 'bound')}, {hole(high, 'bound')}"
        if high == -low:
            text = f"-{hole(high, 'bound')}, {hole(high, 'bound')}"
        return f"nn.init.uniform_({place}, {text}, generator=generator)"
    mean = "" if not low else f", mean={hole(low, 'mean')}"
    std = "" if high in (None, 1) else f", std={hole(high, 'std')}"
    return f"nn.init.normal_({place}{mean}{std}, generator=generator)"


def _python_name(node: fx.Node) -> str:
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")


def _init_call(node: fx.Node, public: Any, place: str, names: _Writer) -> str:
    """A call of `torch.nn.init`, without what is default."""
    parameters = list(inspect.signature(public).parameters.values())
    given: Mapping[str, Any] = {
        **{p.name: a for p, a in zip(parameters, node.args, strict=False)},
        **node.kwargs,
    }
    texts = [place]
    for parameter in parameters[1:]:
        value = given.get(parameter.name, parameter.default)
        if parameter.name == "generator":
            texts.append("generator=generator")
        elif parameter.default is inspect.Parameter.empty or value != parameter.default:
            texts.append(f"{parameter.name}={literal(value, names, parameter.name)}")
    return f"nn.init.{public.__name__}({', '.join(texts)})"
