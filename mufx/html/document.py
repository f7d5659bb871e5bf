"""What a page shows: sections made of blocks. The page's script draws them and knows nothing else.

Everything here is plain data, the same for the same input. A number that is not finite is None.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Cell: TypeAlias = "str | float | tuple[float, str] | None"
"""What a table shows; a pair is what it sorts by, and its text."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Attributes:
        title: Its head.
        kind: "mark" is a word from a small set, with a colour of its own.
        filter: "choice" offers its values, "search" any part of them.
        hints: What a search may begin with.
    """

    title: str
    kind: Literal["text", "code", "number", "mark"] = "text"
    filter: Literal["", "choice", "search"] = ""
    hints: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """One row; `detail` is told where it is opened."""

    cells: tuple[Cell, ...]
    detail: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Table:
    """A table that can be sorted and filtered; `folded` is opened by hand."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    folded: bool = False
    kind: Literal["table"] = "table"


@dataclass(frozen=True, slots=True)
class AxisClass:
    """Axes that grow together: a letter, what it stands for, and how many times they grow."""

    letter: str
    name: str
    factor: str


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of a parameter: its sizes, and the classes it grows with.

    `classes` are their places among those of the tree; a product of axes has several.
    """

    base: int
    target: int
    grows: bool
    classes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Branch:
    """A module with what it holds, or a parameter with its axes."""

    name: str
    about: str
    mark: str = ""
    axes: tuple[Axis, ...] = ()
    branches: tuple[Branch, ...] = ()


@dataclass(frozen=True, slots=True)
class Tree:
    """The module tree."""

    title: str
    classes: tuple[AxisClass, ...]
    branches: tuple[Branch, ...]
    kind: Literal["tree"] = "tree"


@dataclass(frozen=True, slots=True)
class Drawing:
    """An SVG element, and the same in words."""

    title: str
    svg: str
    words: str


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that is told: facts, the lines of source that it is about, drawings."""

    title: str
    facts: tuple[tuple[str, str], ...]
    source: tuple[str, ...] = ()
    drawings: tuple[Drawing, ...] = ()
    mark: str = ""
    kind: Literal["entry"] = "entry"


@dataclass(frozen=True, slots=True)
class Point:
    """A measurement; `y` is None where a run diverged, `low` and `high` are the seeds' range."""

    x: float
    y: float | None
    low: float | None = None
    high: float | None = None
    star: bool = False


@dataclass(frozen=True, slots=True)
class Series:
    """A line; those of one group are shown and hidden together."""

    name: str
    group: str
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Scale:
    """One axis of a plot; `ticks` are (value, text), none where the page may choose."""

    title: str
    log: bool
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Plot:
    """Lines over x; groups are an order (widths) or a set of words, which have colours."""

    title: str
    x: Scale
    y: Scale
    groups: tuple[str, ...]
    ordered: bool
    series: tuple[Series, ...]


@dataclass(frozen=True, slots=True)
class Panels:
    """Plots side by side; `folded` are opened by hand."""

    title: str
    plots: tuple[Plot, ...]
    folded: bool = False
    kind: Literal["panels"] = "panels"


@dataclass(frozen=True, slots=True)
class Code:
    """Text to copy."""

    text: str
    kind: Literal["code"] = "code"


@dataclass(frozen=True, slots=True)
class Words:
    """A paragraph."""

    text: str
    kind: Literal["words"] = "words"


Block: TypeAlias = Table | Tree | Entry | Panels | Code | Words


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page that the navigation leads to.

    `head` is what its page says of it above: on another page that goes with it.
    """

    id: str
    title: str
    blocks: tuple[Block, ...]
    head: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Document:
    """A page.

    `verdict` is what it comes to, if it comes to anything, and `good` whether well; `source` is the
    digest of the model's file.
    """

    title: str
    summary: str
    sections: tuple[Section, ...]
    verdict: str = ""
    good: bool = True
    source: str = ""
