"""The writer of `model_mup.py`: one Python file that needs only torch."""

from __future__ import annotations

import inspect
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from textwrap import wrap
from typing import Any

import torch
from torch import fx, nn

from mufx.construction import Construction
from mufx.emit.bodies import SIZE_NAMES, Body, BodyContext, write_body
from mufx.emit.calls import CallTree, call_tree
from mufx.emit.classes import EmittedClass, Instance, group
from mufx.emit.initialisation import InitScale, init_body
from mufx.emit.layout import WIDTH, wrapped
from mufx.emit.loops import fold_loops
from mufx.emit.modules import Kind, ModuleTree, is_indexed, module_tree
from mufx.emit.returns import settle_returns
from mufx.emit.text import hole, merged
from mufx.recording import Call, Dim, Recording, Size


@dataclass(frozen=True)
class Emission:
    """What is written: a model at target width, rewritten, in both modes.

    Attributes:
        name: The class of the root.
        summary: What the header says about source, base and target.
        construction: The model on `meta` and its init tape.
        train: The recording in training mode, with free sizes.
        evaluate: The recording in evaluation mode.
        comments: By node name, what μP changed there.
        init_scales: Factors on what the constructor draws.
    """

    name: str
    summary: str
    construction: Construction
    train: Recording
    evaluate: Recording
    comments: Mapping[str, str]
    init_scales: Sequence[InitScale]


def emit(emission: Emission) -> str:
    """The source of the emitted module.

    Raises:
        MufxError: `MUF40x`: something that cannot be written as source that needs only torch.
    """
    return _Writer(emission).write()


