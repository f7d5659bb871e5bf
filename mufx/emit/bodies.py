"""The body of one module's forward, from the nodes and calls that its call recorded.

Nodes of one source statement become one statement again, assigned to the name that the source
gives it. Order is kept wherever it can matter.
"""

from __future__ import annotations

import keyword
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import sympy
import torch
from torch import fx

from mufx.construction import is_random
from mufx.decisions import condition_text
from mufx.diagnostics import MufxError, Place, error
from mufx.emit.calls import CallTree, Item, nodes_in
from mufx.emit.expressions import INPLACE, expression, in_place, index_text
from mufx.emit.sources import SourceStatement, statement_at
from mufx.recording import Recording, Size, Statement
from mufx.size_text import ATOM, size_text

CallText = Callable[[CallTree, Callable[[object], str]], str]


@dataclass(frozen=True)
class Body:
    """Arguments and lines of one forward; numbers in the lines are holes."""

    arguments: tuple[str, ...]
    lines: tuple[str, ...]


@dataclass
class _Step:
    """One item on its way to becoming a statement, or a part of one."""

    item: Item
    statement: Statement
    source: SourceStatement
    instance: int
    values: list[fx.Node] = field(default_factory=list)
    """What later items can use of it."""
    unpacked: bool = False
    """Its values are the parts of one result of several."""
    into: int | None = None
    """The step that it is written into; `None` if it is a statement of its own."""
    part: int | None = None
    """Which of the names that its source statement binds is the step's."""


@dataclass(frozen=True)
class BodyContext:
    """What bodies need from the rest of the writer."""

    recording: Recording
    comments: Mapping[str, str]
    parameter: Callable[[fx.Node, str], str | None]
    """The path of a parameter or buffer relative to a module; `None` if it lies outside."""
    call: CallText
    """The text of a call of a child."""
    output: Callable[[Callable[[object], str]], str]
    """The text of what the root returns."""
    inputs: Callable[[CallTree], list[fx.Node]]
    """What a call takes: values, and parameters from outside of its module."""
    result: Callable[[CallTree], object]
    """What a call yields: a node, or a tuple of nodes, tuples and `None`."""


def write_body(tree: CallTree, context: BodyContext, arguments: tuple[str, ...] = ()) -> Body:
    """The forward of one call; `arguments` are the names that an earlier call gave them."""
    return _Writer(tree, context, arguments).write()


