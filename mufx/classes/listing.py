"""The table of classes: what may grow, and which parameter shows it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

from torch import fx

from mufx.classes.axes import Var
from mufx.classes.finding import Identities
from mufx.classes.naming import Piece, best, pieces, single
from mufx.rules import operation

RESIDUAL = "residual"


@dataclass(frozen=True, slots=True)
class ClassRow:
    """Classes of one name: axes that always grow together.

    Attributes:
        name: What `grow` takes; `*` stands for any number, and the row for a class of each layer.
        alias: `residual` for the class along which branches are added; else "".
        sizes: The sizes that occur.
        classes: How many classes share the name.
        tensors: How many parameters show one of them.
        end: "input" or "output" for an axis of what goes in or comes out, "table" for the rows
            of one, which keep their size in a wider model; else "".
        also: Other places that show the class.
    """

    name: str
    alias: str
    sizes: tuple[int, ...]
    classes: int
    tensors: int
    end: str
    also: tuple[str, ...]


@dataclass(frozen=True)
class ClassTable:
    """The classes of one instance that a parameter shows.

    Attributes:
        model: The class of the instance.
        rows: Those of inputs and outputs last, else by the number of parameters.
    """

    model: str
    rows: tuple[ClassRow, ...]

    def document(self) -> dict[str, object]:
        """The records as JSON takes them."""
        return asdict(self)


def listed(identities: Identities, model: str) -> ClassTable:
    """The table of the classes that a parameter shows."""
    listing = _Listing(identities)
    rows = [listing.row(name, found) for name, found in families(identities).items()]
    return ClassTable(model, tuple(sorted(rows, key=lambda r: (bool(r.end), -r.tensors))))


def families(identities: Identities) -> dict[str, dict[Var, Piece]]:
    """The classes by pattern, each with the piece that shows it best.

    Where a pattern stands for one class only, its name is the parameter's own.
    """
    grouped: dict[str, dict[Var, Piece]] = defaultdict(dict)
    taps = {identities.space.root(v) for v in identities.space.taps}
    for atom, piece in best(identities.space, pieces(identities)).items():
        if atom not in taps:
            grouped[piece.pattern][atom] = piece
    return {
        pattern if len(found) > 1 else next(iter(found.values())).name: found
        for pattern, found in grouped.items()
    }


class _Listing:
    """Writes the rows of one table."""

    def __init__(self, identities: Identities) -> None:
        self.space = identities.space
        self.residual = residual(identities)
        ins, outs = ends(identities)
        rows = _atoms(identities, identities.space.rows)
        self.ends = {"input": ins, "output": outs, "table": rows - outs}
        self.patterns: dict[Var, dict[str, None]] = defaultdict(dict)
        self.tensors: dict[Var, set[str]] = defaultdict(set)
        for piece in pieces(identities):
            for atom in self.space.atoms(piece.var):
                self.tensors[atom].add(piece.parameter)
            shown = single(self.space, piece.var)
            if shown is not None:
                self.patterns[shown][piece.pattern] = None

    def row(self, name: str, found: Mapping[Var, Piece]) -> ClassRow:
        own = {piece.pattern for piece in found.values()}
        sizes = dict.fromkeys(self.space.size(piece.var) for piece in found.values())
        patterns = dict.fromkeys(p for atom in found for p in self.patterns[atom])
        end = next((e for e, atoms in self.ends.items() if not atoms.isdisjoint(found)), "")
        return ClassRow(
            name,
            RESIDUAL if self.residual in found else "",
            tuple(sizes),
            len(found),
            len(set[str]().union(*(self.tensors[atom] for atom in found))),
            end,
            tuple(p for p in patterns if p not in own),
        )


def ends(identities: Identities) -> tuple[set[Var], set[Var]]:
    """The classes of the axes that go in, and of those that come out."""
    ins: set[Var] = set()
    outs: set[Var] = set()
    for run in identities.runs:
        for node in run.recording.graph.nodes:
            if node.op == "placeholder":
                ins |= _atoms(identities, run.axes.get(node.name, ()))
            if node.op == "output":
                for source in node.all_input_nodes:
                    outs |= _atoms(identities, run.axes.get(source.name, ()))
    return ins, outs - ins


def _atoms(identities: Identities, axes: Iterable[Var]) -> set[Var]:
    return {atom for var in axes for atom in identities.space.atoms(var)}


def residual(identities: Identities) -> Var | None:
    """The class along which branches are added and that most matrices show, if there is one."""
    space = identities.space
    matrices = [axes for axes in identities.parameters.values() if len(axes) > 1]
    counts: dict[Var, int] = defaultdict(int)
    for axes in matrices:
        for atom in {space.root(v) for v in axes if space.parts(v) is None}:
            counts[atom] += 1
    ins, _ = ends(identities)
    common = [a for a in _added(identities) - ins if 2 * counts[a] > len(matrices)]
    return common[0] if len(common) == 1 else None


def _added(identities: Identities) -> set[Var]:
    """The classes of the axes of sums of two activations."""
    found: set[Var] = set()
    for node in identities.train.recording.graph.nodes:
        if operation(node) == "add" and _of_activations(node):
            rows = [identities.train.axes.get(n.name, ()) for n in node.all_input_nodes]
            if len({len(row) for row in rows}) == 1:
                found |= _atoms(identities, rows[0])
    return found


def _of_activations(node: fx.Node) -> bool:
    return all(isinstance(a, fx.Node) and a.op != "get_attr" for a in node.args[:2])