class _Writer:
    def __init__(self, emission: Emission) -> None:
        self.emission = emission
        self.recordings = (emission.train, emission.evaluate)
        self.trees = [call_tree(r) for r in self.recordings]
        self.calls: list[dict[tuple[str, int], CallTree]] = [
            {t.key: t for t in root.trees()} for root in self.trees
        ]
        called = {path for calls in self.calls for path, _ in calls} | self._direct()
        changed = {
            r.origins[name].place.module
            for r in self.recordings
            for name in emission.comments
            if name in r.origins
        } | self._changed_calls()
        self.tree: ModuleTree = module_tree(emission.construction.model, called, changed)
        self.aliases = _aliases(emission.construction)
        self.classes: dict[str, EmittedClass] = {}
        every = [list(calls.values()) for calls in self.calls]
        settle_returns(list(zip(self.recordings, every, strict=True)), self._written_class)
        self.dissolved: set[str] = set()
        self.bodies = self._find_bodies()

    def _written_class(self, path: str) -> type | None:
        """The original class of a module whose forward is written; `None` for one of torch."""
        return None if self.tree.kinds[path] is Kind.LEAF else type(self.tree.modules[path])

    # -- what is called ---------------------------------------------------------------------

    def _direct(self) -> set[str]:
        """Modules whose tensors are used, by a call of their own or of another."""
        return {
            str(n.target).rpartition(".")[0]
            for r in self.recordings
            for n in r.graph.nodes
            if n.op == "get_attr"
        }

    def _changed_calls(self) -> set[str]:
        return {
            call.path
            for r in self.recordings
            for name in self.emission.comments
            if name in r.origins and (call := r.origins[name].call) is not None
        }

    def _splice(self) -> None:
        """Calls of containers dissolve into their caller, unless they are plain chains.

        So do those of modules that have no one forward for all their calls.
        """
        for i, root in enumerate(self.trees):
            _dissolve(root, self._is_transparent)
            self.calls[i] = {t.key: t for t in root.trees()}

    def _is_transparent(self, tree: CallTree) -> bool:
        kind = self.tree.kinds.get(tree.path)
        if tree.path in self.dissolved:
            return True
        if kind is Kind.SEQUENTIAL:
            return not self._is_chain(tree)
        return kind in (Kind.LIST, Kind.DICT)

    def _is_chain(self, tree: CallTree) -> bool:
        """Whether a Sequential's call is what calling it does: each child once, in order."""
        paths = [i.path for i in tree.items if isinstance(i, CallTree)]
        wanted = [p for _, p in self.tree.children(tree.path) if p not in self.tree.places]
        one_way = all(
            len(i.inputs) == 1 and len(i.returns) == 1
            for i in tree.items
            if isinstance(i, CallTree)
        )
        inner = all(isinstance(i, CallTree) for i in tree.items)
        plain = all(len(self._outside(i)) == 0 for i in tree.items if isinstance(i, CallTree))
        return inner and one_way and plain and paths == wanted

    # -- bodies -----------------------------------------------------------------------------

    def inputs(self, tree: CallTree) -> list[fx.Node]:
        """What a call takes: values, and parameters that do not lie in its module."""
        return [*tree.inputs, *self._outside(tree)]

    def _outside(self, tree: CallTree) -> list[fx.Node]:
        found: dict[fx.Node, None] = {}
        for node in tree.nodes():
            for value in node.all_input_nodes:
                if value.op == "get_attr" and self.parameter(value, tree.path) is None:
                    found[value] = None
        return list(found)

    def parameter(self, node: fx.Node, path: str) -> str | None:
        """A tensor's path relative to a module, under whichever of its names lies in it."""
        for name in self.aliases.get(str(node.target), [str(node.target)]):
            if not path or name.startswith(f"{path}."):
                return self.tree.attribute(name, path)
        return None

    def _context(self, recording: Recording, path: str) -> BodyContext:
        def call(tree: CallTree, argument: Callable[[object], str]) -> str:
            reached = self.tree.within(tree.path, path)
            assert reached is not None, tree.path
            target = self.tree.attribute(reached, path)
            kind = self.tree.kinds[tree.path]
            if kind is Kind.LEAF:
                given = recording.arguments[tree.key]
                assert isinstance(given, Mapping)
                return f"{target}({_leaf_arguments(tree, given, argument)})"
            return f"{target}({', '.join(argument(v) for v in self.inputs(tree))})"

        def output(argument: Callable[[object], str]) -> str:
            (returned,) = next(n for n in recording.graph.nodes if n.op == "output").args
            return _structure(returned, argument, recording.output_class)

        def result(tree: CallTree) -> object:
            if self.tree.kinds[tree.path] is Kind.LEAF:
                return recording.results[tree.key]
            return tree.returns[0] if len(tree.returns) == 1 else tuple(tree.returns)

        return BodyContext(
            recording, self.emission.comments, self.parameter, call, output, self.inputs, result
        )

    def _find_bodies(self) -> dict[str, Body]:
        """By path: the forward of every module that has one."""
        while True:
            self._splice()
            called = {path for calls in self.calls for path, _ in calls}
            written = [p for p, k in self.tree.kinds.items() if k is Kind.CLASS and p in called]
            bodies = {path: self._body(path) for path in written}
            found = {path: body for path, body in bodies.items() if body is not None}
            if found.keys() == bodies.keys():
                return found
            self.dissolved |= bodies.keys() - found.keys()

    def _body(self, path: str) -> Body | None:
        """The forward of a module; `None` if no one forward does what all its calls do."""
        by_mode: list[Body] = []
        for recording, calls in zip(self.recordings, self.calls, strict=True):
            trees = [t for t in calls.values() if t.path == path]
            if not trees:
                continue
            body = self._shared(trees, self._context(recording, path))
            if body is None:
                return None
            by_mode.append(body)
        train, evaluate = by_mode[0], by_mode[-1]
        if train.arguments != evaluate.arguments:
            return None
        lines = merged(train.lines, evaluate.lines)
        if lines is None:
            lines = [
                "if self.training:",
                *(f"    {line}" for line in train.lines),
                *evaluate.lines,
            ]
        return Body(train.arguments, tuple(lines))

    def _shared(self, trees: Sequence[CallTree], context: BodyContext) -> Body | None:
        """The body of the call that returns most, if it is that of the others too."""
        if not all(self._holds_what_it_calls(tree) for tree in trees):
            return None
        most = max(trees, key=lambda t: sum(v is not None for v in t.returns))
        body = write_body(most, context)
        if not all(t is most or self._is_another(t, most, body, context) for t in trees):
            return None
        return Body(body.arguments, tuple(fold_loops(body.lines, self.tree.lists(most.path))))

    def _holds_what_it_calls(self, tree: CallTree) -> bool:
        called = [item.path for item in tree.items if isinstance(item, CallTree)]
        return all(self.tree.within(path, tree.path) is not None for path in called)

    @staticmethod
    def _is_another(tree: CallTree, most: CallTree, body: Body, context: BodyContext) -> bool:
        """Whether a call has the body of the one that returns most, but for what it lacks."""
        if len(tree.returns) != len(most.returns):
            return False
        lacks = [own is None for own in tree.returns]
        if any(lacks):
            kept = [None if out else v for out, v in zip(lacks, most.returns, strict=True)]
            body = write_body(replace(most, returns=kept), context, body.arguments)
        return write_body(tree, context, body.arguments) == body

    # -- classes ----------------------------------------------------------------------------

    def write(self) -> str:
        """The whole file."""
        heights = {p: self._height(p) for p, k in self.tree.kinds.items() if k is Kind.CLASS}
        classes: list[EmittedClass] = []
        taken: set[str] = {"Any", "NamedTuple", "OrderedDict", "Path", "Tensor"}
        for height in sorted(set(heights.values())):
            instances = [self._instance(p) for p, h in heights.items() if h == height]
            for emitted in group(instances, taken):
                classes.append(emitted)
                self.classes.update({i.path: emitted for i in emitted.instances})
        parts = [*self._records(), *(self._class(c) for c in classes)]
        parts.insert(0, _header(self.emission, "\n".join(parts)))
        return "\n\n\n".join(parts) + "\n"

    def _height(self, path: str) -> int:
        below = [
            self._height(p) + (self.tree.kinds[p] is Kind.CLASS)
            for _, p in self.tree.children(path)
        ]
        return max(below, default=0)

    def _instance(self, path: str) -> Instance:
        module = self.tree.modules[path]
        body = self.bodies.get(path)
        results = {len(t.returns) for calls in self.calls for t in calls.values() if t.path == path}
        return Instance(
            path,
            type(module).__name__,
            tuple(self._init_lines(path)),
            body.arguments if body is not None else (),
            body.lines if body is not None else (),
            body is not None,
            max(results, default=0),
        )

    def _init_lines(self, path: str) -> list[str]:
        module = self.tree.modules[path]
        lines: list[str] = []
        for name, parameter in module._parameters.items():
            if parameter is not None:
                lines.append(_parameter_line(name, parameter))
        for name, buffer in module._buffers.items():
            if buffer is not None:
                persistent = name not in module._non_persistent_buffers_set
                lines.append(_buffer_line(name, buffer, persistent))
        for name, child in self.tree.children(path):
            text = self._construct(child)
            if is_indexed(module):
                lines.append(f"self.append({text})")
            elif name.isidentifier():
                lines.append(f"self.{name} = {text}")
            else:
                lines.append(f'self.add_module("{name}", {text})')
        return lines

    def _construct(self, path: str) -> str:
        kind = self.tree.kinds[path]
        if kind is Kind.LEAF:
            return self.tree.leaves[path]
        if kind is Kind.SHARED:  # the root puts it in place
            return "nn.Identity()"
        if kind is Kind.CLASS:
            return self.classes[path].expression(path)
        children = [(name, self._construct(child)) for name, child in self.tree.children(path)]
        if kind is Kind.LIST:  # what is None keeps the places of those after it
            made, module = dict(children), self.tree.modules[path]
            children = [(name, made.get(name, "None")) for name in module._modules]
        texts = [text for _, text in children]
        if kind is Kind.DICT:
            items = ", ".join(f'"{name}": {text}' for name, text in children)
            return f"nn.ModuleDict({{{items}}})"
        numbered = all(name == str(i) for i, (name, _) in enumerate(children))
        if numbered and len(texts) > 1 and len(set(texts)) == 1:
            items = f"{texts[0]} for _ in range({hole(len(texts), _count_name(path))})"
            return (
                f"nn.ModuleList([{items}])" if kind is Kind.LIST else f"nn.Sequential(*[{items}])"
            )
        if kind is Kind.LIST:
            return f"nn.ModuleList([{', '.join(texts)}])"
        if numbered:
            return f"nn.Sequential({', '.join(texts)})"
        items = ", ".join(f'("{name}", {text})' for name, text in children)
        return f"nn.Sequential(OrderedDict([{items}]))"

    def _class(self, emitted: EmittedClass) -> str:
        init, body = emitted.text()
        first = emitted.instances[0]
        root = first.path == ""
        parameters = "".join(f", {name}: {_type(emitted, name)}" for name in emitted.parameters)
        lines = [f"class {emitted.name}({_base(self.tree.modules[first.path])}):"]
        if root:
            lines += [*self._root_init(init), "", *self._init_weights()]
        elif init or not first.has_forward:
            lines += [f"    def __init__(self{parameters}) -> None:", "        super().__init__()"]
            lines += [f"        {line}" for line in init]
        if first.has_forward:
            arguments = "".join(f", {name}: Tensor" for name in first.arguments)
            lines += [""] if len(lines) > 1 else []
            lines += [f"    def forward(self{arguments}) -> {self._result_type(first)}:"]
            lines += [f"        {line}" for line in body]
        return "\n".join(wrapped(line) for line in lines)

    def _root_init(self, init: list[str]) -> list[str]:
        return [
            "    def __init__(self, device: torch.device | str | None = None) -> None:",
            "        super().__init__()",
            '        with torch.device("meta"):  # memory and values come below',
            *(f"            {line}" for line in [*init, *self._sharings()]),
            "        self.to_empty(device=device or torch.get_default_device())",
            "        self.init_weights()",
        ]

    def _sharings(self) -> list[str]:
        """Modules under further names."""
        return [
            f"{self.tree.attribute(path)} = {self.tree.attribute(first)}"
            for path, first in self.tree.shared.items()
            if self.tree.kinds[path] is Kind.SHARED
        ]

    def _init_weights(self) -> list[str]:
        ties = [
            f"{self.tree.attribute(other)} = {self.tree.attribute(names[0])}"
            for names in dict.fromkeys(tuple(v) for v in self.aliases.values())
            for other in names[1:]
            if self._is_parameter(names[0]) and other.rpartition(".")[0] not in self.tree.shared
        ]
        lines = init_body(self.emission.construction, self.emission.init_scales, self.tree.leaves)
        return [
            "    @torch.no_grad()",
            "    def init_weights(self, generator: torch.Generator | None = None) -> None:",
            '        """Fills every parameter and buffer in place, on any device."""',
            *(f"        {line}" for line in [*ties, *lines]),
        ]

    def _is_parameter(self, name: str) -> bool:
        owner, _, leaf = name.rpartition(".")
        return leaf in self.tree.modules[owner]._parameters

    def _result_type(self, instance: Instance) -> str:
        if instance.path:
            return (
                "Tensor"
                if instance.results < 2
                else f"tuple[{', '.join(['Tensor'] * instance.results)}]"
            )
        recording = self.emission.train
        (returned,) = next(n for n in recording.graph.nodes if n.op == "output").args
        if recording.output_class is not None:
            return recording.output_class
        return _structure_type(returned)

    def _records(self) -> list[str]:
        """The classes of what the model returns, in training and in evaluation."""
        returned: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for recording in self.recordings:
            if recording.output_class is not None:
                (value,) = next(n for n in recording.graph.nodes if n.op == "output").args
                assert isinstance(value, Mapping)
                returned[recording.output_class].append(value)
        return [_record(name, modes) for name, modes in returned.items()]