class _Writer:
    def __init__(self, tree: CallTree, context: BodyContext, given: tuple[str, ...]) -> None:
        self.tree, self.context, self.given = tree, context, given
        self.recording = context.recording
        self.inputs = context.inputs(tree)
        self.live = self._needed()
        self.names: dict[fx.Node, str] = {}
        self.texts: dict[fx.Node, tuple[str, int]] = {}
        self.size_names: dict[Any, str] = {}
        self.sizes_used: dict[str, None] = {}
        self.names_given: dict[tuple[str, int, int, str], str] = {}
        """By source statement, position and operation in it: the name used last."""

    def write(self) -> Body:
        arguments = self._arguments()
        steps = self._steps()
        self._decide_inlining(steps)
        _find_parts(steps)
        last_use = self._last_uses(steps)
        self._name_sizes(arguments)
        lines: list[str] = []
        for position, step in enumerate(steps):
            self._write_step(step, position, last_use, lines)
        lines.append(f"return {self._result()}")
        checks = self._checks() if self.tree.path == "" else ()
        sizes = self._size_lines(arguments)
        return Body(tuple(arguments), (*checks, *sizes, *_without_echo(lines)))

    def _needed(self) -> set[fx.Node]:
        """All values that reach the result, or something that has an effect."""
        needed = set(nodes_in(self._returned()))
        for item in reversed(self.tree.items):
            if isinstance(item, CallTree) or item in needed or not _is_pure(item):
                needed.update(self._operands(item))
        return needed

    # -- arguments --------------------------------------------------------------------------

    def _arguments(self) -> list[str]:
        if len(self.given) == len(self.inputs):
            self.names.update(zip(self.inputs, self.given, strict=True))
            return list(self.given)
        given = self.recording.arguments.get(self.tree.key, {})
        assert isinstance(given, Mapping)
        preferred: dict[fx.Node, str] = {}
        for name, value in given.items():
            for i, node in enumerate(nodes_in(value)):
                single = isinstance(value, fx.Node)
                preferred.setdefault(node, name if single else f"{name}_{i}")
        names: list[str] = []
        for node in self.inputs:
            hint = preferred.get(node) or self._fallback(node)
            self.names[node] = name = _unused(_identifier(hint), names)
            names.append(name)
        return names

    def _fallback(self, node: fx.Node) -> str:
        if node.op == "placeholder":
            return node.name
        if node.op == "get_attr":
            return str(node.target).rsplit(".", 1)[-1]
        statement = self.recording.origins[node.name].statement
        targets = statement_at(statement.file, statement.line).targets
        return targets[0] if len(targets) == 1 else "x"

    # -- steps ------------------------------------------------------------------------------

    def _steps(self) -> list[_Step]:
        steps: list[_Step] = []
        taken: set[fx.Node] = set()
        for item in self.tree.items:
            if isinstance(item, fx.Node):
                if item in taken or _is_query(item) or (item not in self.live and _is_pure(item)):
                    continue
                step = self._node_step(item, taken)
            else:
                step = self._call_step(item)
            step.instance = self._instance(step, steps)
            steps.append(step)
        return steps

    def _node_step(self, node: fx.Node, taken: set[fx.Node]) -> _Step:
        statement = self.recording.origins[node.name].statement
        source = statement_at(statement.file, statement.line)
        step = _Step(node, statement, source, 0, [node])
        users = [u for u in node.users if u in self.live]
        parts = [u for u in users if u.target is operator.getitem]
        several = (
            self.recording.values.get(node.name) is None and node.target is not operator.setitem
        )
        only_parts = several and bool(parts) and len(parts) == len(users)
        if only_parts and max(len(parts), len(source.targets)) > 1:
            step.values = sorted(parts, key=lambda p: int(str(p.args[1])))
            step.unpacked = True
            taken.update(parts)
        return step

    def _call_step(self, tree: CallTree) -> _Step:
        assert tree.call is not None
        statement = tree.call.statement
        assert statement is not None
        source = statement_at(statement.file, statement.line)
        made = dict.fromkeys(v for v in (*tree.outputs, *tree.returns) if v is not None)
        used = [value for value in made if value in self.live]
        returned = self.context.result(tree)
        taken_apart = isinstance(returned, tuple) and len(returned) == len(source.targets) > 1
        if len(used) > 1 or (used and taken_apart):
            return _Step(tree, statement, source, 0, list(nodes_in(returned)), unpacked=True)
        return _Step(tree, statement, source, 0, used)

    @staticmethod
    def _instance(step: _Step, steps: list[_Step]) -> int:
        """Which execution of its statement the step belongs to, counted over the body."""
        if not steps:
            return 0
        last = steps[-1]
        same = (
            last.statement.file == step.statement.file
            and last.source.start == step.source.start
            and last.statement.function == step.statement.function
            and (step.statement.instruction > last.statement.instruction or _is_part(step, last))
        )
        return last.instance if same else last.instance + 1

    # -- which steps are written into others -----------------------------------------------

    def _decide_inlining(self, steps: list[_Step]) -> None:
        producer = {value: i for i, step in enumerate(steps) for value in step.values}
        users: dict[int, list[int]] = {i: [] for i in range(len(steps))}
        for j, step in enumerate(steps):
            for value in self._operands(step.item):
                if value in producer:
                    users[producer[value]].append(j)
        returned = list(nodes_in(self._returned()))
        for value in returned:
            if value in producer:
                users[producer[value]].append(len(steps))
        for i in reversed(range(len(steps))):
            if self._can_inline(i, users[i], steps):
                steps[i].into = users[i][0]

    def _can_inline(self, i: int, users: list[int], steps: list[_Step]) -> bool:
        step = steps[i]
        if len(users) != 1 or step.unpacked or len(step.values) != 1 or _mutates(step.item):
            return False
        j = users[0]
        if j == len(steps):
            later = steps[i + 1 :]
            together = step.source.is_return and all(s.into is not None for s in later)
            return together and (_is_pure(step.item) or all(_is_pure(s.item) for s in later))
        if steps[j].instance != step.instance:
            return False
        between = steps[i + 1 : j]
        if any(_mutates(s.item) for s in between):
            return False
        if _is_pure(step.item):
            return True
        # Something random, or a module call: it may only move past what moves with it.
        return all(_is_pure(s.item) or s.into is not None for s in between)

    def _operands(self, item: Item) -> list[fx.Node]:
        if isinstance(item, CallTree):
            return self.context.inputs(item)
        found: list[fx.Node] = []

        def visit(value: fx.Node) -> fx.Node:
            if _is_query(value):
                fx.map_arg(value.args, visit)
            else:
                found.append(value)
            return value

        fx.map_arg((item.args, item.kwargs), visit)
        return found

    def _last_uses(self, steps: list[_Step]) -> dict[fx.Node, int]:
        """The position at which each value is needed last, once all is written into its place."""
        place = list(range(len(steps)))
        for i in reversed(range(len(steps))):
            into = steps[i].into
            if into is not None:
                place[i] = place[into] if into < len(steps) else into
        last: dict[fx.Node, int] = {}
        for j, step in enumerate(steps):
            for value in self._operands(step.item):
                last[value] = max(last.get(value, -1), place[j])
        for value in nodes_in(self._returned()):
            last[value] = len(steps)
        return last

    # -- writing ----------------------------------------------------------------------------

    def _write_step(
        self, step: _Step, position: int, last_use: Mapping[fx.Node, int], lines: list[str]
    ) -> None:
        text, precedence = self._text(step)
        if step.into is not None:
            self.texts[step.values[0]] = (text, precedence)
            return
        comment = self._comment(step.item)
        if isinstance(step.item, fx.Node) and step.item.target is operator.setitem:
            into, place, content = step.item.args
            place = index_text(place, self)
            lines.append(f"{self.argument(into)}[{place}] = {self.argument(content)}{comment}")
            return
        if isinstance(step.item, fx.Node) and self._is_assigned(step.item):
            first, second = step.item.args
            assert isinstance(first, fx.Node)
            name = self.value(first)[0]
            lines.append(f"{in_place(step.item, name, self.argument(second))}{comment}")
            self.names[step.item] = name
            return
        live = {self.names[v] for v, end in last_use.items() if end > position and v in self.names}
        if step.unpacked:
            lines.append(f"{self._unpacked(step, live, last_use)} = {text}{comment}")
        elif not any(v in last_use for v in step.values):
            lines.append(f"{text}{comment}")
        else:
            (value,) = step.values
            self.names[value] = name = self._name(step, 0, live)
            lines.append(f"{name} = {text}{comment}")

    def _unpacked(self, step: _Step, live: set[str], last_use: Mapping[fx.Node, int]) -> str:
        taken = set(live)

        def named(value: object, place: int = 0) -> str:
            if isinstance(value, (tuple, list)):
                inner = ", ".join(named(v, i) for i, v in enumerate(value))
                return f"({inner},)" if len(value) == 1 else f"({inner})"
            if not isinstance(value, fx.Node) or value not in last_use:
                return self._dropped(step, place, taken)
            self.names[value] = name = self._name(step, step.values.index(value), taken)
            taken.add(name)
            return name

        if isinstance(step.item, CallTree):
            return _bare(named(self.context.result(step.item)))
        length = self.recording.lengths.get(step.item.name, len(step.values))
        by_index = {int(str(v.args[1])) % length: v for v in step.values}
        return _bare(named(tuple(by_index.get(i) for i in range(length))))

    def _name(self, step: _Step, index: int, taken: set[str]) -> str:
        """A free name: the source's, or the one that the same statement had before."""
        index = self._position(step, index)
        key = self._key(step, index)
        used = {*taken, *self.size_names.values()}
        known = self.names_given.get(key)
        if known is None or known in used:
            hint = _identifier(self._hint(step, index))
            known = _unused("x" if hint == "_" else hint, used)
        self.names_given[key] = known
        return known

    def _dropped(self, step: _Step, place: int, taken: set[str]) -> str:
        """What the same statement called the value before, so that a loop stays one."""
        known = self.names_given.get(self._key(step, place), "_")
        return "_" if known in taken else known

    @staticmethod
    def _key(step: _Step, place: int) -> tuple[str, int, int, str]:
        operation = "" if isinstance(step.item, CallTree) else _function(step.item)
        return step.statement.file, step.source.start, place, operation

    def _hint(self, step: _Step, index: int) -> str:
        targets = step.source.targets
        if step.unpacked and len(targets) == 1:
            return f"{targets[0]}_{index}"
        whole = step.unpacked or len(targets) == 1 or isinstance(step.item, CallTree)
        if index < len(targets) and (whole or step.part is not None):
            return targets[index]
        if isinstance(step.item, CallTree):
            return "x"
        name = _RESULT_NAMES.get(_function(step.item), _function(step.item))
        if name != "x" or not isinstance(step.item.args[0], fx.Node):
            return name
        return self.names.get(step.item.args[0], name)

    def _position(self, step: _Step, index: int) -> int:
        """Where a value stands in what a call returned, for the name that the source gives it."""
        if step.part is not None:
            return step.part
        if not isinstance(step.item, CallTree):
            return index
        result = self.recording.results.get(step.item.key)
        if isinstance(result, tuple) and step.values[index] in result:
            return result.index(step.values[index])
        return index

    def _text(self, step: _Step) -> tuple[str, int]:
        item = step.item
        if isinstance(item, CallTree):
            text = self.context.call(item, self.argument)
            if step.values and not step.unpacked:
                text += _path_to(step.values[0], self.context.result(item)) or ""
            return text, ATOM
        if item.target is operator.setitem or self._is_assigned(item):
            return "", ATOM
        return expression(item, self)

    def _is_assigned(self, node: fx.Node) -> bool:
        """Whether it is `x *= y`, or of entries of x; what has no name would be computed twice."""
        if node.target not in INPLACE:
            return False
        place = node.args[0]
        while isinstance(place, fx.Node) and place not in self.names and _is_entries(place):
            place = place.args[0]
        return isinstance(place, fx.Node) and (place in self.names or place.op == "get_attr")

    def _comment(self, item: Item) -> str:
        found = [self.context.comments.get(n.name) for n in self._own_nodes(item)]
        texts = list(dict.fromkeys(t for t in found if t))
        return f"  # {'; '.join(texts)}" if texts else ""

    def _own_nodes(self, item: Item) -> list[fx.Node]:
        """The node and all that were written into its statement."""
        if isinstance(item, CallTree):
            roots = self._operands(item)
            own: list[fx.Node] = []
        else:
            roots, own = self._operands(item), [item]
        for value in roots:
            if value in self.texts and value not in self.names:
                own.extend(self._own_nodes(value))
        return own

    def _returned(self) -> object:
        if self.tree.call is None or self.tree.path == "":
            return next(n for n in self.recording.graph.nodes if n.op == "output").args[0]
        return tuple(self.tree.returns)

    def _result(self) -> str:
        if self.tree.path == "":
            return self.context.output(self.argument)
        return ", ".join(self.argument(v) for v in self.tree.returns) or "None"

    # -- Names ------------------------------------------------------------------------------

    def argument(self, value: object) -> str:
        """Text of an operand, a node or a literal."""
        from mufx.emit.expressions import names_value

        return names_value(value, self)[0]

    def value(self, node: fx.Node) -> tuple[str, int]:
        """Text and precedence of a value."""
        if node in self.names:
            return self.names[node], ATOM
        if node in self.texts:
            return self.texts[node]
        if node.op == "get_attr":
            path = self.context.parameter(node, self.tree.path)
            assert path is not None, node.target
            return path, ATOM
        if node.target is operator.getitem or _is_query(node):  # one part of a result of several
            return expression(node, self)
        raise AssertionError(f"{node} is used before it is written")

    def size(self, size: Size) -> tuple[str, int]:
        """Text and precedence of a free size, by the sizes that the arguments show."""
        expr: Any = size.expr
        named = expr.xreplace({e: sympy.Symbol(name) for e, name in self.size_names.items()})
        names = {str(s) for s in named.free_symbols}
        if not names <= set(self.size_names.values()):
            raise MufxError(
                error(
                    "MUF403",
                    f"{self.tree.path or 'the model'} uses the size {size.expr}, which no tensor "
                    "that comes into it has",
                    hint="compute the size in the module that has the tensor",
                )
            )
        self.sizes_used.update(dict.fromkeys(names))
        return size_text(named)

    def device(self) -> str:
        """Text of the device that the inputs are on."""
        if self.inputs:
            return f"{self.names[self.inputs[0]]}.device"
        tensors = (n for n in self.recording.graph.nodes if n.op == "get_attr")
        own = (self.context.parameter(node, self.tree.path) for node in tensors)
        return f"{next(name for name in own if name is not None)}.device"

    def place(self, node: fx.Node) -> Place:
        """Where a node stands in the user's source."""
        return self.recording.origins[node.name].place

    # -- sizes ------------------------------------------------------------------------------

    def _name_sizes(self, arguments: list[str]) -> None:
        """A name for every free size that an argument's shape shows, plain symbols first."""
        self.size_sources: dict[str, tuple[str, int]] = {}
        letters = iter(SIZE_NAMES)
        shown = [
            (size.expr, name, dim)
            for node, name in zip(self.inputs, arguments, strict=True)
            if (value := self.recording.values.get(node.name)) is not None
            for dim, size in enumerate(value.shape)
            if isinstance(size, Size)
        ]
        for expr, name, dim in sorted(shown, key=lambda s: not s[0].is_Symbol):
            if expr in self.size_names:
                continue
            chosen = _unused(next(letters), [*arguments, *self.size_names.values()])
            self.size_names[expr] = chosen
            self.size_sources[chosen] = (name, dim)

    def _checks(self) -> Iterator[str]:
        """What the recording holds for, of the sizes of the inputs; 1 is told in a diagnostic."""
        inputs = {node.name: name for node, name in self.names.items() if node.op == "placeholder"}
        shown = {
            symbol: f"{inputs[name]}.shape[{dim}]"
            for symbol, (name, dim) in self.recording.symbols.items()
            if name in inputs
        }
        for decision in self.recording.decisions:
            if decision.to_assert and {str(s) for s in decision.condition.free_symbols} <= {*shown}:
                yield f"assert {condition_text(decision.condition, shown)}"

    def _size_lines(self, arguments: list[str]) -> list[str]:
        used = set(self.sizes_used)
        by_argument: dict[str, list[tuple[int, str]]] = {}
        for size, (name, dim) in self.size_sources.items():
            if size in used:
                by_argument.setdefault(name, []).append((dim, size))
        lines: list[str] = []
        for name, found in by_argument.items():
            dims = [dim for dim, _ in found]
            if len(found) > 1 and dims == list(range(len(dims))):
                lines.append(f"{', '.join(s for _, s in found)} = {name}.shape[:{len(dims)}]")
            else:
                lines.extend(f"{size} = {name}.shape[{dim}]" for dim, size in found)
        return lines


