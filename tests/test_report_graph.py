"""What the page draws of a program: the graph around a correction, and the classes of axes."""

from __future__ import annotations

from itertools import combinations, pairwise
from typing import Any
from xml.etree import ElementTree

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import mufx
from mufx.auditing.entry import audited_source
from mufx.classes.finding import find_identities
from mufx.classes.program import program_of
from mufx.html.axes import Grown, axis_classes
from mufx.html.document import Axis, Code
from mufx.html.layout import Placed, laid_out
from mufx.html.of_audit import of_audit
from mufx.html.sketch import Box, Sketch, sketched
from mufx.html.svg import drawn
from mufx.program import Program
from mufx.source import from_callable
from tests.pages import conversion


@st.composite
def sketches(draw: st.DrawFn) -> Sketch:
    """Boxes with any arrows from an earlier one to a later one."""
    count = draw(st.integers(1, 9))
    pairs = list(combinations(map(str, range(count)), 2))
    arrows = draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    lines = st.lists(st.text(max_size=12), min_size=1, max_size=4).map(tuple)
    boxes = tuple(Box(str(i), draw(lines), "operation") for i in range(count))
    return Sketch(boxes, tuple(sorted(arrows)))


def apart(a: Placed, b: Placed) -> bool:
    beside = a.x + a.width <= b.x or b.x + b.width <= a.x
    return beside or a.y + a.height <= b.y or b.y + b.height <= a.y


@given(sketches())
def test_boxes_never_overlap_and_arrows_go_down(sketch: Sketch) -> None:
    layout = laid_out(sketch)
    assert {p.box for p in layout.boxes} == set(sketch.boxes)
    assert all(apart(a, b) for a, b in combinations(layout.boxes, 2))
    for box in layout.boxes:
        assert -0.01 <= box.x <= box.x + box.width <= layout.width + 0.01
        assert -0.01 <= box.y <= box.y + box.height <= layout.height + 0.01
    assert len(layout.arrows) == len(sketch.arrows)
    for points in layout.arrows:
        assert all(below[1] > above[1] for above, below in pairwise(points))


def test_a_drawing_holds_any_name() -> None:
    sketch = Sketch((Box("a", ("</svg><script>&\"'",), "weight"),), ())
    root = ElementTree.fromstring(drawn(laid_out(sketch)))
    assert [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")] == [
        "</svg><script>&\"'"
    ]


def test_before_an_insertion_its_operand_goes_straight_on() -> None:
    program = conversion().program
    (change,) = (c for c in program.changes if c.before == "1")
    put_in = frozenset({change.node})

    before = sketched(program.train, change.node, "1", new=False, without=put_in)
    after = sketched(program.train, change.node, "× 0.25", new=True, without=frozenset())

    (operand,) = (a for a, b in after.arrows if b == change.node)
    (user,) = (b for a, b in after.arrows if a == change.node)
    assert (operand, user) in before.arrows
    assert {box.name for box in before.boxes} == {b.name for b in after.boxes} - {change.node}
    assert [box.lines[-1] for box in after.boxes if box.kind == "new"] == ["× 0.25"]


def test_a_sketch_shows_what_comes_in_with_weights_and_where_it_goes() -> None:
    program = conversion().program
    change = next(c for c in program.changes if c.before != "1")
    sketch = sketched(program.train, change.node, change.after, new=True, without=frozenset())
    said = [box.lines[0] for box in sketch.boxes]
    assert said.count("…0.self_attn.in_proj_weight") == 1, "all of its parts"
    assert said.count("linear, view, permute") == 3
    assert "scaled_dot_product_attention" in said
    assert "…self_attn.out_proj.weight" in said


# -- classes of axes ----------------------------------------------------------------------------


class Heads(nn.Module):
    """A projection to heads of 4."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = width // 4
        self.into = nn.Linear(3, width)
        self.out = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.into(x).view(-1, self.heads, 4).tanh()
        made: Tensor = self.out(y.flatten(1))
        return made


def of_sizes() -> Program:
    found = mufx.convert(Heads, (torch.randn(2, 3),), {"width": 4}, {"width": 16})
    return found.program


def test_an_axis_has_the_letter_of_what_grows_in_it() -> None:
    """At base there is one head: an axis of size 1, which is not seen there."""
    found = axis_classes(of_sizes())
    assert [(c.letter, c.name, c.factor) for c in found.classes] == [("A", "into.weight:0.0", "4")]
    grows, fixed = Axis(4, 16, True, (0,)), Axis(3, 3, False)
    assert found.axes == {
        "into.weight": (grows, fixed),
        "into.bias": (grows,),
        "out.weight": (fixed, grows),
        "out.bias": (fixed,),
    }


def test_one_instance_has_the_classes_that_were_named() -> None:
    model, inputs = Heads(16), ((torch.randn(2, 3),), dict[str, object]())
    identities, grow = find_identities(model, inputs), {"into.weight:0.0": 4.0}
    program = program_of(model, inputs, identities, grow, {})
    assert axis_classes(program, Grown(model, identities, grow)) == axis_classes(of_sizes())


def test_where_no_axis_can_be_followed_sizes_are_all_that_is_said() -> None:
    """An instance's Program holds no modules that could run."""
    model, inputs = Heads(16), ((torch.randn(2, 3),), dict[str, object]())
    program = program_of(
        model, inputs, find_identities(model, inputs), {"into.weight:0.0": 4.0}, {}
    )
    found = axis_classes(program)
    assert found.classes == ()
    assert found.axes["into.weight"] == (Axis(4, 16, True), Axis(3, 3, False))


# -- code to train ------------------------------------------------------------------------------


def test_the_code_of_an_audit_makes_the_groups_that_are_right() -> None:
    """Judged with its own groups, the model has no finding about a rate or a decay."""
    made = (Heads, (torch.randn(2, 3),), {"width": 4}, {"width": 16})
    code = of_audit(audited_source(from_callable(*made))).sections[-1].blocks[-1]
    assert isinstance(code, Code)

    def optimizer(model: nn.Module) -> torch.optim.Optimizer:
        scope: dict[str, Any] = {"model": model}
        exec(code.text, scope)
        found: torch.optim.Optimizer = scope["optimizer"]
        if model.get_parameter("into.bias").shape[0] == 4:
            for group in found.param_groups:
                group.update(scope["TUNED"])
        return found

    wrong = {f.quantity.value for f in mufx.audit(*made, optimizer="adamw").findings}
    left = {f.quantity.value for f in mufx.audit(*made, optimizer=optimizer).findings}
    assert {"lr", "weight decay", "eps"} <= wrong
    assert left.isdisjoint({"lr", "weight decay", "eps", "groups"})