def _record(name: str, modes: Sequence[Mapping[str, Any]]) -> str:
    """A class of named results; what only one mode returns is `None` in the other."""
    found = {key: _structure_type(value) for mode in modes for key, value in mode.items()}
    missing = {key for key in found if any(key not in mode for mode in modes)}
    always = [f"    {key}: {text}" for key, text in found.items() if key not in missing]
    others = [f"    {key}: {found[key]} | None = None" for key in found if key in missing]
    return f"class {name}(NamedTuple):\n" + "\n".join([*always, *others])


def _dissolve(tree: CallTree, transparent: Callable[[CallTree], bool]) -> None:
    items: list[fx.Node | CallTree] = []
    for item in tree.items:
        if isinstance(item, CallTree):
            _dissolve(item, transparent)
            if transparent(item):
                items.extend(item.items)
                continue
        items.append(item)
    tree.items = items


def _aliases(construction: Construction) -> dict[str, list[str]]:
    """By tensor name: all names of the same tensor, the first one first."""
    by_id: dict[int, list[str]] = {}
    model = construction.model
    named: list[tuple[str, torch.Tensor]] = [
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ]
    for name, tensor in named:
        by_id.setdefault(id(tensor), []).append(name)
    return {name: names for names in by_id.values() for name in names}


def _leaf_arguments(
    tree: CallTree, given: Mapping[str, object], argument: Callable[[object], str]
) -> str:
    assert tree.call is not None
    call: Call = tree.call
    parameters = list(inspect.signature(call.cls.forward).parameters.values())[1:]
    texts: list[str] = []
    positional = True
    for parameter in parameters:
        value = given.get(parameter.name, parameter.default)
        if value is parameter.default or (value is None and parameter.default is None):
            positional = False
            continue
        text = argument(value)
        texts.append(text if positional else f"{parameter.name}={text}")
    return ", ".join(texts)