SIZE_NAMES = ("B", "T", "S", "U", "V", "W", *(f"N{i}" for i in range(100)))
_RESULT_NAMES = {
    **dict.fromkeys(("add", "getitem", "getattr", "to", "contiguous", "float", "type_as"), "x"),
    **dict.fromkeys(("view", "reshape", "flatten", "transpose", "permute", "expand"), "x"),
    **dict.fromkeys(("unsqueeze", "squeeze", "chunk", "split", "unbind"), "x"),
    **dict.fromkeys(("iadd", "isub", "imul", "itruediv", "ipow"), "x"),
    **dict.fromkeys(("linear", "matmul", "mul", "truediv", "sub"), "y"),
    "scaled_dot_product_attention": "y",
    "cross_entropy": "loss",
}


def _is_part(step: _Step, of: _Step) -> bool:
    """One of several results, which the recorder took apart as soon as they came."""
    return (
        isinstance(step.item, fx.Node)
        and step.item.target is operator.getitem
        and step.item.args[0] is of.item
    )


def _find_parts(steps: list[_Step]) -> None:
    """`a, b = f(x), g(x)`: as many statements of their own as names."""
    by_instance: dict[int, list[_Step]] = {}
    for step in steps:
        if step.into is None:
            by_instance.setdefault(step.instance, []).append(step)
    for found in by_instance.values():
        if len(found) == len(found[0].source.targets) > 1 and not any(s.unpacked for s in found):
            for part, step in enumerate(found):
                step.part = part


