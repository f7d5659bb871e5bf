"""A pass of your own between two of mufx's: slower embeddings.

Run it with `python examples/custom_pass.py`. It converts the GPT of `gpt.py` with a pass that
divides the learning rate of every looked-up table by 10, and prints what changed.

`prove` is left out: it would object, and rightly so. A table that learns a tenth at target width
and all of it at base width is not the maximal update parametrization any more.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import mufx
from mufx.passes import find_corrections
from mufx.program import Program


def slow_embeddings(program: Program) -> Program:
    """Divides the learning rate of every table that is only looked up by 10.

    Before: `plan`. After: the same plan but for these tables; their weight decay per step stays.
    A table is known by its uses, not by its name.
    """
    plan = dict(program.plan)
    for name, uses in program.uses.items():
        if all(use.kind == "lookup" for use in uses):
            scales = plan[name]
            plan[name] = replace(scales, lr=scales.lr / 10, weight_decay=scales.weight_decay * 10)
    return replace(program, plan=plan)


def main() -> None:
    """Converts the example GPT and prints its groups."""
    passes = list(mufx.PASSES)
    passes.insert(passes.index(find_corrections), slow_embeddings)
    source = mufx.load(str(Path(__file__).with_name("gpt.py")))
    program = mufx.run(mufx.trace(source), [p for p in passes if p.__name__ != "prove"])
    for name, scales in program.plan.items():
        if scales.lr == 0.1:
            print(f"{name}: learning rate x {scales.lr:g}, weight decay x {scales.weight_decay:g}")


if __name__ == "__main__":
    main()
