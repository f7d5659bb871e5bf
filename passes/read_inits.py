"""What the model's own constructor gives every parameter."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from mufx.diagnostics import Diagnostic, MufxError, error, note
from mufx.emit.tables import TABLES_FILE, table_nodes
from mufx.moments import Moments, moments
from mufx.program import Program, Role


def read_inits(program: Program) -> Program:
    """Reads mean and standard deviation of every parameter's init, at base and at target.

    They come from the init tape, exactly; nothing is classified by hand.

    Before: `labels`. After: `inits` holds both moments of every parameter.

    Codes: `MUF204` for a weight that contracts an axis that grows and does not start at zero
    mean: its sum would grow like m, not like sqrt(m) (Tensor Programs V, Appendix B). `MUF410`
    for values that come from outside of torch.
    """
    inits: dict[str, tuple[Moments, Moments]] = {}
    diagnostics: list[Diagnostic] = []
    for name in program.parameters():
        try:
            base, target = moments(program.base, name), moments(program.target, name)
        except MufxError as problem:
            diagnostics.extend(problem.diagnostics)
            continue
        inits[name] = (base, target)
        label = program.labels[name]
        if label.role in (Role.HIDDEN, Role.OUTPUT) and abs(target.mean) > 1e-6 * _size(target):
            assert label.anchor is not None
            diagnostics.append(
                error(
                    "MUF204",
                    f"{name} has the role {label.role} and starts with mean {target.mean:g}",
                    hint="initialise it with zero mean, or with zeros",
                    place=label.anchor.place,
                )
            )
    diagnostics.extend(_from_outside(program))
    return replace(program, inits=inits).report(*diagnostics)


def _from_outside(program: Program) -> Iterator[Diagnostic]:
    for name, node in table_nodes(program.target).items():
        count = program.target.constants[str(node.target)].numel()
        yield note(
            "MUF410",
            f"{name.partition('#')[0]} starts from {count} numbers that no torch function "
            f"computed: they lie in {TABLES_FILE}, the same for every seed",
            hint="nothing, if they are a table; to have them drawn, draw them with torch",
            place=program.target.origins[node.name].place,
        )


def _size(moments: Moments) -> float:
    return max(moments.std, abs(moments.mean))
