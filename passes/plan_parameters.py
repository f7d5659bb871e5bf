"""The numbers of every parameter: multiplier, init, learning rate, weight decay, eps."""

from __future__ import annotations

import math
from dataclasses import replace

from mufx.program import Form, Label, Optimizer, Program, Role, Scales


def plan_parameters(program: Program) -> Program:
    """Plans every parameter in the program's form, for its optimizer.

    Tensor Programs V, Table 3, relative to base width:

        role     init         Adam lr   SGD lr        Adam eps
        scalar   1            1         1             1
        input    1            1         m_out         1/m_out
        hidden   m_in**-1/2   1/m_in    m_out/m_in    1/m_out
        output   1/m_in       1/m_in    m_out/m_in    1/m_out

    An output weight whose result goes into a norm starts like a hidden one: its size makes no
    difference to the function, and what it learns is as large as what it starts with.

    Weight decay follows 1/lr, so that a step decays as much as at base width. The other forms are
    the abc-shift of this one. eps follows the gradient's scale, which depends on m_out only.
    They train alike, so a parameter that nothing can multiply has the numbers of Table 3 in each:
    one of a list (a class token that is concatenated), or inside a fused recurrent layer.

    Before: `uses` and `labels`. After: `plan` holds the scales of every parameter; at base width
    all are 1. `labels` say which of them have no multiplier because they cannot.
    """
    plan: dict[str, Scales] = {}
    labels = dict(program.labels)
    for name, label in program.labels.items():
        wanted = scales(label, program.form, program.optimizer)
        plan[name] = plain = scales(label, Form.TABLE3, program.optimizer)
        if wanted == plain:
            continue
        if all(use.slot is not None for use in program.uses[name]):
            plan[name] = wanted
        else:
            labels[name] = replace(label, because=(*label.because, _WITHOUT))
    return replace(program, plan=plan, labels=labels)


_WITHOUT = "no multiplier: it is used in a list or inside a layer; the numbers are those of table3"


def scales(label: Label, form: Form, optimizer: Optimizer) -> Scales:
    """The scales of one parameter."""
    init = 1.0 if label.anchor is None else 1 / label.anchor.terms
    lr = 1 / label.m_in
    if optimizer is Optimizer.SGD:
        lr *= label.m_out
    table3 = Scales(1.0, init, lr, 1 / lr, 1 / label.m_out, 1.0)
    return table3.shifted(theta(label, form), optimizer)


def theta(label: Label, form: Form) -> float:
    """The multiplier that a form gives a weight; none where its size makes no difference."""
    if label.anchor is not None and label.anchor.normed:
        return 1.0
    if form is Form.TABLE8 and label.role is Role.OUTPUT:
        return 1 / label.m_in
    if form is Form.TABLE9 and label.role is Role.OUTPUT:
        return 1 / math.sqrt(label.m_in)
    if form is Form.TABLE9 and label.role is Role.INPUT:
        return math.sqrt(label.m_out)
    return 1.0
