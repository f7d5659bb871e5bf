"""The static proof finds nothing in what mufx converts, and finds what was broken on purpose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

import mufx
from mufx.editing import Editor
from mufx.passes.prove import findings
from mufx.program import Program, Scales
from mufx.sizes import Number

ROOT = Path(__file__).parent.parent
EXAMPLES = ("mlp", "gpt", "llama", "resnet", "encoder")


@cache
def converted(example: str, form: str = "table3", optimizer: str = "adamw") -> Program:
    source = mufx.load(str(ROOT / "examples" / f"{example}.py"))
    return mufx.run(mufx.trace(source, form=form, optimizer=optimizer))


def with_plan(program: Program, name: str, **changed: float) -> Program:
    plan: Mapping[str, Scales] = {**program.plan, name: replace(program.plan[name], **changed)}
    return replace(program, plan=plan)


def found(program: Program) -> set[tuple[str, str | None]]:
    return {(f.node, f.parameter) for f in findings(program)}


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("form", ["table3", "table8", "table9"])
@pytest.mark.parametrize("example", EXAMPLES)
def test_nothing_leaves_one(example: str, form: str, optimizer: str) -> None:
    assert findings(converted(example, form, optimizer)) == []


def test_a_learning_rate_that_keeps_its_base_value() -> None:
    program = converted("mlp")
    hidden = next(n for n, la in program.labels.items() if la.role == "hidden")
    (use,) = program.uses[hidden]
    (finding, *_) = findings(with_plan(program, hidden, lr=1.0))
    assert (finding.node, finding.parameter) == (use.node, hidden)
    assert finding.ratio == pytest.approx(use.m_in)


def test_an_init_that_keeps_its_base_value() -> None:
    program = converted("gpt")
    hidden = "h.0.attn.c_attn.weight"
    broken = replace(program, init_corrections={**program.init_corrections, hidden: 1.0})
    (use,) = program.uses[hidden]
    assert found(broken) == {(use.node, hidden)}
    assert findings(broken)[0].ratio == pytest.approx(2.0)


def test_an_attention_scale_that_was_left_in_place() -> None:
    program = converted("gpt")
    attention = next(n for n in program.train.graph.nodes if "scaled_dot" in n.name)
    editor = Editor(program.train)
    editor.set_number(attention.name, "scale", Number(32**-0.5, 64**-0.5, 128**-0.5))
    broken = replace(program, train=editor.done())
    assert [f.node for f in findings(broken)] == [attention.name]
    assert findings(broken)[0].ratio == pytest.approx(2**0.5)


def test_a_readout_multiplier_that_is_missing() -> None:
    program = converted("mlp", "table8")
    change = next(c for c in program.changes if c.before == "1")
    editor = Editor(program.train)
    editor.bypass(change.node)
    broken = replace(program, train=editor.done())
    readout = next(n for n, la in program.labels.items() if la.role == "output")
    assert {f.parameter for f in findings(broken)} == {readout}


def test_a_folded_gain_that_learns_like_any_other() -> None:
    program = converted("gpt")
    broken = with_plan(program, "ln_f.weight", lr=1.0)
    assert ("ln_f.weight") in {f.parameter for f in findings(broken)}


def test_a_model_in_standard_parametrization() -> None:
    program = converted("llama")
    standard = replace(
        program,
        plan={name: Scales() for name in program.plan},
        init_corrections=dict.fromkeys(program.init_corrections, 1.0),
    )
    weights = {n for n, la in program.labels.items() if la.role in ("hidden", "output")}
    assert {f.parameter for f in findings(standard)} == weights