def _path_to(wanted: fx.Node, value: object) -> str | None:
    """The subscripts that lead to a node in nested tuples; `None` if it is not there."""
    if value is wanted:
        return ""
    if isinstance(value, (tuple, list)):
        for i, item in enumerate(value):
            inner = _path_to(wanted, item)
            if inner is not None:
                return f"[{i}]{inner}"
    return None


def _function(node: fx.Node) -> str:
    return str(
        node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "y")
    )


def _identifier(name: str) -> str:
    name = "".join(c if c.isalnum() or c == "_" else "_" for c in name).strip("_") or "x"
    if name[0].isdigit():
        name = f"x{name}"
    reserved = keyword.iskeyword(name) or name in _RESERVED
    return f"{name}_" if reserved else name


_RESERVED = frozenset(
    {"self", "torch", "nn", "F", "math", "type", "max", "min", "sum", "range", "len"}
)


def _unused(name: str, taken: object) -> str:
    assert isinstance(taken, (list, set))
    if name not in taken:
        return name
    return next(f"{name}{i}" for i in range(2, 10_000) if f"{name}{i}" not in taken)


def _mutates(item: Item) -> bool:
    if isinstance(item, CallTree):
        return False
    name = _function(item)
    if item.target is operator.setitem or item.target in INPLACE:
        return True
    return (name.endswith("_") and not name.startswith("__")) or bool(item.kwargs.get("inplace"))