def _structure(value: Any, argument: Callable[[object], str], name: str | None) -> str:
    if isinstance(value, Mapping):
        if name is not None:
            items = ", ".join(f"{k}={_inner(v, argument)}" for k, v in value.items())
            return f"{name}({items})"
        items = ", ".join(f'"{k}": {_inner(v, argument)}' for k, v in value.items())
        return f"{{{items}}}"
    if isinstance(value, (tuple, list)):
        items = ", ".join(_inner(v, argument) for v in value)
        return items + "," if len(value) == 1 else items
    return argument(value)


def _inner(value: Any, argument: Callable[[object], str]) -> str:
    text = _structure(value, argument, None)
    return f"({text})" if isinstance(value, (tuple, list)) else text


def _structure_type(value: Any) -> str:
    if isinstance(value, Mapping):
        return "dict[str, Tensor]"
    if isinstance(value, (tuple, list)):
        return f"tuple[{', '.join(_structure_type(v) for v in value)}]"
    return (
        "Tensor"
        if isinstance(value, fx.Node)
        else type(value).__name__
        if value is not None
        else "None"
    )


def _base(module: nn.Module) -> str:
    """The class that the emitted one is derived from."""
    if not is_indexed(module):
        return "nn.Module"
    return "nn.Sequential" if isinstance(module, nn.Sequential) else "nn.ModuleList"


