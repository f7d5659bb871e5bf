"""Each pass on one small transformer: what it was given, what it found or rewrote."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

import mufx
from mufx.passes import PASSES
from mufx.passes.prove import findings
from mufx.program import Pass, Program

Golden = Callable[[str, str], None]
MODEL = Path(__file__).parent / "models" / "attention.py"


@cache
def after(name: str, form: str = "table3") -> Program:
    """The Program after the pass of that name; the trace for an empty name."""
    program = mufx.trace(mufx.load(str(MODEL)), form=form)
    for step in PASSES if name else ():
        program = step(program)
        if step.__name__ == name:
            break
    return program


def before(name: str, form: str = "table3") -> Program:
    names = ["", *(step.__name__ for step in PASSES)]
    return after(names[names.index(name) - 1], form)


def graph(program: Program) -> str:
    """The operations in training, a line each."""
    return "\n".join(
        f"{node.name} = {getattr(node.target, '__name__', node.target)}"
        f"({', '.join(map(str, (*node.args, *(f'{k}={v}' for k, v in node.kwargs.items()))))})"
        for node in program.train.graph.nodes
        if node.op.startswith("call_")
    )


def lines(rows: Iterable[str]) -> str:
    return "\n".join(rows) + "\n"


def uses(program: Program) -> str:
    return lines(
        f"{name}: {use.operation} as {use.kind}, contracts {use.m_in:g}, keeps {use.m_out:g}"
        for name, found in program.uses.items()
        for use in found
    )


def roles(program: Program) -> str:
    return lines(
        f"{name}: {label.role} {label.m_in:g}/{label.m_out:g}"
        + "".join(f", {node} wants x {factor:g}" for node, factor in label.multipliers.items())
        for name, label in program.labels.items()
    )


def inits(program: Program) -> str:
    return lines(
        f"{name}: {base.kind} {base.std:.4g} -> {target.std:.4g}"
        for name, (base, target) in program.inits.items()
    )


def plan(program: Program) -> str:
    return lines(
        f"{name}: multiplier {s.multiplier:g}, init {s.init:g}, lr {s.lr:g}, "
        f"decay {s.weight_decay:g}, eps {s.eps:g}, clip {s.clip:g}"
        for name, s in program.plan.items()
    )


def corrections(program: Program) -> str:
    return lines(
        f"{site.kind} {site.node}{'' if site.slot is None else f'[{site.slot}]'}: x {factor:g}"
        for site, factor in program.corrections[True].items()
    )


def changes(program: Program) -> str:
    return (
        graph(program)
        + "\n\n"
        + lines(
            f"{c.node}: {c.before} -> {c.after} ({c.place.module or 'the model'})"
            for c in program.changes
        )
    )


def factors(program: Program) -> str:
    return lines(f"{name}: x {factor:g}" for name, factor in program.init_corrections.items())


def absorbed(program: Program) -> str:
    return lines(f"{name}: x {factor:g}" for name, factor in program.absorbed.items())


def rows(program: Program) -> str:
    found = [f"{name}: {b.rows} of axis {b.axis}" for name, b in program.row_blocks.items()]
    return lines(found or ["no weight has rows with a role of their own"])


def notes(program: Program) -> str:
    return lines(map(str, program.diagnostics)) if program.diagnostics else "nothing to note\n"


SHOWN: dict[str, Callable[[Program], str]] = {
    "find_uses": uses,
    "find_row_blocks": rows,
    "assign_roles": roles,
    "find_fixed_heads": notes,
    "read_inits": inits,
    "plan_parameters": plan,
    "find_corrections": corrections,
    "apply_corrections": changes,
    "fold_multipliers": lambda program: changes(program) + "\n" + plan(program),
    "scale_inits": factors,
    "absorb_corrections": absorbed,
    "prove": lambda program: lines(map(str, findings(program))).strip() or "nothing leaves 1\n",
}


def test_every_pass_is_shown() -> None:
    assert list(SHOWN) == [step.__name__ for step in PASSES]


@pytest.mark.parametrize("name", SHOWN)
def test_pass(name: str, golden: Golden) -> None:
    golden(f"passes/{name}.txt", SHOWN[name](after(name)))


@pytest.mark.parametrize("form", ["table8", "table9"])
def test_forms_stand_in_the_graph(form: str, golden: Golden) -> None:
    golden(f"passes/fold_multipliers.{form}.txt", changes(after("fold_multipliers", form)))


@pytest.mark.parametrize("step", PASSES, ids=lambda step: step.__name__)
def test_a_pass_leaves_what_it_was_given(step: Pass) -> None:
    program = before(step.__name__)
    graphs = [str(trace.graph) for trace in program.traces]
    facts = repr((program.uses, program.labels, program.plan, program.corrections))
    step(program)
    assert [str(trace.graph) for trace in program.traces] == graphs
    assert repr((program.uses, program.labels, program.plan, program.corrections)) == facts


def test_a_pass_of_one_s_own_between_two_of_ours() -> None:
    def slower(program: Program) -> Program:
        plan = {n: replace(s, lr=s.lr / 10) for n, s in program.plan.items()}
        return replace(program, plan=plan)

    passes = list(PASSES)
    passes.insert([p.__name__ for p in passes].index("find_corrections"), slower)
    with pytest.raises(mufx.MufxError, match=r"MUF303: what .* learns changes by 0\.1"):
        mufx.run(after(""), passes)
    program = mufx.run(after(""), passes[:-1])
    assert program.plan["attention.qkv.weight"].lr == 0.025


def test_nothing_is_rewritten_without_corrections() -> None:
    source = mufx.load(str(MODEL), base={"width": 32, "heads": 2}, target={"width": 32, "heads": 2},
                       vary=("width",))  # fmt: skip
    traced = mufx.trace(source)
    program = mufx.run(traced)
    assert program.changes == ()
    assert str(program.train.graph) == str(traced.train.graph)
    assert set(program.init_corrections.values()) == {1.0}