def _is_query(node: fx.Node) -> bool:
    """Asks a tensor for its type: written where the answer is used."""
    return node.target is torch.finfo or (
        node.target is getattr and node.args[1] in ("dtype", "min")
    )


def _is_entries(node: fx.Node) -> bool:
    """Whether it is a view by numbers and slices; entries by a tensor or a list are a copy."""
    if node.target is not operator.getitem:
        return False
    index = node.args[1]
    parts = index if isinstance(index, tuple) else (index,)
    return not any(isinstance(part, (fx.Node, list)) for part in parts)


def _is_pure(item: Item) -> bool:
    if isinstance(item, CallTree) or is_random(item) or _mutates(item):
        return False
    name = _function(item)
    return "dropout" not in name and "attention" not in name and name != "rrelu"


def _bare(index: str) -> str:
    return index[1:-1] if index.startswith("(") and index.endswith(")") else index


def _without_echo(lines: list[str]) -> list[str]:
    """`y = f(x)`, `return y` as `return f(x)`, unless a comment explains the statement."""
    if len(lines) > 1 and lines[-1].startswith("return "):
        name = lines[-1].removeprefix("return ")
        left, sign, right = lines[-2].partition(" = ")
        if sign and left == name and "  # " not in right:
            return [*lines[:-2], f"return {right}"]
    return lines