def _parameter_line(name: str, parameter: nn.Parameter) -> str:
    target = f"self.{name}" if name.isidentifier() else f'self.register_parameter("{name}", '
    frozen = "" if parameter.requires_grad else ", requires_grad=False"
    text = f"nn.Parameter({_empty(parameter)}{frozen})"
    return f"{target} = {text}" if name.isidentifier() else f"{target}{text})"


def _buffer_line(name: str, buffer: torch.Tensor, persistent: bool) -> str:
    suffix = "" if persistent else ", persistent=False"
    return f'self.register_buffer("{name}", {_empty(buffer)}{suffix})'


def _empty(tensor: torch.Tensor) -> str:
    shape = ", ".join(hole(d, "dim") for d in tensor.shape) or "()"
    dtype = "" if tensor.dtype is torch.float32 else f", dtype={tensor.dtype}"
    return f"torch.empty({shape}{dtype})"


def _count_name(path: str) -> str:
    name = path.rpartition(".")[2]
    return f"n_{name}" if not name.isdigit() else "n"


def _type(emitted: EmittedClass, name: str) -> str:
    values = [h.value for row in emitted.values.values() for h in row if h.name == name]
    if all(v in ("True", "False") for v in values):
        return "bool"
    return "float" if any("." in v or "e" in v or "inf" in v for v in values) else "int"


def _header(emission: Emission, text: str) -> str:
    """The docstring and the imports that the rest of the file, `text`, uses."""
    lines = [f'"""{emission.name} in the maximal update parametrization.', ""]
    told = [*emission.summary.splitlines(), _inputs(emission.train)]
    summary = [part for line in told for part in wrap(line, WIDTH)]
    lines += [*summary, '"""', "", "from __future__ import annotations", ""]
    standard = ["from collections import OrderedDict"] if "OrderedDict(" in text else []
    standard += ["from pathlib import Path"] if "Path(__file__)" in text else []
    typing = [name for name in ("Any", "NamedTuple") if re.search(rf"\b{name}\b", text)]
    standard += [f"from typing import {', '.join(typing)}"] if typing else []
    standard.insert(0, "import math") if re.search(r"(?<![\w.])math\.", text) else None
    lines += [*standard, ""] if standard else []
    lines += ["import torch"]
    lines += ["import torch.nn.functional as F"] if re.search(r"(?<![\w.])F\.", text) else []
    lines += ["from torch import Tensor, nn", "", f'__all__ = ["{emission.name}"]']
    return "\n".join(lines)


def _inputs(recording: Recording) -> str:
    """Which inputs the forward takes, and which of their sizes are free."""
    letters = iter(SIZE_NAMES)
    names: dict[object, str] = {}

    def name(size: Dim) -> str:
        if not isinstance(size, Size):
            return str(size)
        if size.expr not in names:
            names[size.expr] = next(letters)
        return names[size.expr]

    placeholders = [n.name for n in recording.graph.nodes if n.op == "placeholder"]
    values = {n: v for n in placeholders if (v := recording.values.get(n)) is not None}
    shown = ", ".join(
        f"{n} {str(v.dtype).removeprefix('torch.')}[{', '.join(map(name, v.shape))}]"
        for n, v in values.items()
    )
    fixed = any(not isinstance(size, Size) for v in values.values() for size in v.shape)
    return f"Inputs: {shown}{'; sizes that are numbers are fixed' if fixed else ''}."
